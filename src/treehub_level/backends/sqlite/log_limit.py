"""The size of SQLite's write-ahead log, bounded by the space on the disk.

SQLite copies the log back to the database ("checkpoint") when a commit finds it longer than
``wal_autocheckpoint``. A page that is written many times is copied once, so a long log is faster.
But each write of a page takes new space in the log, and a checkpoint that has to extend the
database needs space itself: on a disk that the log has filled, it fails, and nothing can be deleted
any more.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from typing import Final

from ..disk_space import disk_full_error

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
#: The bounds of the log's size in bytes, and the share of the free space that it may take.
_MIN: Final = 256 * _KIB
_MAX: Final = 64 * _MIB
_SHARE: Final = 1 / 16
#: The share of the disk that a write which extends the database leaves free besides, and its bounds
#: in bytes: for transactions that free space, such as a step of ``compact_log``.
_RESERVED_SHARE: Final = 1 / 16
_MIN_RESERVE: Final = 128 * _KIB
_MAX_RESERVE: Final = 4 * _MIB
#: Bytes by which the database may be longer in the log than on the disk, if the disk is short.
_PENDING_GROWTH: Final = 64 * _KIB
#: Below this number of free bytes each commit looks at the disk, otherwise each 16th one.
_SHORT: Final = 16 * _MIB
_COMMITS: Final = 16
#: The page size of the database, SQLite's default.
_PAGE: Final = 4 * _KIB


class LogLimit:
    """The limit of the log of one open database.

    Args:
        path: The database file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._limit = 0
        self._reserve = 0
        self._is_short = False
        self._is_scarce = False
        self._has_made_space = False
        self._commits = 0

    def apply(self, writer: sqlite3.Connection) -> None:
        """Set the limit for the space that is free now, and copy back a log that is longer."""
        (free, total), log = self._space(), self._size("-wal")
        self._reserve = int(min(max(total * _RESERVED_SHARE, _MIN_RESERVE), _MAX_RESERVE))
        limit = int(min(max((free + log) * _SHARE, _MIN), _MAX))
        self._is_short = free < _SHORT
        # Without a commit left to copy back, a checkpoint does not extend the database.
        is_scarce = free < self._reserve + 2 * limit
        if not self._limit / 2 < limit < self._limit * 2 or is_scarce is not self._is_scarce:
            self._limit, self._is_scarce = limit, is_scarce
            writer.execute(f"PRAGMA wal_autocheckpoint = {1 if is_scarce else limit // _PAGE}")
            writer.execute(f"PRAGMA journal_size_limit = {limit}")
        self._commits = 0

    def after_commit(self, writer: sqlite3.Connection) -> None:
        """Follow the space on the disk."""
        self._has_made_space = False
        self._commits += 1
        if self._is_short or self._commits >= _COMMITS:
            self.apply(writer)
        if self._is_short:
            self._prepare_for_full_disk(writer)

    def _prepare_for_full_disk(self, writer: sqlite3.Connection) -> None:
        """Keep space in the log for deletes, and extend the database soon after it has grown.

        Other programs may take the rest of the disk at any time.
        """
        if self._size("-wal") < _MIN and hasattr(os, "posix_fallocate"):
            # SQLite stops reading a log at the first frame that is not valid, such as zeros.
            with suppress(OSError), open(self._path + "-wal", "r+b") as log:
                os.posix_fallocate(log.fileno(), 0, _MIN)
        allowed = 0 if self._is_scarce else _PENDING_GROWTH
        pages = -(-(_number(writer, "page_count") * _PAGE - self._size("")) // _PAGE)
        if pages * _PAGE > allowed and not _checkpoint(writer) and _number(writer, "freelist_count") >= pages:
            # No space to extend the database: shorten it in the log instead.
            with suppress(sqlite3.Error):
                writer.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            _checkpoint(writer)

    def page_count(self, writer: sqlite3.Connection) -> int:
        """Return the pages of the database in a transaction; 0 if there is space enough."""
        return _number(writer, "page_count") if self._is_short else 0

    def check_growth(self, writer: sqlite3.Connection, pages_before: int) -> None:
        """Refuse a transaction that extends the database, if no space for a checkpoint is left.

        Args:
            writer: The connection, before the commit.
            pages_before: The result of `page_count` at the begin of the transaction.

        Raises:
            StorageError: The disk is full.
        """
        pages = _number(writer, "page_count") if pages_before else 0
        if pages <= pages_before:
            return
        missing = max(pages * _PAGE - self._size(""), 0) + max(self._limit - self._size("-wal"), 0)
        if self._space()[0] < missing + self._reserve:
            raise disk_full_error(
                f"cannot write to {self._path!r}: the disk is full, but for the space that deleting and compacting "
                "take. Delete data and compact the store, or free space on the disk"
            )

    def pages_at_a_time(self, most: int) -> int:
        """Return the pages that one transaction of a compaction may change."""
        return max(min(most, self._limit // _PAGE // 4), 1)

    def is_exceeded(self) -> bool:
        """Return True if the log is longer than its limit, as after a crash on a larger disk."""
        return self._size("-wal") > self._limit

    def make_space(self, connection: sqlite3.Connection) -> bool:
        """Truncate the log after an error of a full disk.

        Args:
            connection: See `truncate_log`.

        Returns:
            True if that has freed space, for the first time since the last commit.
        """
        before = self._size("-wal")
        try:
            truncate_log(connection)
        except sqlite3.Error:
            return False
        has_freed = self._size("-wal") < before and not self._has_made_space
        self._has_made_space = True
        return has_freed

    def _space(self) -> tuple[int, int]:
        """Return the free bytes and the size of the disk."""
        usage = shutil.disk_usage(os.path.dirname(self._path))
        return usage.free, usage.total

    def _size(self, suffix: str) -> int:
        try:
            return os.path.getsize(self._path + suffix)
        except FileNotFoundError:
            return 0


def truncate_log(connection: sqlite3.Connection) -> None:
    """Copy the log back and truncate it, unless a snapshot needs it.

    Args:
        connection: A connection that does not wait for readers. It is closed.

    Raises:
        sqlite3.Error: The log cannot be copied back.
    """
    with closing(connection):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _checkpoint(writer: sqlite3.Connection) -> bool:
    """Copy back what no reader needs in the log. Return False if the disk has no space for it."""
    try:
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error:
        return False
    return True


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
