"""Tools for testing applications, backends, and other clients and servers of the exchange.

For applications: `FlakyServer` (an unreliable network), `CrashingDisk` (crashes and power cuts) and
`assert_converged` (equality of replicas). They need no other library. For backends:
`BackendConformance`, a test suite for pytest. For clients and servers in any language:
`treehub_level.testing.exchange`, and its scenarios as suites for pytest,
`ExchangeClientConformance` and `ExchangeServerConformance`. ``docs/testing.md`` explains all of
them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .converged import assert_converged
from .crashing import CrashError, CrashingDisk
from .flaky import FlakyServer

if TYPE_CHECKING:
    from .conformance import BackendConformance
    from .exchange.suites import ExchangeClientConformance, ExchangeServerConformance

__all__ = [
    "BackendConformance",
    "CrashError",
    "CrashingDisk",
    "ExchangeClientConformance",
    "ExchangeServerConformance",
    "FlakyServer",
    "assert_converged",
]

#: The modules that need pytest, by the names that they define.
_SUITES: Final = {
    "BackendConformance": f"{__name__}.conformance",
    "ExchangeClientConformance": f"{__name__}.exchange.suites",
    "ExchangeServerConformance": f"{__name__}.exchange.suites",
}


def __getattr__(name: str) -> Any:
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(_SUITES[name])  # before the import: it makes pytest explain the asserts
    globals()[name] = suite = getattr(import_module(_SUITES[name]), name)
    return suite
