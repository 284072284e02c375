"""The wall clock, read in this one place.

It informs people. No change of data is ever decided by it: it may be wrong, jump or stand still.
Retention (``engine.retention``) counts the time between two runs, up to a day.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Final

#: The last millisecond that a `datetime` can hold: the end of the year 9999.
MAX_MS: Final = 253_402_300_799_999

_START: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def unix_ms() -> int:
    """Return the time in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def now() -> int | None:
    """Return the time as `unix_ms` does; ``None`` if no `datetime` can hold it."""
    ms = unix_ms()
    return ms if 0 <= ms <= MAX_MS else None


def moment(ms: int) -> datetime:
    """Return the moment so many milliseconds after 1970 began, in UTC."""
    return _START + timedelta(milliseconds=ms)


def utc_text(time: datetime) -> str:
    """Return a time in UTC as text, to the second (RFC 3339)."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
