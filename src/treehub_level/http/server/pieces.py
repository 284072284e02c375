"""Pages that are read from a database in pieces, as they are sent.

The end of a page, its number of rows, and the fields of its header are fixed when the request is
answered. Only its first rows stay in memory, if the budget has room for them. The next piece is
read once the client has taken the one before, so that a page for a client that reads slowly, or
nothing, costs no more than a piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ...backends.base import Row
from ...replication.manual import Part
from .refusals import RefusedError, retry_later
from .response_budget import FIRST_BYTES, PIECE_BYTES, ResponseHold

#: A change record of the log, with its CID.
NumberedRecord = tuple[int, bytes]


class LogPieces:
    """The change records of a page of the log.

    Args:
        records: All records of the page.
        after: The CID after which the page begins.

    Attributes:
        count: The number of records in the page.
        first: The records that are in memory.
        is_whole: True if they are the whole page, and small enough to be sent at once.
        read: Reads the next piece of the log after a CID. It raises an error if the history of the
            store is no longer the one that the page was read from. A whole page needs none.
    """

    read: Callable[[int], Awaitable[Part]]

    def __init__(self, records: Sequence[NumberedRecord], after: int) -> None:
        self.count = len(records)
        kept = _fitting([len(record) for _, record in records], FIRST_BYTES)
        self.first: list[NumberedRecord] = [*records[:kept]]
        self.is_whole = kept == self.count and _records_size(self.first) <= PIECE_BYTES
        self._last = records[-1][0] if records else after
        self._left = self.count
        self._after = after

    async def next(self, hold: ResponseHold) -> list[NumberedRecord]:
        """Return the next records; an empty list after the last.

        Raises:
            RefusedError: The log was compacted meanwhile, so that the page cannot be completed.
        """
        if self.first:
            first, self.first = self.first, []
            if hold.try_take(_records_size(first)):
                self._left -= len(first)
                self._after = first[-1][0]
                return first
            del first
        while self._left:
            part = await hold.read(self._read_part, lambda part: _records_size(part.records))
            records = [record for record in part.records if record[0] <= self._last]
            self._left -= len(records)
            # A prefix hides records: a piece may be empty, but it gets on.
            if self._left < 0 or part.cid <= self._after or (self._left and part.cid >= self._last):
                raise page_changed()
            self._after = part.cid
            if records:
                return records
        return []

    async def _read_part(self) -> Part:
        return await self.read(self._after)


class EntryPieces:
    """The entries of a page, in key order.

    Entries that are read later are those at the time when they are read: an entry that was
    deleted meanwhile is left out, and one that was inserted is not in the page.

    Args:
        rows: All entries of the page.
        has_more: True if the range has entries after the page.
        read: Reads entries from a key, inclusive, on.

    Attributes:
        first: The entries that are in memory.
        has_more: True if the range has entries after the page. The page ends early if its keys
            alone would take more memory than a piece.
        is_whole: True if they are the whole page, and small enough to be sent at once.
    """

    def __init__(self, rows: Sequence[Row], has_more: bool, read: Callable[[bytes], Awaitable[list[Row]]]) -> None:
        kept = _fitting([len(key) + len(value) for key, value in rows], FIRST_BYTES)
        self.first: list[Row] = [*rows[:kept]]
        self.is_whole = kept == len(rows) and _rows_size(self.first) <= PIECE_BYTES
        keys = [key for key, _ in rows]
        end = len(keys) if self.is_whole else max(kept, _fitting([len(key) for key in keys], PIECE_BYTES))
        self._keys = keys[:end]
        self.has_more = has_more or end < len(keys)
        self._read = read

    async def next(self, hold: ResponseHold) -> list[Row]:
        """Return the next entries; an empty list after the last."""
        if self.first:
            first, self.first = self.first, []
            if hold.try_take(_rows_size(first)):
                self._keys = self._keys[len(first) :]
                return first
            del first
        while self._keys:
            rows = await hold.read(self._read_rows, _rows_size)
            if not rows:
                break
            wanted, reached = set(self._keys), rows[-1][0]
            self._keys = [key for key in self._keys if key > reached]
            if rows := [row for row in rows if row[0] in wanted]:
                return rows
        return []

    async def _read_rows(self) -> list[Row]:
        return await self._read(self._keys[0])


def page_changed() -> RefusedError:
    """Return the error that ends a response whose page cannot be completed.

    The response has begun, so that the client sees a connection that ends early, and asks again.
    """
    return retry_later(503, "LEVEL_UNAVAILABLE", "the log was compacted or replaced while a page of it was sent")


def _fitting(sizes: Sequence[int], most: int) -> int:
    """Return the number of rows that fit in so many bytes: at least one, if there are any."""
    total = 0
    for number, size in enumerate(sizes):
        total += size
        if total > most:
            return max(1, number)
    return len(sizes)


def _records_size(records: Sequence[NumberedRecord]) -> int:
    return sum(len(record) for _, record in records)


def _rows_size(rows: Sequence[Row]) -> int:
    return sum(len(key) + len(value) for key, value in rows)
