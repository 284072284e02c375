"""`RangeComparison`: the differences between a range of a store and its state when last compared.

A shared store in NORMAL or CLIENT mode has no record of the keys that another process has changed.
So a watch of one knows a digest of each pair of its range, and compares them with a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from ..backends.base import Entry, Row
from .watched_range import SpansCursor

if TYPE_CHECKING:
    from ..backends.sqlite.scratch import ScratchMap

#: Rows that are read at a time, and rows that one call of `RangeComparison.next_changes` reads.
_FETCH: Final = 1000
_MOST: Final = 10_000


def digest(value: bytes) -> bytes:
    """Return 16 bytes that tell values apart."""
    return blake2b(value, digest_size=16).digest()


class KnownState:
    """The digest of each pair of a range, as a consumer knows it: in memory up to a bound.

    Beyond the bound it lies in a temporary file.
    """

    def __init__(self) -> None:
        from ..backends.sqlite.scratch import ScratchMap  # some builds of Python lack sqlite3

        self._digests: ScratchMap = ScratchMap()

    def learn(self, entries: Sequence[Entry]) -> None:
        """Record pairs that the consumer is told."""
        self._digests.update((key, None if value is None else digest(value)) for key, value in entries)

    def after(self, key: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Return keys and digests in key order: see `ScratchMap.after`."""
        return self._digests.after(key, limit)

    def close(self) -> None:
        """Drop all digests."""
        self._digests.close()


class RangeComparison:
    """Reads a range of a snapshot beside the known state of it, both in key order.

    Args:
        known: The known state. It takes over the differences.
        cursor: A cursor over the range. The comparison closes it.
    """

    def __init__(self, known: KnownState, cursor: SpansCursor) -> None:
        self._known = known
        self._cursor = cursor
        self._last_known: bytes | None = None
        self._digests: list[tuple[bytes, bytes]] = []
        self._is_known_read = False
        self._rows: list[Row] = []
        self._are_rows_read = False
        self.is_complete = False

    def next_changes(self) -> list[Entry]:
        """Return the next differences: each key with its present value, ``None`` if it is absent.

        There may be none before `is_complete` is set.
        """
        found: list[Entry] = []
        for _ in range(_MOST // _FETCH):
            self._fetch()
            changes = self._differences()
            self._known.learn(changes)
            found += changes
            if self._are_rows_read and self._is_known_read and not (self._rows or self._digests):
                self.is_complete = True
                self.close()
            if found or self.is_complete:
                break
        return found

    def _fetch(self) -> None:
        if not self._digests and not self._is_known_read:
            self._digests = self._known.after(self._last_known, _FETCH)
            self._is_known_read = len(self._digests) < _FETCH
            if self._digests:
                self._last_known = self._digests[-1][0]
        if not self._rows and not self._are_rows_read:
            self._rows = self._cursor.fetch_entries(_FETCH)
            self._are_rows_read = not self._rows

    def _differences(self) -> list[Entry]:
        """Compare the fetched parts as far as both reach, and drop these parts."""
        rows, digests = dict(self._rows), dict(self._digests)
        ends = []
        if not self._are_rows_read:
            ends.append(self._rows[-1][0])
        if not self._is_known_read:
            ends.append(self._digests[-1][0])
        end = min(ends, default=None)
        keys = sorted(key for key in rows.keys() | digests.keys() if end is None or key <= end)
        changes: list[Entry] = []
        for key in keys:
            value = rows.get(key)
            if value is None:
                changes.append((key, None))
            elif digests.get(key) != digest(value):
                changes.append((key, value))
        self._rows = [] if end is None else [row for row in self._rows if row[0] > end]
        self._digests = [] if end is None else [item for item in self._digests if item[0] > end]
        return changes

    def close(self) -> None:
        """Close the cursor. Closing it again is harmless."""
        self._cursor.close()
