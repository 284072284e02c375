"""The backup of a LevelDB directory, which may be open and written to: a copy of its files.

A `Checkpoint` beside the store keeps the files in existence while they are copied. LevelDB never
changes a table, so a table that an earlier backup has is linked instead of copied, and an
interrupted copy goes on with the tables that it lacks. The logs are copied last: they may have
grown since the checkpoint, and their beginning is a state of the store at any length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ...errors import CorruptionError, StorageError
from ..durable_files import OnCopied, copy_file, is_same_file, link_file, remove_tree
from .checkpoint import Checkpoint, folders_for
from .files import STORE_FILE, remedy
from .lock import DirectoryLock
from .log_scan import is_complete, listed_tables

_CURRENT: Final = "CURRENT"


def write_backup(path: str, target: str, *, previous: str | None, on_copied: OnCopied) -> None:
    """Make a directory a complete copy of a store at one moment.

    Args:
        path: The directory of the store.
        target: The directory of the copy: absent, or an interrupted copy to continue.
        previous: The directory of an earlier backup of the store, whose tables are linked.
        on_copied: Called with the number of bytes, as they are copied or linked.

    Raises:
        CorruptionError: The store lacks files.
        StorageError: The store cannot be read.
        OSError: The target cannot be written.
    """
    with _pinned(path) as source:
        if not is_complete(source):
            raise CorruptionError(
                f"the LevelDB store at {path!r} cannot be backed up: it lacks files that its MANIFEST names, or the "
                f"MANIFEST is damaged. {remedy(path)}"
            )
        os.makedirs(target, mode=0o700, exist_ok=True)
        names = [name for name in os.listdir(source) if STORE_FILE.fullmatch(name)]
        tables = listed_tables(source) & {*names}
        _remove_others(source, target, tables)
        for name in sorted(tables):
            original, copy = os.path.join(source, name), os.path.join(target, name)
            if not os.path.exists(copy):
                known = None if previous is None else os.path.join(previous, name)
                _add_table(original, copy, known, on_copied)
        for name in sorted({*names} - tables, key=_CURRENT.__eq__):  # the file that makes it a store comes last
            copy_file(os.path.join(source, name), os.path.join(target, name), on_copied)


@contextmanager
def _pinned(path: str) -> Iterator[str]:
    """Keep the files of a store in existence for the length of a block, in a checkpoint."""
    checkpoint = _checkpoint(path)
    lock = DirectoryLock("back up", checkpoint.path)
    try:
        lock.hold_file()  # so that no other process takes the checkpoint for one that was left behind
        yield checkpoint.path
    finally:
        lock.release()
        checkpoint.remove()


def _checkpoint(path: str) -> Checkpoint:
    *folders, last = folders_for(path)
    for folder in folders:
        with suppress(StorageError):
            return Checkpoint(path, folder)
    return Checkpoint(path, last)


def _remove_others(source: str, target: str, tables: set[str]) -> None:
    """Remove the files of an interrupted copy, except for the tables that the store still has."""
    for name in os.listdir(target):
        copy = os.path.join(target, name)
        if name not in tables or not is_same_file(os.path.join(source, name), copy):
            remove_tree(copy)


def _add_table(original: str, copy: str, known: str | None, on_copied: OnCopied) -> None:
    """Link a table to that of an earlier backup, or else copy it."""
    if known is not None and is_same_file(original, known) and link_file(known, copy):
        on_copied(os.path.getsize(copy))
    else:
        copy_file(original, copy, on_copied)
