"""LevelDB, linked directly: the engine that is there where this package was built with LevelDB at hand."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _store_c
from ._directory import DirectoryBackend
from .base import Batch, Cursor, Snapshot


class LevelDBBackend(DirectoryBackend):
    """A LevelDB directory, opened by the library inside this package. The options are those of `DirectoryBackend`."""

    def _connect(self) -> _store_c.DB:
        return _store_c.DB(self._path, create_if_missing=True, **self._options)

    def _repair(self) -> None:
        _store_c.repair(self._path, **self._options)

    def _destroy(self) -> None:
        _store_c.destroy(self._path)

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        value: bytes | None = self._db.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`. One snapshot serves all keys."""
        values: list[bytes | None] = self._db.get_many(keys)
        return values

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """See `Reader.scan`."""
        cursor: Cursor = self._db.scan(start, stop, reverse=reverse, values=values)
        return cursor

    def snapshot(self) -> Snapshot:
        """Hold this moment for reading."""
        snapshot: Snapshot = self._db.snapshot()
        return snapshot

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. ``durable`` is LevelDB's ``sync``: an fsync of its log."""
        self._db.write(batch, durable=durable)

    def compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        """See `DirectoryBackend.compact_range`."""
        self._db.compact_range(start, stop)

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """See `DirectoryBackend.approximate_size`."""
        size: int = self._db.approximate_size(start, stop)
        return size

    def stats(self) -> str:
        """See `DirectoryBackend.stats`."""
        stats: str = self._db.property_value("leveldb.stats")
        return stats
