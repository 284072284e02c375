"""The form of a backup: a store of its own, in a LevelDB directory or in an SQLite file."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Final

from .. import _core
from ..backends.base import Reader
from ..backends.registry import create
from ..engine.records import OwnRecords
from ..errors import CorruptionError, StorageError
from ..types import Mode
from .verify import examine

_SQLITE_HEADER: Final = b"SQLite format 3\0"
#: The faults that an error message lists.
_LISTED: Final = 3


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
    """Return the name of the backend that opens the files at a path; ``None`` if there are none."""
    if os.path.isdir(path):
        return "leveldb" if os.path.exists(os.path.join(path, "CURRENT")) else None
    try:
        with open(path, "rb") as file:
            return "sqlite" if file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER else None
    except OSError:
        return None


def examined(path: str, engine: str, space: _core.KeySpace, name: str) -> tuple[Mode, int | None]:
    """Verify a copy, and return its mode and CID.

    Raises:
        CorruptionError: It has a fault. The message begins with ``name``.
    """
    copied = create(engine, path, {})
    copied.open_read_only()
    with closing(copied), closing(copied.snapshot()) as reader:
        result = examine(reader, space)
        mode = result.mode
        faults = [*copied.recovery_notes, *result.faults]
        if mode is None or faults:
            listed = "; ".join(faults[:_LISTED])
            raise CorruptionError(
                f"{name} has faults, and was not completed: {listed}. Run `treehub-level verify` on the store that it "
                "was made from; earlier backups are as they were"
            )
        return mode, stored_cid(reader, mode, space)


def stored_cid(reader: Reader, mode: Mode, space: _core.KeySpace) -> int | None:
    """Return the CID of a store; ``None`` in NORMAL mode."""
    return None if mode is Mode.NORMAL else OwnRecords(space).cid(reader)
