"""The LevelDB backend that is linked against LevelDB, if LevelDB was found at build time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ... import _store_c
from ..base import Batch, Cursor, Snapshot, Supports
from .directory import DirectoryBackend
from .write_stall import WriteStallGuard


class LevelDBBackend(DirectoryBackend):
    """A LevelDB directory, opened by the LevelDB library in this package.

    The options are those of `DirectoryBackend`.
    """

    supports = Supports(persistent=True, inline_reads=True, guarded_get=True)

    def _connect(self, *, paranoid: bool) -> _store_c.DB:
        options = self._opening_options()
        return _store_c.DB(self._path, create_if_missing=True, paranoid_checks=paranoid, **options)

    def _open(self, *, repaired: bool = False) -> None:
        super()._open(repaired=repaired)
        self._stall_guard = WriteStallGuard(self._path, self._write_buffer_size)
        self._stall_guard.attach(self._db)

    def _repair(self) -> None:
        _store_c.repair(self._path, **self._options)

    def _destroy(self) -> None:
        _store_c.destroy(self._path)

    @property
    def get(self) -> Callable[[bytes], bytes | None]:
        """See `Reader.get`. A property, so that the engine can keep the database's bound method."""
        get: Callable[[bytes], bytes | None] = self._db.get
        return get

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`. LevelDB reads all keys from one snapshot."""
        values: list[bytes | None] = self._db.get_many(keys)
        return values

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """See `Reader.scan`."""
        cursor: Cursor = self._db.scan(start, stop, reverse=reverse, values=values)
        return cursor

    def snapshot(self) -> Snapshot:
        """See `Backend.snapshot`."""
        snapshot: Snapshot = self._db.snapshot()
        return snapshot

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. A durable write syncs all logs, the older ones first."""
        with self.write_lock:
            if (written := self._db.buffered) >= self._space.limit:
                self._space.check(batch, written)
            if durable and self._unsynced:
                self._sync_older_logs()
            self._db.write(batch, durable=durable)
            self._unsynced = not durable
            if durable:
                self._check_files_in_place()
        if self._stall_guard.refresh_wanted:  # `writes_at_once` was False, so this is a worker thread
            self._stall_guard.refresh()

    def writes_at_once(self) -> bool:
        """See `Backend.writes_at_once`; `WriteStallGuard` decides.

        The benchmark "fillawait" runs 4.5 times as fast as with a worker thread for each write.
        """
        # The common case without a call: each write of an event loop passes here.
        return self._db.buffered < self._stall_guard.limit or self._stall_guard.may_write()

    def _write_empty_batch(self) -> None:
        self._db.write([], durable=False)

    def _compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        with self.write_lock.entry():  # wait for a write that was allowed by the budget
            self._stall_guard.begin_compaction()
        try:
            self._db.compact_range(start, stop)
        finally:
            with self.write_lock.entry():
                self._stall_guard.end_compaction()

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """See `DirectoryBackend.approximate_size`."""
        size: int = self._db.approximate_size(start, stop)
        return size

    def stats(self) -> str:
        """See `DirectoryBackend.stats`."""
        stats: str = self._db.property_value("leveldb.stats")
        return stats
