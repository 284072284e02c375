"""Pages that are read from a database in pieces, as they are sent.

The end of a page, its number of rows, and the fields of its header are fixed when the request is
answered. Its rows stay in memory only if the budget has room for them. Otherwise they are read
again: the next piece once the client has taken the one before, so that a page for a client that
reads slowly, or nothing, costs no more than a piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Final, Generic, TypeVar

from ...backends.base import Row
from ...replication.manual import Part
from .refusals import RefusedError, retry_later
from .response_budget import PIECE_BYTES, ResponseHold

T = TypeVar("T")

#: Bytes of rows in memory that are encoded at a time.
_PART_BYTES: Final = 256 << 10

#: A change record of the log, with its CID.
NumberedRecord = tuple[int, bytes]


class _Kept(Generic[T]):
    """The rows of a page that are still in memory.

    Args:
        rows: The rows.
        measure: Returns the bytes of some rows.
    """

    def __init__(self, rows: list[T], measure: Callable[[Sequence[T]], int]) -> None:
        self._rows = rows
        self._measure = measure
        self._size = measure(rows)
        self.is_small = self._size <= PIECE_BYTES

    def settle(self, hold: ResponseHold) -> None:
        """Forget the rows if the budget has no room for them."""
        if not hold.keep(self._size):
            self._rows = []

    def next(self, hold: ResponseHold) -> list[T]:
        """Return the next rows; an empty list after the last."""
        hold.shrink(self._size)  # the client has taken the rows before these
        rows, self._rows = self._rows, []
        if self._size > _PART_BYTES and rows:
            end = _fitting([self._measure([row]) for row in rows], _PART_BYTES)
            rows, self._rows = rows[:end], rows[end:]
        self._size -= self._measure(rows)
        return rows


class LogPieces:
    """The change records of a page of the log.

    Args:
        records: All records of the page.
        after: The CID after which the page begins.

    Attributes:
        count: The number of records in the page.
        is_small: True if the page can be sent at once.
        read: Reads the next piece of the log after a CID. It raises an error if the history of the
            store is no longer the one that the page was read from. A small page needs none.
    """

    read: Callable[[int], Awaitable[Part]]

    def __init__(self, records: list[NumberedRecord], after: int) -> None:
        self.count = len(records)
        self._kept = _Kept(records, records_size)
        self.is_small = self._kept.is_small
        self._last = records[-1][0] if records else after
        self._left = self.count
        self._after = after

    def settle(self, hold: ResponseHold) -> None:
        """Keep the rows in memory if the budget has room for them."""
        self._kept.settle(hold)

    async def next(self, hold: ResponseHold) -> list[NumberedRecord]:
        """Return the next records; an empty list after the last.

        Raises:
            RefusedError: The log was compacted meanwhile, so that the page cannot be completed.
        """
        if records := self._kept.next(hold):
            self._left -= len(records)
            self._after = records[-1][0]
            return records
        while self._left:
            part = await hold.read(self._read_part, lambda part: records_size(part.records))
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

    Entries that are read later are those at the time when they are read: an entry that was deleted
    meanwhile is left out, and one that was inserted is not in the page.

    Args:
        rows: All entries of the page.
        has_more: True if the range has entries after the page.
        read: Reads entries from a key, inclusive, on.

    Attributes:
        has_more: True if the range has entries after the page. The page ends early if its keys
            alone would take more memory than a piece.
        is_small: True if the page can be sent at once.
    """

    def __init__(self, rows: list[Row], has_more: bool, read: Callable[[bytes], Awaitable[list[Row]]]) -> None:
        end = _fitting([len(key) for key, _ in rows], PIECE_BYTES)
        self.has_more = has_more or end < len(rows)
        self._keys = [key for key, _ in rows[:end]]
        self._kept = _Kept(rows[:end], _rows_size)
        self.is_small = self._kept.is_small
        self._read = read

    def settle(self, hold: ResponseHold) -> None:
        """Keep the rows in memory if the budget has room for them."""
        self._kept.settle(hold)

    async def next(self, hold: ResponseHold) -> list[Row]:
        """Return the next entries; an empty list after the last."""
        if rows := self._kept.next(hold):
            self._keys = self._keys[len(rows) :]
            return rows
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


def records_size(records: Iterable[NumberedRecord]) -> int:
    """Return the bytes of some records."""
    return sum(map(len, map(itemgetter(1), records)))


def _rows_size(rows: Iterable[Row]) -> int:
    return sum(map(len, chain.from_iterable(rows)))
