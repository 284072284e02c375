"""The locks of the processes that synchronise one SQLite store: see `Backend.sync_lock`.

A lock is an open-file-description lock on bytes of the store's write-ahead log, far beyond its end.
SQLite has no locks on that file, and keeps the file while any process has the store open. The
kernel releases the lock when the last descriptor of the description is closed, or its process dies.

The kernel does not tell the owner of such a lock, but the range of bytes. So the length of the
range tells the process.
"""

from __future__ import annotations

import os
import sys
from io import FileIO
from typing import Final

from ...errors import LockedError
from ..base import SyncRole

if sys.platform != "win32":
    from ..descriptor_lock import HAS_RANGE_LOCKS, close_after_fork, lock_range, unlock_range
else:
    HAS_RANGE_LOCKS = False

#: True if this system has such locks.
HAS_SYNC_LOCKS: Final = HAS_RANGE_LOCKS

#: The first byte of each role. A range has at most 2^32 bytes: process ids are smaller.
_STARTS: Final[dict[SyncRole, int]] = {"sync": 1 << 60, "live": 1 << 61}
_LONGEST: Final = 1 << 32
_ACTIONS: Final[dict[SyncRole, str]] = {"sync": "synchronises it now", "live": "has a live session with it"}


class FileSyncLock(FileIO):
    """A lock of one role in the synchronisation of an SQLite store.

    The methods of the ``with`` statement are those of the file, in C. So no interrupt comes between
    the end of the block and the closing of the descriptor, which releases the lock.

    Args:
        path: The database file, which this process has open.
        role: The role.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str, role: SyncRole) -> None:
        super().__init__(path + "-wal", "r+")
        self._path = path
        self._role: SyncRole = role
        close_after_fork(self)

    def acquire(self) -> None:
        """See `SyncLock.acquire`."""
        try:
            length = lock_range(self.fileno(), _STARTS[self._role], os.getpid() + 1)
        except OSError:  # a file system without such locks
            return
        if length:
            process = length - 1
            who = "another Level of this process" if process == os.getpid() else f"the process {process}"
            raise LockedError(
                f"{who} {_ACTIONS[self._role]}: the SQLite store {self._path!r} is synchronised by one at a time"
            )

    def release(self) -> None:
        """See `SyncLock.release`."""
        if not self.closed:
            unlock_range(self.fileno(), _STARTS[self._role], _LONGEST)
