"""LevelDB through plyvel, or its fork plyvel-next: the one file that names either.

What plyvel leaves to its user is done here, and what LevelDB does in `_directory`. Each was observed with plyvel 1.5.1
and plyvel-next 2.1.2:

- A forward iterator that meets an unreadable table at its very end stops as if it had read everything.
- A reverse iterator returns nothing if the first key of its range is the only one in it.
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
from ..base import Batch, Row
from .directory import DirectoryBackend, status_error


def _import_vendor() -> Any:
    """The fork first: plyvel 1.5.1 carries a snappy that was built without optimisation."""
    try:
        return import_module("plyvel_next")
    except ImportError:
        return import_module("plyvel")


_vendor: Final = _import_vendor()

#: Where a compaction ends: above every key that anybody has.
_LAST_KEY: Final = b"\xff" * 64


class PlyvelBackend(DirectoryBackend):
    """A LevelDB directory, opened by plyvel. The options are those of `DirectoryBackend`."""

    @cached_property
    def _translator(self) -> ErrorTranslator:
        return ErrorTranslator(self._path)

    def _connect(self, *, paranoid: bool) -> Any:
        options = {**self._vendor_options(), "paranoid_checks": paranoid}
        with self._translator:
            return _vendor.DB(os.fsencode(self._path), create_if_missing=True, **options)

    def _repair(self) -> None:
        with self._translator:
            _vendor.repair_db(os.fsencode(self._path), **self._vendor_options())

    def _destroy(self) -> None:
        with self._translator:
            _vendor.destroy_db(os.fsencode(self._path))

    def _vendor_options(self) -> dict[str, Any]:
        options = dict(self._options)
        options["lru_cache_size"] = options.pop("block_cache_size")
        return options

    def close(self) -> None:
        """Close, and let the directory be opened again."""
        with self._translator:
            super().close()

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        # Not "with self._door", which would add a tenth to the hottest path.
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except Exception as error:
            self._translator.translate(error)
            raise
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`. One snapshot serves all keys."""
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
        """Hold this moment for reading."""
        with self._translator:
            return PlyvelSnapshot(self._translator, self._db.snapshot())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. ``durable`` is LevelDB's ``sync``: an fsync of its log, once those before it are."""
        if durable and self._unsynced:
            self._sync_older_logs()
        with self._translator:
            changes = self._db.write_batch(sync=durable)
            put, delete = changes.put, changes.delete
            for key, value in batch:
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            changes.write()
        self._unsynced = not durable

    def _write_nothing(self) -> None:
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
        self, door: ErrorTranslator, source: Any, start: bytes | None, stop: bytes | None, reverse: bool, values: bool
    ) -> None:
        self._translator = door
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
        with self._translator:
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


class PlyvelSnapshot:
    """See `base.Snapshot`."""

    def __init__(self, door: ErrorTranslator, snapshot: Any) -> None:
        self._translator = door
        self._snapshot = snapshot

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
        self._snapshot.close()


class ErrorTranslator:
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
        raise status_error(self._path, _text(error)) from error


def _text(error: Exception) -> str:
    """What LevelDB said, which plyvel hands on as bytes."""
    said = error.args[0] if error.args else ""
    return os.fsdecode(said) if isinstance(said, bytes) else str(said)


def _below(key: bytes) -> bytes:
    """A key below ``key``, which is not empty, with nothing in between but keys that go on with the byte 0xFF."""
    if key[-1] == 0:
        return key[:-1]
    return key[:-1] + bytes([key[-1] - 1]) + b"\xff"
