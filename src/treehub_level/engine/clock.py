"""The wall clock of the journal. Nothing is ever decided by it."""

from __future__ import annotations

import time


def unix_ms() -> int:
    """Return the time in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000
