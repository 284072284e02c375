"""The files of a LevelDB directory: their names, and the check that it may hold a store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

from ...errors import CorruptionError, StorageError

#: A marker file that exists while a store is being repaired.
REPAIRING: Final = "REPAIRING"
#: The folder to which a repair moves replaced files, and an opening copies damaged ones.
LOST: Final = "lost"
#: The files that hold data: logs, and tables with the current or the older suffix.
_DATA_FILE: Final = re.compile(r"[0-9]+\.(log|ldb|sst)")
#: The files that only LevelDB makes. A log alone proves nothing: other programs use ``.log`` too.
_LEVELDB_FILE: Final = re.compile(r"CURRENT|MANIFEST-[0-9]+|[0-9]+\.ldb")
#: The files to copy for a complete copy of a store.
STORE_FILE: Final = re.compile(rf"CURRENT|MANIFEST-[0-9]+|{_DATA_FILE.pattern}|{REPAIRING}")
#: Entries that may lie in a directory in which a store is created: an earlier creation that failed
#: leaves the first three, a repair leaves ``lost``, and the root of an ext4 file system has
#: ``lost+found``.
_HARMLESS: Final = {"LOCK", "LOG", "LOG.old", LOST, "lost+found"}
#: The stores that an error message lists.
_LISTED: Final = 3


def holds_store(path: str) -> bool:
    """Return True if a directory contains the files of a store, damaged or not.

    Raises:
        OSError: The directory cannot be read.
    """
    return _are_of_a_store(os.listdir(path))


def is_leveldb_file(name: str) -> bool:
    """Return True if LevelDB makes files of that name."""
    return name in ("LOCK", "LOG", "LOG.old") or STORE_FILE.fullmatch(name) is not None


def would_create(path: str) -> bool:
    """Return True if opening a directory would create a new store in it.

    Raises:
        OSError: The path is not a directory, or cannot be read. A missing directory is no error.
    """
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return True
    return not _are_of_a_store(names) and REPAIRING not in names and not any(_foreign(names))


def check_files(path: str, *, repaired: bool) -> None:
    """Raise an error for a directory in which LevelDB must not open or create a store.

    Args:
        path: The directory.
        repaired: True if LevelDB's repair has just rebuilt the store.

    Raises:
        CorruptionError: A repair was interrupted, or the store has lost its CURRENT file.
        StorageError: The directory has no store, but files or folders of other origin.
    """
    names = os.listdir(path)
    if REPAIRING in names and not repaired:
        raise CorruptionError(
            f"the repair of the LevelDB store at {path!r} was interrupted: run `treehub-level repair {path}` again"
        )
    if not _are_of_a_store(names):
        foreign = [*_foreign(names)]
        if foreign:
            raise StorageError(f"cannot open a LevelDB store at {path!r}: {_contents_of(path, foreign)}")
    elif "CURRENT" not in names and any(map(_DATA_FILE.fullmatch, names)):
        raise CorruptionError(
            f"the LevelDB store at {path!r} has lost its CURRENT file, and LevelDB would delete the other files. "
            f"{remedy(path)}"
        )


def remedy(path: str) -> str:
    """Return the advice for a damaged store, as the end of an error message."""
    return (
        "Restore the store from a backup, sync a new one, or copy the directory and save the readable data: "
        f"run `treehub-level repair {path}`"
    )


def _are_of_a_store(names: Iterable[str]) -> bool:
    names = {*names}
    return any(map(_LEVELDB_FILE.fullmatch, names)) or ("LOCK" in names and any(map(_DATA_FILE.fullmatch, names)))


def _foreign(names: Iterable[str]) -> Iterator[str]:
    """Iterate over the entries that LevelDB has not made, but for hidden ones."""
    return (name for name in names if name not in _HARMLESS and not name.startswith("."))


def _contents_of(path: str, foreign: list[str]) -> str:
    """Return a description of a directory that holds no store, with the remedy."""
    stores = sorted(name for name in foreign if _is_store(os.path.join(path, name)))
    if not stores:
        return "that directory holds other files, and no store: choose a new or an empty directory"
    listed = ", ".join(stores[:_LISTED]) + (f" and {len(stores) - _LISTED} more" if len(stores) > _LISTED else "")
    return (
        f"that directory is not a store, it holds stores ({listed}): name one of them, such as "
        f"{os.path.join(path, stores[0])!r}, or choose a new directory"
    )


def _is_store(path: str) -> bool:
    try:
        return holds_store(path)
    except OSError:
        return False
