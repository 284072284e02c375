"""The form of a backup: a store of its own, in a LevelDB directory or in an SQLite file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final, TypeVar

from .. import _core
from ..backends.base import Cursor, Reader, Row, bounded_fetcher
from ..backends.registry import create
from ..engine.records import OwnRecords
from ..errors import CorruptionError, StorageError
from ..types import Mode
from .copy import Progress
from .verify import examine

T = TypeVar("T")

#: The faults that an error message lists.
_LISTED: Final = 3


class StepCounter:
    """Adds up the work of a step, and reports its progress.

    Args:
        step: The name of the step.
        progress: Called with the name and the amount of work so far; ``None`` to report nothing.
    """

    def __init__(self, step: str, progress: Progress | None) -> None:
        self._step = step
        self._progress = progress
        self._done = 0

    def add(self, amount: int) -> None:
        """Count work that was done since the last call."""
        self._done += amount
        if self._progress is not None:
            self._progress(self._step, self._done)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a backup.

    Raises:
        TypeError: ``path`` is no path.
        StorageError: It is empty, or contains a NUL.
    """
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"the path of a backup is a str or a path, not {name!r:.80}")
    if not name or "\0" in name:
        raise StorageError(f"cannot back up to {name!r}: that is not a path")
    return os.path.abspath(name)


def engine_at(path: str) -> str | None:
    """Return the name of the backend for the files at a path; ``None`` if there are none.

    A file is left to SQLite, and not opened here: if this process has it open as a store, closing
    a descriptor of it would drop SQLite's locks (fcntl(2)).
    """
    if os.path.isdir(path):
        return "leveldb" if os.path.exists(os.path.join(path, "CURRENT")) else None
    return "sqlite" if os.path.isfile(path) else None


def examined(
    path: str, engine: str, space: _core.KeySpace, name: str, on_read: Callable[[int], object]
) -> tuple[Mode, int | None]:
    """Verify a copy, and return its mode and CID.

    Args:
        path: The copy.
        engine: The backend that opens it.
        space: The key space of the store.
        name: The beginning of an error message.
        on_read: Called with the number of rows that were read since the last call. It may raise.

    Raises:
        CorruptionError: It has a fault.
    """
    copied = create(engine, path, {})
    copied.open_read_only()
    with closing(copied), closing(copied.snapshot()) as snapshot:
        result = examine(_CountingReader(snapshot, on_read), space)
        mode = result.mode
        faults = [*copied.recovery_notes, *result.faults]
        if mode is None or faults:
            listed = "; ".join(faults[:_LISTED])
            raise CorruptionError(
                f"{name} has faults, and was not completed: {listed}. Run `treehub-level verify` on the store that it "
                "was made from; earlier backups are as they were"
            )
        return mode, stored_cid(snapshot, mode, space)


def stored_cid(reader: Reader, mode: Mode, space: _core.KeySpace) -> int | None:
    """Return the CID of a store; ``None`` in NORMAL mode."""
    return None if mode is Mode.NORMAL else OwnRecords(space).cid(reader)


class _CountingReader(Reader):
    """A reader that tells the number of rows that are fetched from it.

    Args:
        reader: The reader to read from.
        on_read: Called with the number of rows since the last call.
    """

    def __init__(self, reader: Reader, on_read: Callable[[int], object]) -> None:
        self._reader = reader
        self._on_read = on_read

    def get(self, key: bytes) -> bytes | None:
        return self._reader.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._reader.get_many(keys)

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        return _CountingCursor(self._reader.scan(start, stop, reverse=reverse, values=values), self._on_read)


class _CountingCursor(Cursor):
    """See `_CountingReader`."""

    def __init__(self, cursor: Cursor, on_read: Callable[[int], object]) -> None:
        self._cursor = cursor
        self._on_read = on_read

    def fetch(self, limit: int) -> list[Row]:
        return self._counted(self._cursor.fetch(limit))

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        return self._counted(bounded_fetcher(self._cursor)(limit, max_bytes))

    def fetch_keys(self, limit: int) -> list[bytes]:
        return self._counted(self._cursor.fetch_keys(limit))

    def _counted(self, rows: list[T]) -> list[T]:
        self._on_read(len(rows))
        return rows

    def close(self) -> None:
        self._cursor.close()
