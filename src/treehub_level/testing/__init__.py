"""Tools for testing applications and backends.

For applications: `FlakyServer` (an unreliable network), `CrashingDisk` (crashes and power cuts) and
`assert_converged` (equality of replicas). They need no other library. For backends:
`BackendConformance`, a test suite for pytest. ``docs/testing.md`` explains all of them.
"""

from typing import TYPE_CHECKING, Any

from .converged import assert_converged
from .crashing import CrashError, CrashingDisk
from .flaky import FlakyServer

if TYPE_CHECKING:
    from .conformance import BackendConformance

__all__ = ["BackendConformance", "CrashError", "CrashingDisk", "FlakyServer", "assert_converged"]


def __getattr__(name: str) -> Any:
    if name != "BackendConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite(f"{__name__}.conformance")
    from .conformance import BackendConformance  # after the call above, which makes pytest explain its asserts

    globals()[name] = BackendConformance
    return BackendConformance
