"""A process that takes one backup after another until it is killed.

``python -m tests.backups.taker STORE ENGINE FOLDER WRITTEN FAULT``: ``WRITTEN`` is the output of
the writer. The process reports each backup, with the last unit that was acknowledged before it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treehub_level import Mode, StorageError, blocking
from treehub_level.backends.leveldb.directory import DirectoryBackend
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.maintenance import backup as backup_module

from .units import report, reported

#: Backups to keep.
KEEP = 3


def main(store: str, engine: str, folder: str, written: str, fault: str) -> None:
    """Take backups until this process is killed."""
    FAULTS[fault]()
    while True:
        done = reported(Path(written), "done")
        acknowledged = int(done[-1][0]) if done else 0
        try:
            with blocking.Level(store, backend=engine, mode=Mode.SERVER, read_only=True) as level:
                taken = level.backup(folder, keep=KEEP)
        except StorageError as error:
            if fault == "none" and "there is no store" not in str(error):
                raise
            time.sleep(0.01)  # the writer has not created the store yet
        else:
            report("taken", os.path.basename(taken.path), acknowledged)


def _no_fault() -> None:
    pass


def _naive() -> None:
    """Copy the files of the store as they come, as ``cp`` does, and do not verify the copy."""

    def copy_directory(self: DirectoryBackend, target: str, **options: Any) -> None:
        path = self.name
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        for name in sorted(os.listdir(path), reverse=True):
            time.sleep(0.002)
            if name != "LOCK" and os.path.exists(f"{path}/{name}"):
                shutil.copyfile(f"{path}/{name}", f"{target}/{name}")

    def copy_file(self: SQLiteBackend, target: str, **options: Any) -> None:
        shutil.copyfile(self.name, target)

    DirectoryBackend.write_backup = copy_directory  # type: ignore[method-assign]
    SQLiteBackend.write_backup = copy_file  # type: ignore[method-assign]
    backup_module.examined = lambda *_: (Mode.SERVER, 0)  # type: ignore[attr-defined]


def _unsynced() -> None:
    """Leave the backup in the cache of the system."""
    os.fsync = lambda fd: None


#: The faults that the check must find, by name.
FAULTS: dict[str, Callable[[], None]] = {"none": _no_fault, "naive": _naive, "unsynced": _unsynced}

if __name__ == "__main__":
    main(*sys.argv[1:])
