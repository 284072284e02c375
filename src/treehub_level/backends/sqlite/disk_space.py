"""`DiskSpace`: a bound for the write-ahead log, and room on a disk that is almost full.

SQLite copies the pages of the write-ahead log into the database in a checkpoint. A database without
room for these pages can make no checkpoint, so its log grows with every write, also with deletes:
the disk is then full for ever. Two rules prevent that.

- The log is bounded by the free space of the disk, not only by a constant.
- A write is refused before its pages and those of the log would no longer fit into the database,
  and a reserve. Small batches with deletes may use the reserve.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .reading import FREE_SPACE, disk_full

KIB: Final = 1024
MIB: Final = 1024 * KIB
#: The size of the write-ahead log, in bytes, at which a commit starts a checkpoint, on a large
#: disk: a page that is written many times is copied to the database once.
LARGEST_LOG: Final = 64 * MIB
_SMALLEST_LOG: Final = 128 * KIB
#: The part of the free space that the log may take.
_PART: Final = 16
#: The size of a page of the database, in bytes: the default of SQLite.
PAGE: Final = 4096
#: Bytes of a row that lie in the tree. The rest of a larger row is on overflow pages.
_LOCAL: Final = 1000
#: Pages that one transaction may touch besides those of its values: inner pages of the tree.
_OVERHEAD: Final = 8 * PAGE
#: The largest batch with a delete, in bytes, that may use the reserve.
_SMALL: Final = 64 * KIB
#: Bytes that are written at most before the free space is read again.
_UNCHECKED: Final = 8 * MIB


class DiskSpace:
    """The free space on the disk of one SQLite file.

    Args:
        path: The path of the database.
        writer: The connection that writes.
        checkpoint: Copies the log into the database and truncates it, as far as readers permit.
    """

    def __init__(self, path: str, writer: sqlite3.Connection, checkpoint: Callable[[], None]) -> None:
        self._path = path
        self._writer = writer
        self._checkpoint = checkpoint
        self._limit = 0
        self._unchecked = 0

    def before_transaction(self) -> None:
        """Read the free space after some writes, and adapt the bound of the log.

        Called outside of a transaction, with the write lock.
        """
        if self._unchecked > 0:
            return
        free, log, reserve = self._measure()
        limit = min(LARGEST_LOG, max(_SMALLEST_LOG, (free + log) // _PART))
        if log > 2 * limit or (log and free < reserve + 2 * log):
            self._checkpoint()
            free, log, reserve = self._measure()
        if not limit // 2 < self._limit < limit * 2:
            self._limit = limit
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {limit // PAGE}")
            self._writer.execute(f"PRAGMA journal_size_limit = {limit}")
        self._unchecked = max(0, min(_UNCHECKED, (free - reserve - log) // 4))

    def before_write(self, puts: Mapping[bytes, bytes | None], deletes: int) -> None:
        """Raise an error if a batch would leave too little space for a checkpoint.

        Args:
            puts: The entries to put.
            deletes: The number of keys to delete.

        Raises:
            StorageError: The disk is almost full.
        """
        sizes = [len(key) + len(value or b"") for key, value in puts.items()]
        size = sum(sizes)
        self._unchecked -= 2 * (size + 2 * PAGE * (len(sizes) + deletes))
        if self._unchecked >= 0 or (deletes and size <= _SMALL):
            return
        free, log, reserve = self._measure()
        needed = reserve + log + _space_for(sizes, deletes, os.stat(self._path).st_size)
        if free < needed:
            raise disk_full(
                f"cannot write to {self._path!r}: the disk has {free // KIB:,} KiB left, and the write needs "
                f"{needed // KIB:,} KiB, which includes room for SQLite's log and for later deletes. {FREE_SPACE}"
            )

    def after_failure(self) -> None:
        """Read the free space again before the next transaction: a failed one extends the log."""
        self._unchecked = 0

    def vacuum_pages(self, most: int) -> int:
        """Return the number of pages that a compaction may free in one transaction."""
        free, _, _ = self._measure()
        return max(4, min(most, free // (4 * PAGE)))

    def _measure(self) -> tuple[int, int, int]:
        """Return the free space, the size of the log, and the reserve, in bytes."""
        usage = shutil.disk_usage(os.path.dirname(self._path))
        try:
            log = os.stat(self._path + "-wal").st_size
        except FileNotFoundError:
            log = 0
        return usage.free, log, min(4 * MIB, usage.total // 20)


def _space_for(sizes: Sequence[int], deletes: int, database: int) -> int:
    """Return an upper bound of the bytes that a batch takes in the log and then in the database.

    A row of more than a quarter of a page continues on overflow pages of its own
    (https://www.sqlite.org/fileformat2.html). Each row may lie on another page of the tree, which
    may split.

    Args:
        sizes: The bytes of key and value of each entry to put.
        deletes: The number of keys to delete.
        database: The size of the database, in bytes.
    """
    overflow = sum(-(-(size - _LOCAL) // (PAGE - 4)) for size in sizes if size > _LOCAL)
    growth = overflow + 2 * sum(min(size, _LOCAL) + 16 for size in sizes) // PAGE
    touched = min(2 * (len(sizes) + deletes), database // PAGE)
    return (2 * growth + touched) * PAGE + _OVERHEAD
