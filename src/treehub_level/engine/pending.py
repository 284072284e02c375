"""`PendingReader`: a transaction with the writes that it will make, as a source of reads."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Final

from ..backends.base import FETCH_BYTES, Cursor, Entry, Reader, Row, take_within
from ..backends.memory import SortedKeys

#: Rows of the transaction that are fetched at a time: at first, and at most.
_FIRST_FETCH: Final = 100
_MOST_FETCH: Final = 1000


class PendingReader:
    """A reader of a transaction with the writes that are accepted so far, which it has not yet.

    Args:
        reader: The transaction.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._pending: dict[bytes, bytes | None] = {}
        self._keys = SortedKeys()

    @property
    def entries(self) -> list[Entry]:
        """The accepted writes: the last one of each key, in the order in which they came."""
        return [*self._pending.items()]

    def accept(self, entries: Iterable[Entry]) -> None:
        """Add entries that will be written."""
        for key, value in entries:
            if key in self._pending:
                del self._pending[key]  # the last write takes its place in the order, too
            else:
                self._keys.add((key,))
            self._pending[key] = value

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; ``None`` for an absent one."""
        return self._pending[key] if key in self._pending else self._reader.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key; ``None`` for an absent one."""
        stored = zip(keys, self._reader.get_many(keys), strict=True)
        return [self._pending.get(key, value) for key, value in stored]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PendingCursor:
        """Return a cursor over a range. Writes that are accepted later do not change its rows."""
        return PendingCursor(self.rows(start, stop, reverse=reverse, values=values))

    def rows(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> Generator[Row, None, None]:
        """Return an iterator over the rows of a range in key order, or in the reverse order.

        Args:
            start: The lower bound, inclusive; ``None`` for no lower bound.
            stop: The upper bound, exclusive; ``None`` for no upper bound.
            reverse: Iterate in descending order.
            values: False to read keys only. The values of stored rows are empty then.
        """
        # A stack, its top the first row of the direction.
        pending = [(key, self._pending[key]) for key in self._keys.iterate(start, stop, not reverse)]
        return _merged(self._stored(start, stop, reverse, values), pending, reverse)

    def _stored(
        self, start: bytes | None, stop: bytes | None, reverse: bool, values: bool
    ) -> Generator[Row, None, None]:
        """Yield the rows of the transaction itself."""
        size = _FIRST_FETCH
        with closing(self._reader.scan(start, stop, reverse=reverse, values=values)) as cursor:
            while rows := cursor.fetch(size) if values else [(key, b"") for key in cursor.fetch_keys(size)]:
                yield from rows
                size = min(2 * size, _MOST_FETCH)


def _merged(stored: Generator[Row, None, None], pending: list[Entry], reverse: bool) -> Generator[Row, None, None]:
    """Yield stored rows and pending writes in order; of one key the pending write."""
    with closing(stored):
        for key, value in stored:
            while pending and (pending[-1][0] > key if reverse else pending[-1][0] < key):
                yield from _put_rows(*pending.pop())
            if pending and pending[-1][0] == key:
                yield from _put_rows(*pending.pop())
            else:
                yield key, value
    while pending:
        yield from _put_rows(*pending.pop())


def _put_rows(key: bytes, value: bytes | None) -> Iterator[Row]:
    """Yield an entry, unless it is a delete."""
    if value is not None:
        yield key, value


class PendingCursor(Cursor):
    """See `base.Cursor`.

    Args:
        rows: The rows, from a generator.
    """

    def __init__(self, rows: Generator[Row, None, None]) -> None:
        self._rows = rows

    def fetch(self, limit: int) -> list[Row]:
        """See `base.Cursor.fetch`."""
        return take_within(self._rows, limit, FETCH_BYTES)[0]

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        """See `base.Cursor.fetch_within`."""
        return take_within(self._rows, limit, max_bytes)[0]

    def fetch_keys(self, limit: int) -> list[bytes]:
        """See `base.Cursor.fetch_keys`."""
        return [key for key, _ in islice(self._rows, limit)]

    def close(self) -> None:
        """Close the cursor of the transaction."""
        self._rows.close()
