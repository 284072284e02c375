"""What authors of applications and of backends test theirs with.

`FlakyServer`, `CrashingDisk` and `assert_converged` are for applications, and need nothing that the
package does not. `BackendConformance` is for backends, and needs pytest.
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
    from .conformance import BackendConformance  # after the call above, or its asserts would say nothing

    globals()[name] = BackendConformance
    return BackendConformance
