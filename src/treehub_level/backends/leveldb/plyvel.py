"""The LevelDB backend on top of plyvel, or of its fork plyvel-next. No other module imports either.

This module works around faults of plyvel, `directory` around those of LevelDB. Observed with plyvel
1.5.1 and plyvel-next 2.1.2:

- A forward iterator that reaches an unreadable table at the end of its range stops without an
error.
- A reverse iterator returns no row if the first key of its range is the only key in it.
- ``compact_range()`` without bounds compacts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from itertools import islice
from operator import itemgetter
from types import TracebackType
from typing import Any, Final

from ...errors import NotOpenError
from ..base import FETCH_BYTES, Batch, Row, take_within
from .directory import DirectoryBackend
from .errors import status_error


def _import_vendor() -> Any:
    """Import plyvel-next or else plyvel, which bundles an unoptimised build of snappy (1.5.1)."""
    try:
        return import_module("plyvel_next")
    except ImportError:
        return import_module("plyvel")


_vendor: Final = _import_vendor()

#: The upper bound of a compaction without one: greater than any key of a level.
_LAST_KEY: Final = b"\xff" * 64


#: The bytes that a byte of a batch takes on the disk at most, in a log and in a table.
_OVERHEAD: Final = 2


class PlyvelBackend(DirectoryBackend):
    """A LevelDB directory, opened by plyvel.

    The options are those of `DirectoryBackend`.
    """

    #: The bytes written since the object was made, for `SpaceLimit`.
    _written = 0

    @cached_property
    def _translator(self) -> ErrorTranslator:
        return ErrorTranslator(self._path)

    def _connect(self, *, paranoid: bool) -> Any:
        options = {**self._vendor_options(self._opening_options()), "paranoid_checks": paranoid}
        with self._translator:
            return _vendor.DB(os.fsencode(self._path), create_if_missing=True, **options)

    def _repair(self) -> None:
        with self._translator:
            _vendor.repair_db(os.fsencode(self._path), **self._vendor_options(self._options))

    def _destroy(self) -> None:
        with self._translator:
            _vendor.destroy_db(os.fsencode(self._path))

    @staticmethod
    def _vendor_options(options: dict[str, Any]) -> dict[str, Any]:
        options = dict(options)
        options["lru_cache_size"] = options.pop("block_cache_size")
        return options

    def close(self) -> None:
        """See `Backend.close`."""
        with self._translator:
            super().close()

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        # A try statement instead of "with self._translator", which would make a get a tenth slower.
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except Exception as error:
            self._translator.translate(error)
            raise
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        snapshot = self.snapshot()
        try:
            return snapshot.get_many(keys)
        finally:
            snapshot.close()

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PlyvelCursor:
        """See `Reader.scan`."""
        return PlyvelCursor(self._translator, self._db, start, stop, reverse, values)

    def snapshot(self) -> PlyvelSnapshot:
        """See `Backend.snapshot`."""
        with self._translator:
            return PlyvelSnapshot(self._translator, self._db.snapshot())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. A durable write syncs all logs, the older ones first."""
        with self.write_lock:
            if self._written >= self._space.limit:
                self._space.check(batch, self._written)
            if durable and self._unsynced:
                self._sync_older_logs()
            with self._translator:
                changes = self._db.write_batch(sync=durable)
                put, delete = changes.put, changes.delete
                size = 0
                for key, value in batch:
                    size += len(key)
                    if value is None:
                        delete(key)
                    else:
                        put(key, value)
                        size += len(value)
                changes.write()
            self._written += _OVERHEAD * size
            self._unsynced = not durable
            if durable:
                self._check_files_in_place()

    def _write_empty_batch(self) -> None:
        with self._translator:
            self._db.write_batch().write()

    def _compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        with self._translator:
            self._db.compact_range(start=start or b"", stop=_LAST_KEY if stop is None else stop)

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """See `DirectoryBackend.approximate_size`."""
        with self._translator:
            size: int = self._db.approximate_size(start, stop)
        return size

    def stats(self) -> str:
        """See `DirectoryBackend.stats`."""
        with self._translator:
            stats: bytes = self._db.get_property(b"leveldb.stats")
        return stats.decode()


class PlyvelCursor:
    """See `base.Cursor`."""

    def __init__(
        self,
        translator: ErrorTranslator,
        source: Any,
        start: bytes | None,
        stop: bytes | None,
        reverse: bool,
        values: bool,
    ) -> None:
        self._translator = translator
        self._source = source
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._last: bytes | None = None
        self._ended = False
        if reverse and start:
            start = _predecessor_bound(start)
        with translator:
            self._rows = source.iterator(
                start=start or None,  # with b"" a reverse iterator has the fault above too
                stop=stop,
                reverse=reverse,
                include_value=values,
                verify_checksums=True,
            )

    def fetch(self, limit: int) -> list[Row]:
        return self.fetch_within(limit, FETCH_BYTES)

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        return self._take(lambda: take_within(self._rows, limit, max_bytes), itemgetter(0))

    def fetch_keys(self, limit: int) -> list[bytes]:
        def take() -> tuple[list[bytes], bool]:
            keys = [*islice(self._rows, limit)]
            return keys, len(keys) < limit

        return self._take(take, bytes)

    def _take(self, take: Callable[[], tuple[list[Any], bool]], key_of: Callable[[Any], bytes]) -> list[Any]:
        if self._ended:
            return []
        with self._translator:
            taken, is_at_end = take()
            count = len(taken)
            if self._reverse and self._start:
                while taken and key_of(taken[-1]) < self._start:
                    taken.pop()
            if taken:
                self._last = key_of(taken[-1])
            if is_at_end or len(taken) < count:
                self._ended = True
                self._rows.close()
                if not self._reverse or self._last is None:
                    self._check_end()
        return taken

    def _check_end(self) -> None:
        """Raise the error that ended the iteration, if any.

        plyvel's iterator hides such an error; its raw iterator raises it.
        """
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


class PlyvelSnapshot:
    """See `base.Snapshot`."""

    def __init__(self, translator: ErrorTranslator, snapshot: Any) -> None:
        self._translator = translator
        self._snapshot = snapshot
        self._is_open = True

    def get(self, key: bytes) -> bytes | None:
        with self._translator:
            value: bytes | None = self._snapshot.get(key, verify_checksums=True)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._translator:
            get = self._snapshot.get
            return [get(key, verify_checksums=True) for key in keys]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PlyvelCursor:
        return PlyvelCursor(self._translator, self._snapshot, start, stop, reverse, values)

    def close(self) -> None:
        # plyvel crashes if a close that was interrupted is repeated. If this one is interrupted
        # before the call, the snapshot is released when it is collected.
        if self._is_open:
            self._is_open = False
            self._snapshot.close()


class ErrorTranslator:
    """A context manager that translates the exceptions of plyvel in its block.

    Args:
        path: The directory of the store, for error messages.
    """

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
        """Raise the translation of an exception of plyvel; return if it is another exception."""
        if type(error) is RuntimeError:
            raise NotOpenError(f"the LevelDB store at {self._path!r}, or what was read from, is closed") from None
        if not isinstance(error, _vendor.Error):
            return
        raise status_error(self._path, _status_of(error)) from error


def _status_of(error: Exception) -> str:
    """Return LevelDB's status message, which plyvel passes on as bytes."""
    status = error.args[0] if error.args else ""
    return os.fsdecode(status) if isinstance(status, bytes) else str(status)


def _predecessor_bound(key: bytes) -> bytes:
    """Return a key below a non-empty ``key``.

    Only keys that begin with the returned key lie in between.
    """
    if key[-1] == 0:
        return key[:-1]
    return key[:-1] + bytes([key[-1] - 1]) + b"\xff"
