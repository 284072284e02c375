"""The change log of a server: reading pages of it, and compacting it.

The log is the range ``P + "1"`` to ``P + "I"`` (``P`` is the prefix), with one record per change.
Log keys are encoded so that byte order is numeric order. Compaction leaves gaps: CIDs keep their
numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import NamedTuple

import orjson

from .. import _core
from ..backends.base import Cursor, Entry, Reader, Row, Transaction, bounded_fetcher
from ..errors import StorageError
from .full_disk import smaller_step
from .key_ranges import KeyRanges
from .modes import Plan, Server, Step
from .records import Floor, OwnRecords, commit_key, commits_stop

#: Records that one step of a compaction reads. Other writers run between two steps.
COMPACTION_STEP = 1000
#: Rows fetched at a time for a page.
_FETCH = 1000
#: Bytes fetched at a time where rows that are not wanted are skipped.
_FETCH_BYTES = 1 << 20
#: Records that one request reads at most, wanted or not, and their bytes in memory.
MAX_READ_RECORDS = 100_000
MAX_READ_BYTES = 64 << 20
#: Bytes that a row takes in memory beside its key and its value: the objects of Python around them.
ROW_BYTES = 128


def read_log(reader: Reader, mode: Server, after: int, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
    """Read records of the log with CIDs above ``after``, in CID order.

    Args:
        reader: The reader.
        mode: The server.
        after: The CID below the first one to read.
        limit: The largest number of records.
        max_bytes: The largest size of the records in memory: see `read_rows`.

    Raises:
        CorruptionError: A key in the range of the log is not a log key.
    """
    if after >= _core.MAX_CID:
        return []
    with closing(reader.scan(mode.space.log_key(after + 1), mode.space.log_stop)) as cursor:
        return mode.records.log_rows(read_rows(cursor, limit, max_bytes))


class LogPart(NamedTuple):
    """The wanted records of a part of the log.

    Attributes:
        records: The CID and the record of each wanted change, in CID order.
        cid: The CID of the last record that was read, whether wanted or not; if none was read, the
            CID after which the part begins.
    """

    records: list[tuple[int, bytes]]
    cid: int


def read_wanted(
    reader: Reader, mode: Server, after: int, wanted: KeyRanges, limit: int, max_bytes: int, to: int = _core.MAX_CID
) -> LogPart:
    """Read the records of the log whose keys are wanted, in bounded time and memory.

    Values are not decoded. The part also ends after `MAX_READ_RECORDS` records or `MAX_READ_BYTES`,
    wanted or not.

    Args:
        reader: The reader.
        mode: The server.
        after: The CID below the first one to read.
        wanted: The wanted keys.
        limit: The largest number of wanted records.
        max_bytes: The largest size of the wanted records in memory. One record is returned even if
            it is larger.
        to: The last CID to read.

    Raises:
        CorruptionError: A key in the range of the log is not a log key, or a record is damaged.
    """
    if after >= to:
        return LogPart([], after)
    records: list[tuple[int, bytes]] = []
    rows_left, bytes_left = MAX_READ_RECORDS, MAX_READ_BYTES
    stop = mode.space.log_stop if to == _core.MAX_CID else mode.space.log_key(to) + b"\0"
    with closing(reader.scan(mode.space.log_key(after + 1), stop)) as cursor:
        fetch = bounded_fetcher(cursor)
        while rows_left > 0 and bytes_left > 0:
            rows = fetch(min(_FETCH, rows_left), _FETCH_BYTES)
            if not rows:
                break
            rows_left -= len(rows)
            bytes_left -= rows_size(rows)
            numbered = mode.records.log_rows(rows)
            for row, key in zip(numbered, keys_of(mode, numbered), strict=True):
                if key in wanted:
                    max_bytes -= len(row[1]) + ROW_BYTES
                    if len(records) == limit or (max_bytes < 0 and records):
                        return LogPart(records, after)
                    records.append(row)
                after = row[0]
    return LogPart(records, after)


def read_rows(cursor: Cursor, limit: int, max_bytes: int) -> list[Row]:
    """Read the next rows of a cursor in bounded memory. The cursor may end up further on.

    Args:
        cursor: The cursor.
        limit: The largest number of rows.
        max_bytes: The largest size of the rows in memory, in bytes: of their keys and values, and
            `ROW_BYTES` for each. One row is returned even if it is larger. At most one row beyond
            them is read.
    """
    fetch = bounded_fetcher(cursor)
    page: list[Row] = []
    left = max_bytes
    while len(page) < limit and left > 0:
        rows = fetch(min(_FETCH, limit - len(page), left // ROW_BYTES + 1), left)
        if not rows:
            break
        size = rows_size(rows)
        if size > left:
            _drop_beyond(rows, left, keep_first=not page)
        page += rows
        left -= size
    return page


def _drop_beyond(rows: list[Row], max_bytes: int, *, keep_first: bool) -> None:
    """Drop the rows from the first one that does not fit into ``max_bytes``."""
    for index, (key, value) in enumerate(rows):
        max_bytes -= len(key) + len(value) + ROW_BYTES
        if max_bytes < 0 and (index or not keep_first):
            del rows[index:]
            return


def rows_size(rows: Sequence[Row]) -> int:
    """Return the bytes that some rows take in memory."""
    return sum(map(len, chain.from_iterable(rows))) + ROW_BYTES * len(rows)


def records_size(records: Sequence[tuple[int, bytes]]) -> int:
    """Return the bytes that some records of the log take in memory."""
    return sum(len(record) for _, record in records) + ROW_BYTES * len(records)


def keys_of(mode: Server, records: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Yield the stored key of each record of the log.

    Raises:
        CorruptionError: A record is damaged.
    """
    for cid, record in records:
        yield mode.records.logged(cid, record)[0]


def last_logged(reader: Reader, records: OwnRecords) -> int:
    """Return the CID of the newest record in the log; 0 if the log is empty.

    Raises:
        CorruptionError: The last key in the range of the log is not a log key.
    """
    rows = _newest(reader, records.space, records.space.log_stop, 1)
    return records.log_cid(rows[0][0]) if rows else 0


def _newest(reader: Reader, space: _core.KeySpace, stop: bytes, limit: int) -> list[Row]:
    with closing(reader.scan(space.log_start, stop, reverse=True)) as cursor:
        return cursor.fetch(limit)


class _LiveChanges:
    """The CIDs of the changes that are left in the log, asked for in rising order.

    Each part of the log is read once. On LevelDB a seek walks over all tombstones up to the next
    record, so one seek for each question could take quadratic time.
    """

    def __init__(self, records: OwnRecords) -> None:
        self._records = records
        self._start = 0
        self._cids: list[int] = []

    def has_any(self, reader: Reader, first: int, last: int) -> bool:
        """Return True if the log holds a change from ``first`` to ``last``."""
        if first < self._start or not self._cids or self._cids[-1] < first:
            space = self._records.space
            with closing(reader.scan(space.log_key(first), space.log_stop, values=False)) as cursor:
                self._cids = [*map(self._records.log_cid, cursor.fetch_keys(COMPACTION_STEP))]
            self._start = first
        index = bisect_left(self._cids, first)
        return index < len(self._cids) and self._cids[index] <= last


class Compaction:
    """Drops superseded changes from the log, newest first, then old deletes, then their commits.

    A change is superseded if the log holds a later change of the same key. The compaction runs in
    steps of one small batch each, so that writers and pulls continue beside it. It may stop after
    any step, and a step that was rolled back may run again. Memory grows with the number of
    distinct keys in the log.

    A delete is dropped only when the log holds nothing older of its key. Otherwise a reader of the
    log in between, or after a crash, would find the older value and not the delete.

    The record of a commit is dropped last, once the log holds none of its changes.

    Args:
        mode: The server whose log it is.
        drop_deletes_before: Drop also the deletes with a CID below this one, and raise the floor
            above them.
        to: The last CID to look at; ``None`` for the whole log. A change that only changes after it
            supersede stays.
        unique_to: The CID up to which the log is known to have one record for each key at most, by
            an earlier compaction. The keys up to there take no memory.

    Attributes:
        dropped: The number of records dropped so far.
        kept: The number of records that were looked at and left.
    """

    def __init__(
        self, mode: Server, *, drop_deletes_before: int = 0, to: int | None = None, unique_to: int = 0
    ) -> None:
        self._records = mode.records
        self._space = mode.space
        self._drop_deletes_before = drop_deletes_before
        self._log_stop, self._commits_stop = self._space.log_stop, commits_stop(self._space)
        if to is not None:
            self._log_stop = self._space.log_key(to) + b"\0" if to else self._space.log_start
            self._commits_stop = commit_key(self._space, to) + b"\0" if to else commit_key(self._space, 1)
        self._unique_to = unique_to
        self._connection_epoch: Hashable = None
        self.dropped = 0
        self.kept = 0
        self._size = COMPACTION_STEP
        self._restart()

    def _restart(self) -> None:
        self._seen: set[bytes] = set()
        self._newest = 0
        self.kept = 0
        self._stop = self._log_stop
        self._deferred: list[Entry] = []
        self._deletes: list[tuple[int, Entry]] = []
        self._drops_commits = False
        self._next_commit = commit_key(self._space, 1)
        self._live = _LiveChanges(self._records)

    def run(self, step: Callable[[Step[bool]], bool]) -> int:
        """Run all steps. Make them smaller while the disk has no room for the log of one.

        Args:
            step: Runs one step and commits its plan: `Store.step`.

        Returns:
            The number of records dropped.
        """
        while True:
            try:
                if not step(self.step):
                    return self.dropped
            except StorageError as error:
                self._size = smaller_step(self._size, error)

    def step(self, transaction: Transaction, cid: int) -> Plan[bool]:
        """Process the next records, then the next deletes, then the next commits.

        The result is True if there may be more.
        """
        if transaction.connection_epoch != self._connection_epoch:
            # The store may have been replaced, and this log may lack the records seen so far.
            self._connection_epoch = transaction.connection_epoch
            self._restart()
        if self._drops_commits:
            return self._drop_commits(transaction, cid)
        before = self._records.floor(transaction, cid)
        rows = _newest(transaction, self._space, self._stop, self._size)
        return self._drop_superseded(rows, before) if rows else self._drop_deletes(before)

    def _drop_superseded(self, rows: list[Row], before: Floor) -> Plan[bool]:
        newest = self._newest or self._records.log_cid(rows[0][0])
        seen: set[bytes] = set()
        deletes: list[tuple[int, Entry]] = []
        batch = [*self._deferred]
        for stored_key, record in rows:
            number = self._records.log_cid(stored_key)
            key, value = self._records.logged(number, record)
            if key in seen or key in self._seen:
                batch.append((stored_key, None))
            elif value is None and number < self._drop_deletes_before and number != newest:
                deletes.append((number, (stored_key, None)))
            if number > self._unique_to:
                seen.add(key)
        # LevelDB walks over all tombstones behind a key to find the record before it. The last
        # record of a step is therefore kept until the next step: otherwise each step would walk
        # over the tombstones of all steps before it.
        deferred = [batch.pop()] if batch and batch[-1][0] == rows[-1][0] else []
        dropped = len(batch)
        kept = len(rows) - len(batch) - len(deferred) + len(self._deferred)
        if batch or deferred:
            batch.append(self._floor_entry(before, newest, 0))

        def advance() -> None:
            self.kept += kept
            self._newest, self._stop, self._deferred = newest, rows[-1][0], deferred
            self._seen |= seen
            self._deletes += deletes
            self.dropped += dropped

        return Plan(True, batch, after_commit=advance)

    def _drop_deletes(self, before: Floor) -> Plan[bool]:
        chosen, left = self._deletes[: self._size], self._deletes[self._size :]
        batch = [*self._deferred, *(entry for _, entry in chosen)]
        dropped = len(batch)
        if batch:
            batch.append(self._floor_entry(before, self._newest, max((number for number, _ in chosen), default=0)))

        def advance() -> None:
            self._deferred, self._deletes, self._drops_commits = [], left, not left
            self.dropped += dropped
            self.kept -= len(chosen)

        # Pushes below the floor are refused for good, so the floor must survive a power cut.
        return Plan(True, batch, durable=bool(chosen), after_commit=advance)

    def _drop_commits(self, transaction: Transaction, cid: int) -> Plan[bool]:
        """Drop the records of commits without a change in the log, oldest first."""
        with closing(transaction.scan(self._next_commit, self._commits_stop)) as cursor:
            rows = cursor.fetch(self._size)
        commits = [(key, self._records.commit(key, record, cid)) for key, record in rows]
        batch: list[Entry] = [
            (key, None) for key, commit in commits if not self._live.has_any(transaction, commit.first, commit.last)
        ]

        def advance() -> None:
            self._next_commit = rows[-1][0] + b"\0"

        return Plan(bool(rows), batch, after_commit=advance if rows else None)

    def _floor_entry(self, before: Floor, newest: int, dropped_delete: int) -> Entry:
        compacted_to, floor = before
        return self._space.own_key("floor"), orjson.dumps([max(compacted_to, newest), max(floor, dropped_delete)])
