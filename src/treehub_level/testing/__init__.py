"""What authors of backends test theirs with. It needs pytest, which the package itself does not."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.conformance")

from .conformance import BackendConformance  # noqa: E402  # after the call above, or its asserts would say nothing

__all__ = ["BackendConformance"]
