"""LevelDB through plyvel, or its fork plyvel-next: the one file that names either.

What plyvel leaves to its user is done here; each was observed with plyvel 1.5.1 and plyvel-next 2.1.2:

- LevelDB guards a directory badly against its own process. A second open under another spelling of the path succeeds;
  one under the same spelling fails, but drops the lock, so that another process gets in. `_open_here` comes first.
- A directory without its ``CURRENT`` file is taken for a new store, and the tables in it are deleted.
- A forward iterator that meets an unreadable table at its very end stops as if it had read everything.
- A reverse iterator returns nothing if the first key of its range is the only one in it.
- ``compact_range()`` without bounds compacts nothing.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import islice
from operator import itemgetter
from types import TracebackType
from typing import Any, Final, NoReturn
from weakref import WeakValueDictionary

from ..errors import CorruptionError, LockedError, NotOpenError, StorageError
from .base import Backend, Batch, Row, Supports


def _import_vendor() -> Any:
    """The fork first: plyvel 1.5.1 carries a snappy that was built without optimisation."""
    try:
        return import_module("plyvel_next")
    except ImportError:
        return import_module("plyvel")


_vendor: Final = _import_vendor()

_MIB: Final = 1024 * 1024
_MAX_SIZE: Final = 2**40
_MAX_COUNT: Final = 2**31 - 1

#: Files that hold data: logs, and tables under their new and their old suffix.
_DATA_FILE: Final = re.compile(r"[0-9]+\.(log|ldb|sst)")
#: How LevelDB says that the lock is taken: within this process; by another (either of two error numbers); on Windows.
_LOCK_TAKEN: Final = re.compile(
    f"^IO error: lock .*: (already held by process|{os.strerror(errno.EAGAIN)}|{os.strerror(errno.EACCES)})$"
    "|being used by another process"
)
#: Where a compaction ends: above every key that anybody has.
_LAST_KEY: Final = b"\xff" * 64

#: The stores that are open in this process, by device and inode of their directories.
_open_here: Final[WeakValueDictionary[tuple[int, int], PlyvelBackend]] = WeakValueDictionary()
_open_here_lock: Final = threading.Lock()


class PlyvelBackend(Backend):
    """A LevelDB directory. LevelDB itself clips sizes that it cannot use.

    Args:
        name: The path of the directory; it is made, with its parents, where there is none.
        write_buffer_size: Bytes gathered in memory before they become a table. 64 MiB instead of LevelDB's 4 MiB make
            bulk loading about three times faster; the price is up to half a second for reading the log when opening.
        bloom_filter_bits: Bits per key of the filter that spares most reads for absent keys; 0 for no filter.
        block_cache_size: Bytes of uncompressed blocks kept in memory. 32 MiB, four times LevelDB's own default, hold
            some 250,000 rows of JSON; a read from there takes a quarter of the time of one that has to uncompress.
        block_size: Bytes of a block, the unit of reading and compressing.
        max_open_files: Tables kept open.
        max_file_size: Bytes of a table, after which the next is begun.
        compression: ``"snappy"`` or ``None``.

    Raises:
        TypeError: The path or an option is of a wrong type.
        ValueError: An option is out of range.
    """

    supports = Supports(persistent=True, inline_reads=True)

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        write_buffer_size: int = 64 * _MIB,
        bloom_filter_bits: int = 10,
        block_cache_size: int = 32 * _MIB,
        block_size: int = 4096,
        max_open_files: int = 1000,
        max_file_size: int = 2 * _MIB,
        compression: str | None = "snappy",
    ) -> None:
        path = os.fspath(name)
        if not isinstance(path, str):
            raise TypeError(f"the path of a LevelDB store must be a str or an os.PathLike of str, not {name!r:.80}")
        super().__init__(path)
        if not isinstance(compression, str | None):
            raise TypeError(f'compression must be "snappy" or None, not {compression!r:.80}')
        if compression not in ("snappy", None):
            raise ValueError(f'compression must be "snappy" or None, not {compression!r:.80}')
        self._options: dict[str, object] = {
            "write_buffer_size": _checked("write_buffer_size", write_buffer_size, 1, _MAX_SIZE),
            "bloom_filter_bits": _checked("bloom_filter_bits", bloom_filter_bits, 0, _MAX_COUNT),
            "lru_cache_size": _checked("block_cache_size", block_cache_size, 0, _MAX_SIZE),
            "block_size": _checked("block_size", block_size, 1, _MAX_SIZE),
            "max_open_files": _checked("max_open_files", max_open_files, 1, _MAX_COUNT),
            "max_file_size": _checked("max_file_size", max_file_size, 1, _MAX_SIZE),
            "compression": compression,
        }
        # Absolute, since LevelDB keeps using the path while the working directory may change; but "" is no path at all.
        self._path = os.path.abspath(path) if path else path
        self._door = _Door(self._path)
        self._closed = _Closed(self._path)
        self._db: Any = self._closed
        self._directory: tuple[int, int] | None = None

    def open(self) -> None:
        """See `Backend.open`. The directory is made, with its parents."""
        with _open_here_lock:
            directory = self._make_directory()
            if directory in _open_here:
                raise LockedError(_locked_message(self._path))
            with self._door:
                self._db = _vendor.DB(os.fsencode(self._path), create_if_missing=True, **self._options)
            _open_here[directory] = self
            self._directory = directory

    def _make_directory(self) -> tuple[int, int]:
        """Make the directory if need be, see that LevelDB would not start afresh over data, return its identity."""
        try:
            os.makedirs(self._path, exist_ok=True)
            names = os.listdir(self._path)
            status = os.stat(self._path)
        except FileExistsError as error:
            raise StorageError(
                f"cannot open a LevelDB store at {self._path!r}: that is a file, and a store is a directory"
            ) from error
        except (OSError, ValueError) as error:  # ValueError: no path at all, such as one with a NUL in it
            raise StorageError(f"cannot open a LevelDB store at {self._path!r}: {error}") from error
        if "CURRENT" not in names and any(map(_DATA_FILE.fullmatch, names)):
            raise CorruptionError(
                f"the LevelDB store at {self._path!r} has lost its CURRENT file, and LevelDB would delete the rest: "
                "restore the directory from a backup"
            )
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close, and let the directory be opened again."""
        db, self._db = self._db, self._closed
        with self._door:
            db.close()
        if self._directory:
            _open_here.pop(self._directory, None)
            self._directory = None

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        # Not "with self._door", which would add a tenth to the hottest path.
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except Exception as error:
            self._door.translate(error)
            raise
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`. One snapshot serves all keys."""
        snapshot = self.snapshot()
        try:
            return snapshot.get_many(keys)
        finally:
            snapshot.close()

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> _Cursor:
        """See `Reader.scan`."""
        return _Cursor(self._door, self._db, start, stop, reverse, values)

    def snapshot(self) -> _Snapshot:
        """Hold this moment for reading."""
        with self._door:
            return _Snapshot(self._door, self._db.snapshot())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. ``durable`` is LevelDB's ``sync``: an fsync of its log."""
        with self._door:
            changes = self._db.write_batch(sync=durable)
            put, delete = changes.put, changes.delete
            for key, value in batch:
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            changes.write()

    def exists(self) -> bool:
        """See `Backend.exists`. Whatever is in the way counts: ``open()`` says what is wrong with it."""
        try:
            return bool(os.listdir(self._path))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True

    def size_on_disk(self) -> int:
        """Sum up the files in the directory."""
        size = 0
        try:
            with os.scandir(self._path) as files:
                for file in files:
                    with suppress(FileNotFoundError):  # LevelDB deletes files at any moment
                        size += file.stat().st_size
        except OSError as error:
            raise StorageError(f"cannot read the LevelDB store's directory {self._path!r}: {error}") from error
        return size

    def compact(self) -> None:
        """Compact the whole range of keys. It takes as long as rewriting all of the store."""
        with self._door:
            self._db.compact_range(start=b"", stop=_LAST_KEY)


class _Cursor:
    """See `base.Cursor`."""

    def __init__(
        self, door: _Door, source: Any, start: bytes | None, stop: bytes | None, reverse: bool, values: bool
    ) -> None:
        self._door = door
        self._source = source
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._last: bytes | None = None
        self._ended = False
        if reverse and start:
            start = _below(start)
        with door:
            self._rows = source.iterator(
                start=start or None,  # b"" confuses a reverse iterator just as well
                stop=stop,
                reverse=reverse,
                include_value=values,
                verify_checksums=True,
            )

    def fetch(self, limit: int) -> list[Row]:
        return self._take(limit, itemgetter(0))

    def fetch_keys(self, limit: int) -> list[bytes]:
        return self._take(limit, bytes)

    def _take(self, limit: int, key_of: Callable[[Any], bytes]) -> list[Any]:
        if self._ended:
            return []
        with self._door:
            taken = [*islice(self._rows, limit)]
            if self._reverse and self._start:
                while taken and key_of(taken[-1]) < self._start:
                    taken.pop()
            if taken:
                self._last = key_of(taken[-1])
            if len(taken) < limit:
                self._ended = True
                self._rows.close()
                if not self._reverse or self._last is None:
                    self._check_end()
        return taken

    def _check_end(self) -> None:
        """Raise what ended the walk, unless it was the end: plyvel's iterator hides that, its raw iterator does not."""
        raw = self._source.raw_iterator(verify_checksums=True)
        try:
            raw.seek(self._last or self._start or b"")
            while raw.valid() and (self._stop is None or raw.key() < self._stop):
                raw.next()
        finally:
            raw.close()

    def close(self) -> None:
        self._ended = True
        self._rows.close()


class _Snapshot:
    """See `base.Snapshot`."""

    def __init__(self, door: _Door, snapshot: Any) -> None:
        self._door = door
        self._snapshot = snapshot

    def get(self, key: bytes) -> bytes | None:
        with self._door:
            value: bytes | None = self._snapshot.get(key, verify_checksums=True)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._door:
            get = self._snapshot.get
            return [get(key, verify_checksums=True) for key in keys]

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> _Cursor:
        return _Cursor(self._door, self._snapshot, start, stop, reverse, values)

    def close(self) -> None:
        self._snapshot.close()


class _Closed:
    """Stands where the database does while there is none, so that no call has to ask."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        raise NotOpenError(f"the LevelDB store at {self._path!r} is not open")

    def close(self) -> None:
        """Nothing is to be closed."""


class _Door:
    """Where plyvel's errors become ours: ``with door:`` around what calls it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.translate(error)

    def translate(self, error: BaseException) -> None:
        """Raise our error for one of plyvel's; leave any other alone."""
        if type(error) is RuntimeError:
            raise NotOpenError(f"the LevelDB store at {self._path!r}, or what was read from, is closed") from error
        if not isinstance(error, _vendor.Error):
            return
        text = _text(error)
        # LevelDB maps tables into memory, and calls a read beyond the end of one an invalid argument: it was cut short.
        if isinstance(error, _vendor.CorruptionError) or text.endswith(os.strerror(errno.EINVAL)):
            raise CorruptionError(
                f"the LevelDB store at {self._path!r} is damaged: {text}. Restore it from a backup, or sync a new one"
            ) from error
        if _LOCK_TAKEN.search(text):
            raise LockedError(_locked_message(self._path)) from error
        raise StorageError(f"LevelDB could not read or write {self._path!r}: {text}") from error


def _locked_message(path: str) -> str:
    return (
        f"the LevelDB store at {path!r} is open already, in this process or another, and only one can have it open: "
        "close it there, or let that one own it, serve it over HTTP, and sync a store of your own with it"
    )


def _text(error: Exception) -> str:
    """What LevelDB said, which plyvel hands on as bytes."""
    said = error.args[0] if error.args else ""
    return os.fsdecode(said) if isinstance(said, bytes) else str(said)


def _below(key: bytes) -> bytes:
    """A key below ``key``, which is not empty, with nothing in between but keys that go on with the byte 0xFF."""
    if key[-1] == 0:
        return key[:-1]
    return key[:-1] + bytes([key[-1] - 1]) + b"\xff"


def _checked(name: str, value: object, least: int, most: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {value!r:.80}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value
