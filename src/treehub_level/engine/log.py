"""The server's change log: reading pages of it, and compacting it.

The log is the range ``P + "1"`` to ``P + "I"``, one record a change, keyed so that bytewise order is numeric order.
After a compaction it has gaps: CIDs keep their numbers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import closing

import orjson

from .. import _core
from ..backends.base import Cursor, Entry, Reader, Row, Transaction
from ..errors import CorruptionError
from .access import Access
from .modes import Plan, Server, read_record

#: Records that one step of a compaction looks at; between two steps other writers have their turn.
COMPACTION_STEP = 1000
#: Rows that a page is read in at a time: many, once they turn out to be small.
_FETCH_FIRST, _FETCH_SMALL, _SMALL_BYTES = 16, 1000, 8 << 10


def _parse(space: _core.KeySpace, key: bytes) -> int:
    try:
        return space.parse_log_key(key)
    except ValueError as error:
        raise CorruptionError(f"{key!r} lies in the change log and names no change id") from error


def read_log(reader: Reader, space: _core.KeySpace, after: int, limit: int, max_bytes: int) -> list[tuple[int, bytes]]:
    """Records of the log behind CID ``after``, in CID order.

    Args:
        reader: What to read from.
        space: The key space of the store.
        after: The CID behind which to begin.
        limit: The most records to return.
        max_bytes: The most bytes of records to return; one record is returned however large it is.

    Raises:
        CorruptionError: A key in the log's range is no change id.
    """
    if after >= _core.MAX_CID:
        return []
    with closing(reader.scan(space.log_key(after + 1), space.log_stop)) as cursor:
        return [(_parse(space, key), record) for key, record in read_rows(cursor, limit, max_bytes)]


def read_rows(cursor: Cursor, limit: int, max_bytes: int) -> list[Row]:
    """The next rows, in bounded memory: at most ``limit``, and of at most ``max_bytes``, but one however large it is.

    The cursor may have read further.
    """
    page: list[Row] = []
    size, count = 0, _FETCH_FIRST
    while len(page) < limit and (rows := cursor.fetch(min(count, limit - len(page)))):
        for row in rows:
            size += len(row[1])
            if size > max_bytes and page:
                return page
            page.append(row)
        count = _FETCH_SMALL if size < _SMALL_BYTES * len(page) else _FETCH_FIRST
    return page


def keys_of(records: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """The key of each record of the log.

    Raises:
        CorruptionError: A record that cannot be read.
    """
    for cid, record in records:
        try:
            yield _core.split_record(record)[0]
        except ValueError as error:
            raise CorruptionError(f"change {cid} cannot be read: {record!r:.80}") from error


def seen_of(records: list[tuple[int, bytes]], access: Access) -> list[tuple[int, bytes]]:
    """Those of the log's records whose keys may be seen."""
    if not access.prefix:
        return records
    return [record for record, key in zip(records, keys_of(records), strict=True) if access.sees(key)]


def last_logged(reader: Reader, space: _core.KeySpace) -> int:
    """The CID of the newest record in the log; 0 if the log is empty."""
    rows = _newest(reader, space, space.log_stop, 1)
    return _parse(space, rows[0][0]) if rows else 0


def read_floor(reader: Reader, space: _core.KeySpace) -> tuple[int, int]:
    """How far the log was compacted, and the highest CID of a delete that it has forgotten: ``(0, 0)`` at first.

    From the first number on CIDs are contiguous; a client below the second one may have missed a delete.
    """
    record = read_record(reader, space.own_key("floor"))
    if record is None:
        return 0, 0
    try:
        compacted_to, floor = record
        return int(compacted_to), int(floor)
    except (TypeError, ValueError) as error:
        raise CorruptionError(f"the record of this log's floor cannot be read: {record!r:.80}") from error


def _newest(reader: Reader, space: _core.KeySpace, stop: bytes, limit: int) -> list[Row]:
    with closing(reader.scan(space.log_start, stop, reverse=True)) as cursor:
        return cursor.fetch(limit)


class Compaction:
    """Drops from the log, newest first, what a later change of the same key supersedes; then deletes to be forgotten.

    It goes in steps, each one small batch, so that writers and pulls go on beside it; it may be given up after any
    step, and a step may be taken again whose transaction was undone. Memory grows with the number of distinct keys in
    the log.

    A delete is forgotten only when nothing older of its key is left. Else whoever reads the log in between, or after a
    crash, would meet the older value and not the delete.

    Args:
        mode: The server whose log it is.
        drop_deletes_before: Also forget deletes with a CID below this one, and raise the floor above them.
    """

    def __init__(self, mode: Server, *, drop_deletes_before: int = 0) -> None:
        self._space = mode.space
        self._drop_deletes_before = drop_deletes_before
        self._begun: Hashable = None
        self.dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._seen: set[bytes] = set()
        self._newest = 0
        self._stop = self._space.log_stop
        self._deferred: list[Entry] = []
        self._to_forget: list[tuple[int, Entry]] = []

    def step(self, transaction: Transaction, cid: int) -> Plan[bool]:
        """Look at the next records, or forget the next deletes. The result says whether there may be more."""
        if transaction.connection_epoch != self._begun:
            # What was seen before may not be in this log.
            self._begun = transaction.connection_epoch
            self._begin()
        before = read_floor(transaction, self._space)
        rows = _newest(transaction, self._space, self._stop, COMPACTION_STEP)
        return self._drop_superseded(rows, before) if rows else self._forget(before)

    def _drop_superseded(self, rows: list[Row], before: tuple[int, int]) -> Plan[bool]:
        newest = self._newest or _parse(self._space, rows[0][0])
        seen: set[bytes] = set()
        to_forget: list[tuple[int, Entry]] = []
        batch = [*self._deferred]
        for stored_key, record in rows:
            number = _parse(self._space, stored_key)
            try:
                key, value = _core.split_record(record)
            except ValueError as error:
                raise CorruptionError(f"change {number} cannot be read: {record!r:.80}") from error
            if key in seen or key in self._seen:
                batch.append((stored_key, None))
            elif value is None and number < self._drop_deletes_before and number != newest:
                to_forget.append((number, (stored_key, None)))
            seen.add(key)
        # LevelDB finds where the next step begins by walking over all that was deleted from there on. So the last
        # record of a step outlives it: else each step would walk over what all steps before it have dropped.
        deferred = [batch.pop()] if batch and batch[-1][0] == rows[-1][0] else []
        dropped = len(batch)
        if batch or deferred:
            batch.append(self._floor(before, newest, 0))

        def count() -> None:
            self._newest, self._stop, self._deferred = newest, rows[-1][0], deferred
            self._seen |= seen
            self._to_forget += to_forget
            self.dropped += dropped

        return Plan(True, batch, committed=count)

    def _forget(self, before: tuple[int, int]) -> Plan[bool]:
        chosen, left = self._to_forget[:COMPACTION_STEP], self._to_forget[COMPACTION_STEP:]
        batch = [*self._deferred, *(entry for _, entry in chosen)]
        dropped = len(batch)
        if batch:
            batch.append(self._floor(before, self._newest, max((number for number, _ in chosen), default=0)))

        def count() -> None:
            self._deferred, self._to_forget = [], left
            self.dropped += dropped

        # Pushes are refused below the floor, for ever: it must outlive a power cut.
        return Plan(bool(left), batch, durable=bool(chosen), committed=count)

    def _floor(self, before: tuple[int, int], newest: int, forgotten: int) -> Entry:
        """The record that says up to where CIDs have gaps, and deletes may be missing."""
        compacted_to, floor = before
        return self._space.own_key("floor"), orjson.dumps([max(compacted_to, newest), max(floor, forgotten)])
