"""The backup of an SQLite store that may be open and written to, by SQLite's backup API.

SQLite begins a backup anew if another connection writes between two steps. A read transaction on
the source keeps its snapshot, so that the backup ends however much is written
(https://www.sqlite.org/c3ref/backup_finish.html).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import Final

from ..durable_files import OnCopied

#: Pages between two calls of ``on_copied``.
_PAGES: Final = 1000
_PAGE: Final = 4096


def write_backup(source: sqlite3.Connection, target: str, on_copied: OnCopied) -> None:
    """Write a copy of a database to a new file. An interrupted copy is replaced.

    Args:
        source: A connection that reads, inside a read transaction.
        target: The file.
        on_copied: Called with the number of bytes since the last call.

    Raises:
        sqlite3.Error, OSError: The source cannot be read, or the target cannot be written.
    """
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(target + suffix)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # for the owner only
    done = 0

    def on_step(status: int, remaining: int, total: int) -> None:
        nonlocal done
        copied, done = total - remaining - done, total - remaining
        on_copied(copied * _PAGE)

    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = OFF")  # the caller syncs the file, once
        source.backup(copy, pages=_PAGES, progress=on_step)
