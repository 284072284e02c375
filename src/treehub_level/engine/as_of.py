"""`AsOfSnapshot`: a server as it was at an earlier CID, read from its present data and its log.

The data at a CID is the present data, but for the keys that have changed since. Each of those has
the value of its last change up to that CID, which the log still holds if it was not compacted.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple

from ..backends.base import Backend, Cursor, Reader, Row, Snapshot
from ..errors import HistoryError
from ..locks import ErrorCheckingLock
from .log import read_rows
from .records import OwnRecords

#: The most records of the log, and the most bytes of them, in memory at a time.
_FETCH: Final = 1000
_FETCH_BYTES: Final = 1 << 20


def snapshot_as_of(backend: Backend, records: OwnRecords, at: int) -> AsOfSnapshot:
    """Return a snapshot of a server as of a CID.

    The log covers a CID from that of the newest change at the last compaction up to the present
    one: a compaction drops only changes that others up to that CID supersede.

    Args:
        backend: The backend of the server, open.
        records: The own records of the server.
        at: The CID.

    Raises:
        HistoryError: The log does not cover the CID.
        CorruptionError: A record of the store is damaged.
    """
    snapshot = backend.snapshot()
    try:
        head = records.cid(snapshot)
        earliest = records.floor(snapshot, head).compacted_to
        if at > head:
            raise HistoryError(
                f"there is no state as of CID {at}: {backend.name!r} is at CID {head}",
                cid=at,
                earliest=earliest,
                latest=head,
            )
        if at < earliest:
            raise HistoryError(
                f"the state as of CID {at} cannot be read: the log of {backend.name!r} was compacted up to CID "
                f"{earliest}. Read it as of CIDs {earliest} to {head}, or restore a backup from before the compaction",
                cid=at,
                earliest=earliest,
                latest=head,
            )
        return AsOfSnapshot(snapshot, records, at, head, earliest, backend.name)
    except BaseException:
        snapshot.close()
        raise


class _Changed(NamedTuple):
    """The keys that have changed since the CID of a snapshot.

    Attributes:
        cids: The CID of the last change of each key up to that CID; 0 if there is none.
        keys: The keys in order.
    """

    cids: dict[bytes, int]
    keys: list[bytes]


class AsOfSnapshot(Snapshot):
    """A snapshot of a server as it was at a CID.

    The first read reads the log after that CID, and before it until the last change of each key
    that has changed since is found. Memory grows with the number of those keys, not with their
    values. Metadata other than the CID and the log is that of the present.

    Args:
        snapshot: A snapshot of the present. It is closed together with this one.
        records: The own records of the server.
        at: The CID.
        head: The CID of ``snapshot``.
        compacted_to: The CID up to which the log may have gaps.
        name: The name of the store, for error messages.
    """

    def __init__(
        self, snapshot: Snapshot, records: OwnRecords, at: int, head: int, compacted_to: int, name: str
    ) -> None:
        self._snapshot = snapshot
        self._records = records
        self._space = records.space
        self._at = at
        self._head = head
        self._compacted_to = compacted_to
        self._lock = ErrorCheckingLock(f"read {name!r} as of a CID")
        self._changed: _Changed | None = None

    def close(self) -> None:
        """Release the snapshot. Closing twice is harmless."""
        self._snapshot.close()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key`` at the CID, or ``None`` if the key was absent."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return a value or ``None`` for each key, in order."""
        changed = self._find_changed().cids
        places = [self._space.log_key(changed[key]) if changed.get(key) else key for key in keys]
        values = self._snapshot.get_many(places)
        return [self._value(key, changed.get(key), value) for key, value in zip(keys, values, strict=True)]

    def _value(self, key: bytes, cid: int | None, value: bytes | None) -> bytes | None:
        """Return the value of a key, given the CID of its last change and the row read for it."""
        if cid is not None:
            return None if not cid or value is None else self._records.logged(cid, value)[1]
        if key == self._space.prefix:
            return b"%d" % self._at if self._at else None
        if self._space.log_start <= key < self._space.log_stop and self._records.log_cid(key) > self._at:
            return None
        return value

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """Return a cursor over the keys of users with ``start <= key < stop``."""
        keys = self._find_changed().keys
        first = 0 if start is None else bisect_left(keys, start)
        within = keys[first : len(keys) if stop is None else bisect_left(keys, stop)]
        if reverse:
            within.reverse()
        return _AsOfCursor(
            self, self._snapshot.scan(start, stop, reverse=reverse, values=values), within, reverse, values
        )

    def _find_changed(self) -> _Changed:
        if self._changed is None:
            with self._lock.entry():
                if self._changed is None:
                    cids = self._read_log()
                    self._changed = _Changed(cids, sorted(cids))
        return self._changed

    def has_changed(self, key: bytes) -> bool:
        """Return True if a key has changed since the CID."""
        return key in self._find_changed().cids

    def _read_log(self) -> dict[bytes, int]:
        """Return the CID of the last change up to the CID, or 0, of each key that changed since."""
        found = {key: 0 for _, key in self._changes(self._at, self._head, reverse=False)}
        left = len(found)
        if left:
            for cid, key in self._changes(0, self._at, reverse=True):
                if found.get(key) == 0:
                    found[key] = cid
                    left -= 1
                    if not left:
                        break
        return found

    def _changes(self, after: int, to: int, *, reverse: bool) -> Iterator[tuple[int, bytes]]:
        """Yield the CID and the key of each change from ``after`` (exclusive) to ``to``.

        Raises:
            CorruptionError: A record is damaged or missing.
        """
        if after >= to:
            return
        log_key = self._space.log_key
        expected = to if reverse else after + 1
        with closing(self._snapshot.scan(log_key(after + 1), log_key(to) + b"\0", reverse=reverse)) as cursor:
            while rows := read_rows(cursor, _FETCH, _FETCH_BYTES):
                for stored_key, record in rows:
                    cid = self._records.log_cid(stored_key)
                    if cid != expected and expected > self._compacted_to:
                        raise self._records.damaged(log_key(expected), "of a change is missing from the log")
                    expected = cid - 1 if reverse else cid + 1
                    yield cid, self._records.logged(cid, record)[0]


class _AsOfCursor(Cursor):
    """A cursor over the rows of an `AsOfSnapshot`.

    Args:
        snapshot: The snapshot.
        present: A cursor over the present rows of the range.
        changed: The keys of the range that have changed since, in the order of the cursor.
        reverse: True if the order is descending.
        values: True if the caller will use ``fetch``.
    """

    def __init__(
        self, snapshot: AsOfSnapshot, present: Cursor, changed: Sequence[bytes], reverse: bool, values: bool
    ) -> None:
        self._snapshot = snapshot
        self._present = present
        self._size = 1
        fetch = present.fetch if values else self._fetch_bare
        self._rows = heapq.merge(
            self._unchanged_rows(fetch), self._changed_rows(changed), key=itemgetter(0), reverse=reverse
        )

    def fetch(self, limit: int) -> list[Row]:
        """Return the next rows, at most ``limit``."""
        self._size = limit
        return [*islice(self._rows, limit)]

    def fetch_keys(self, limit: int) -> list[bytes]:
        """Return the keys of the next rows, at most ``limit``."""
        return [key for key, _ in self.fetch(limit)]

    def close(self) -> None:
        """Release the resources of the cursor."""
        self._present.close()

    def _fetch_bare(self, limit: int) -> list[Row]:
        return [(key, b"") for key in self._present.fetch_keys(limit)]

    def _unchanged_rows(self, fetch: Callable[[int], list[Row]]) -> Iterator[Row]:
        while rows := fetch(self._size):
            for row in rows:
                if not self._snapshot.has_changed(row[0]):
                    yield row

    def _changed_rows(self, keys: Sequence[bytes]) -> Iterator[Row]:
        names = iter(keys)
        while chunk := [*islice(names, self._size)]:
            for key, value in zip(chunk, self._snapshot.get_many(chunk), strict=True):
                if value is not None:
                    yield key, value


def changes_of(reader: Reader, records: OwnRecords, key: bytes) -> list[tuple[int, bytes]]:
    """Return the CID and the record of each change of a key in the log, in CID order.

    The log is read once, in bounded memory but for the result.

    Raises:
        CorruptionError: A record is damaged.
    """
    found: list[tuple[int, bytes]] = []
    with closing(reader.scan(records.space.log_start, records.space.log_stop)) as cursor:
        while rows := read_rows(cursor, _FETCH, _FETCH_BYTES):
            for stored_key, record in rows:
                cid = records.log_cid(stored_key)
                if records.logged(cid, record)[0] == key:
                    found.append((cid, record))
    return found
