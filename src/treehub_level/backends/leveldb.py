"""LevelDB, linked directly: the engine that is there where this package was built with LevelDB at hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .. import _store_c
from ..errors import StorageError
from ._directory import Claim, DirectoryBackend, cannot, holds_other_files, holds_store, status_error
from ._room import Room
from .base import Batch, Cursor, Snapshot, Supports

if sys.platform != "win32":
    import fcntl


class LevelDBBackend(DirectoryBackend):
    """A LevelDB directory, opened by the library inside this package. The options are those of `DirectoryBackend`.

    Files of other programs are left alone: a directory that holds some, and no store, is refused.
    """

    supports = Supports(persistent=True, inline_reads=True, guarded_get=True)

    _remedy = _store_c.REMEDY

    def __init__(self, name: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(name, **options)
        self._room = Room(self._path, self._options["write_buffer_size"])

    def _connect(self) -> _store_c.DB:
        if holds_other_files(self._path):
            raise StorageError(
                f"cannot open a LevelDB store at {self._path!r}: that directory holds other files, and no store: "
                "name a new or an empty one"
            )
        db = _store_c.DB(self._path, create_if_missing=True, **self._options)
        self._room.begin(db)
        return db

    @property
    def get(self) -> Callable[[bytes], bytes | None]:
        """See `Reader.get`. It is the database's own method, so that the engine can hold on to that."""
        get: Callable[[bytes], bytes | None] = self._db.get
        return get

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
        if self._room.wanted:  # so this is not the event loop
            self._room.look()

    def writes_at_once(self) -> bool:
        """See `Backend.writes_at_once`, and `_room`."""
        return self._room.is_left()

    def compact(self) -> None:
        """Compact the whole range of keys. It takes as long as rewriting all of the store."""
        self.compact_range(None, None)

    def compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        """Drop what was overwritten or deleted in a range of keys, and pack the rest.

        Args:
            start: Where the range begins; ``None`` for the first key.
            stop: Where it ends; ``None`` for the last.
        """
        with self.exclusive():  # a write that was found to have room ends first
            self._room.close()
        try:
            self._db.compact_range(start, stop)
        finally:
            with self.exclusive():
                self._room.reopen()

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """About how many bytes a range of keys takes in tables on disk. What is still in memory does not count.

        Args:
            start: Where the range begins.
            stop: Where it ends, exclusive.
        """
        size: int = self._db.approximate_size(start, stop)
        return size

    def stats(self) -> str:
        """What LevelDB tells of itself, as text: for each level its tables, their size, the work of its compactions."""
        stats: str = self._db.property_value("leveldb.stats")
        return stats

    @classmethod
    def repair(cls, path: str | os.PathLike[str]) -> None:
        """Make a damaged store one that opens, with what can still be read.

        What is lost is not told, and old values of keys may come back: copy the directory first. A SERVER store that
        was repaired must be checked before clients sync with it.

        Args:
            path: The directory. It must not be open.

        Raises:
            LockedError: It is open.
            StorageError: There is no LevelDB store in it, or it cannot be read or written.
        """
        backend = cls(path)
        with _claimed("repair", backend._path), _locked(backend._path):
            _store_c.repair(backend._path, **backend._options)

    @classmethod
    def destroy(cls, path: str | os.PathLike[str]) -> None:
        """Delete a store: LevelDB's files, and the directory if nothing else is in it.

        Args:
            path: The directory. It must not be open.

        Raises:
            LockedError: It is open.
            StorageError: There is no LevelDB store in it, or it cannot be deleted.
        """
        backend = cls(path)
        with _claimed("destroy", backend._path):
            _store_c.destroy(backend._path)


@contextmanager
def _claimed(verb: str, path: str) -> Iterator[None]:
    """Claim a directory with a store in it, be it a damaged one: LevelDB would take, or delete, files of others too."""
    claim = Claim(verb, path)
    try:
        if not holds_store(path):
            raise StorageError(f"cannot {verb} a LevelDB store at {path!r}: there is none in that directory")
        yield
    finally:
        claim.release()


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold LevelDB's lock against other processes, which its repair forgets to do."""
    name = os.path.join(path, "LOCK")
    try:
        file = open(name, "a")  # noqa: SIM115  # it is closed below
    except OSError as error:
        raise cannot("repair", path, error) from error
    with file:
        if sys.platform != "win32":  # where having opened the file is enough
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise status_error(path, f"IO error: lock {name}: {error.strerror}", _store_c.REMEDY) from error
        yield
