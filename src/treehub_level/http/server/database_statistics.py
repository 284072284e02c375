"""Sizes and counts of databases for the metrics, without a scan and without opening a database.

A scrape reads three things: the sizes of the files of each store, and the CID and the floor of each
open one. Entries are counted in the background, in small steps, and only in an open database that
has changed. The last figures of a closed database remain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

from ...aio.level import Level, internals
from ...aio.wait import set_within
from ...engine.scan import CHUNK
from ...engine.store import Store
from ...errors import LevelError
from .hub import Hub

#: Seconds that a scrape waits for a database server, and for the first counts. Then it reports the
#: last figures.
_READ_SECONDS: Final = 1.0
_FIRST_COUNT_SECONDS: Final = 0.2
#: Seconds for which the sizes of files are reused: LevelDB keeps some thousand files for 10 GB.
_SIZES_SECONDS: Final = 5.0
#: Keys that one step counts. It holds neither a snapshot nor a thread between two steps.
_STEP_KEYS: Final = 10 * CHUNK
#: Counting pauses after this time; a small database is counted without a pause.
_TURN_SECONDS: Final = 0.02
#: Counting pauses for this many times the time that it worked: it takes 5 % of one thread at most.
_PAUSE_FACTOR: Final = 19
#: Seconds between two counts of one database, at least.
_RECOUNT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Position:
    """The position of an open database in its change log.

    Attributes:
        store_id: The store id, which tells a new store of the same name from the old one.
        cid: The CID.
        floor: The highest CID of a delete that was dropped from the log.
        compacted_to: The CID up to which the log was compacted.
    """

    store_id: str
    cid: int
    floor: int
    compacted_to: int


@dataclass(frozen=True, slots=True)
class Count:
    """The records of a database, as they were counted last.

    Attributes:
        position: The position of the database when the count began.
        entries: Entries.
        log_records: Records of the change log.
        size: Bytes on disk; ``None`` if the backend does not tell.
        ended_at: The time at the end, in seconds since 1970.
        work_seconds: The time that the count took, without its pauses.
    """

    position: Position
    entries: int
    log_records: int
    size: int | None
    ended_at: float
    work_seconds: float


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The last known figures of one database.

    Attributes:
        is_open: True if the server has the database open.
        size: Bytes on disk; ``None`` if unknown, as of a store in memory.
        position: The last known position; ``None`` if the server has not opened the database yet.
        count: The last count; ``None`` before the first one.
    """

    is_open: bool = False
    size: int | None = None
    position: Position | None = None
    count: Count | None = None

    @property
    def log_records(self) -> int | None:
        """The records in the log: those counted last, and one for each later CID."""
        if self.count is None or self.position is None:
            return None
        return self.count.log_records + max(0, self.position.cid - self.count.position.cid)

    def needs_count(self, now: float) -> bool:
        """Return True if the database has changed since its last count, long enough ago."""
        if self.position is None or not self.is_open:
            return False
        if self.count is None or self.count.position.store_id != self.position.store_id:
            return True
        rest = max(_RECOUNT_SECONDS, self.count.work_seconds * _PAUSE_FACTOR)
        return self.count.position != self.position and now - self.count.ended_at >= rest


class StatisticsReader:
    """Reads the statistics of the databases of a hub.

    Args:
        hub: The hub.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._open: Mapping[str, Level] = {}
        #: The sizes of the files of the stores in the root; ``None`` for an unknown one.
        self._sizes: dict[str, int | None] = {}
        self._sizes_read_at = -_SIZES_SECONDS
        self._positions: dict[str, Position] = {}
        self._counts: dict[str, Count] = {}
        self._reading: asyncio.Future[None] | None = None
        self._counting: asyncio.Future[None] | None = None

    def known(self) -> dict[str, DatabaseStatistics]:
        """Return the last known figures, in the order of the names of the databases."""
        return {name: self._known(name) for name in sorted({*self._sizes, *self._open})}

    def _known(self, name: str) -> DatabaseStatistics:
        count = self._counts.get(name)
        size = self._sizes.get(name)
        if size is None and count is not None:
            size = count.size
        return DatabaseStatistics(name in self._open, size, self._positions.get(name), count)

    async def refresh(self) -> None:
        """Read the figures that are cheap, and start counting the databases that have changed.

        It returns after about a second at the latest, with the last figures of a database whose
        server does not answer.
        """
        self._open = self._hub.open_levels()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._read, self._open))
        await asyncio.wait([self._reading], timeout=_READ_SECONDS)
        if self._counting is None or self._counting.done():
            self._counting = asyncio.ensure_future(self._count_changed(self._open))
        if any(name not in self._counts for name in self._open):
            await asyncio.wait([self._counting], timeout=_FIRST_COUNT_SECONDS)

    def _read(self, levels: Mapping[str, Level]) -> None:
        """Read the sizes of all stores, and the positions of the open ones; called in a thread."""
        now = time.monotonic()
        if now - self._sizes_read_at >= _SIZES_SECONDS:
            with suppress(LevelError, OSError):  # the database server is away, or the disk: the last ones remain
                self._sizes, self._sizes_read_at = self._hub.stored_sizes(), now
        for name, level in levels.items():
            with suppress(LevelError):  # it is closing, or its server does not answer
                self._positions[name] = _position(internals(level)[0].store)
        for figures in (self._positions, self._counts):
            for name in {*figures} - {*self._sizes, *levels}:  # it was deleted or renamed
                figures.pop(name, None)

    # ------------------------------------------------------------------------------------ counting

    async def _count_changed(self, levels: Mapping[str, Level]) -> None:
        """Count the records of the databases that have changed, one database after the other."""
        for name, level in levels.items():
            position = self._positions.get(name)
            if position is None or not self._known(name).needs_count(time.time()):
                continue
            with suppress(LevelError):  # it was closed: it is counted when it is open again
                count = await self._count(internals(level)[0].store, position)
                if count is None:
                    return
                self._counts[name] = count

    async def _count(self, store: Store, position: Position) -> Count | None:
        """Count the records of an open database, with pauses between its steps.

        Returns:
            The count; ``None`` if the hub stops meanwhile.

        Raises:
            NotOpenError: The database was closed.
            StorageError, CorruptionError: It cannot be read.
        """
        counter = _RecordCounter(store, position.cid)
        work = unpaid = 0.0
        while True:
            started = time.perf_counter()
            has_more = await asyncio.to_thread(counter.step)
            seconds = time.perf_counter() - started
            work += seconds
            unpaid += seconds
            if not has_more:
                break
            if unpaid >= _TURN_SECONDS:
                if await set_within(self._hub.stopping, unpaid * _PAUSE_FACTOR):
                    return None
                unpaid = 0.0
        return Count(position, counter.entries, counter.log_records, counter.size, time.time(), work)


class _RecordCounter:
    """Counts the entries and the log records of a store, in steps.

    Args:
        store: The store.
        cid: The CID of the last log record to count.

    Attributes:
        entries: The entries counted so far.
        log_records: The log records counted so far.
        size: The bytes on disk.
    """

    def __init__(self, store: Store, cid: int) -> None:
        self._store = store
        self._cid = cid
        self.entries = 0
        self.log_records = 0
        self.size: int | None = None
        self._steps = self._count()

    def step(self) -> bool:
        """Count some keys more. Return False at the end."""
        return next(self._steps, None) is not None

    def _count(self) -> Iterator[bool]:
        with self._store.guard.thread.lock:
            self._store.require_open()
            self.size = self._store.backend.size_on_disk()
        yield True
        space = self._store.space
        if self._cid:
            for found in self._keys(space.log_start, space.log_key(self._cid) + b"\0"):
                self.log_records += found
                yield True
        for start, stop in ((None, space.prefix), (space.user_start, None)):
            for found in self._keys(start, stop):
                self.entries += found
                yield True

    def _keys(self, start: bytes | None, stop: bytes | None) -> Iterator[int]:
        """Yield the number of keys in each part of a range.

        No call is in flight between two parts, so that the store can close.
        """
        while True:
            found = 0
            with (
                self._store.guard.thread.lock,
                closing(self._store.reader().scan(start, stop, values=False)) as cursor,
            ):
                while found < _STEP_KEYS and (keys := cursor.fetch_keys(CHUNK)):
                    found += len(keys)
                    start = keys[-1] + b"\0"
            yield found
            if found < _STEP_KEYS:
                return


def _position(store: Store) -> Position:
    """Return the position of an open store.

    Raises:
        NotOpenError: It was closed.
        LevelError: It cannot be read.
    """
    mode = store.server("metrics")
    with store.guard.thread.lock:
        reader = store.reader()
        cid = store.cid_in(reader)
        floor = mode.records.floor(reader, cid)
    return Position(mode.store_id, cid, floor.floor, floor.compacted_to)
