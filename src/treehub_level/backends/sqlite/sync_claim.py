"""Claims of the processes that synchronise one SQLite store.

A claim is an open-file-description lock on the store's write-ahead log, far beyond its end. SQLite
has no locks on that file, and keeps the file while any process has the store open. The kernel
releases the lock when its process dies.

The lock covers a range of bytes whose length tells the process: the kernel does not tell the owner
of such a lock, but the range.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from ...errors import LockedError
from ..base import SyncClaim, SyncRole
from ..descriptor_lock import DescriptorLock

if sys.platform != "win32":
    from ..descriptor_lock import HAS_RANGE_LOCKS, lock_range

#: The first byte of each role. A range has at most 2^32 bytes: process ids are smaller.
_STARTS: Final[dict[SyncRole, int]] = {"sync": 1 << 60, "live": 1 << 61}
_ACTIONS: Final[dict[SyncRole, str]] = {"sync": "synchronises it now", "live": "has a live session with it"}


class FileClaim(DescriptorLock, SyncClaim, action="claim the synchronisation of an SQLite store"):
    """A claim on an SQLite store.

    Args:
        path: The database file, which this process has open.
        role: The role that is claimed.

    Raises:
        LockedError: Another process, or another level of this one, has the claim.
    """

    def __init__(self, path: str, role: SyncRole) -> None:
        super().__init__()
        if sys.platform == "win32" or not HAS_RANGE_LOCKS:
            return
        with suppress(OSError):  # a file system without such locks
            self._descriptors.append(os.open(path + "-wal", os.O_RDWR))
            length = lock_range(self._descriptors[-1], _STARTS[role], os.getpid() + 1)
            if length:
                self.close_descriptors()
                process = length - 1
                who = "another Level of this process" if process == os.getpid() else f"the process {process}"
                raise LockedError(f"{who} {_ACTIONS[role]}: the SQLite store {path!r} is synchronised by one at a time")
