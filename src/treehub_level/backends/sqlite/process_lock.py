"""A mark of the processes that have an SQLite store open, which copying its files does not remove.

POSIX drops the record locks of a process on a file when that process closes any descriptor of the
file (fcntl(2), https://www.sqlite.org/howtocorrupt.html, section 2.2). A program that copies the
folder of its own open store, as a backup, loses SQLite's locks. The next process would take itself
for the only one, and delete the write-ahead log when it closes.

Therefore each process also holds a shared ``flock`` on the log, on which SQLite has no record
locks. A process that is about to open the store finds the mark, but no lock of SQLite, and refuses.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import ClassVar, Final

from ...errors import LockedError
from ..descriptor_lock import DescriptorLock

if sys.platform != "win32":
    import fcntl

    from ..descriptor_lock import has_record_lock

#: The bytes that each connection in WAL mode keeps locked: of the database, and of the shared
#: memory ("dead man's switch"). They are ``SHARED_FIRST`` and ``UNIX_SHM_DMS`` in SQLite's
#: ``os_unix.c``.
_SHARED_BYTE: Final = 0x40000002
_CONNECTED_BYTE: Final = 128
#: Attempts to find a process between the two steps of its check, and the pause in seconds.
_ATTEMPTS: Final = 20
_PAUSE: Final = 0.005

_File = tuple[int, int]


class ProcessLock(DescriptorLock, action="open or close an SQLite store"):
    """The mark of one open store.

    Args:
        path: The database file, which SQLite has opened. The mark is to be released before SQLite
            closes it: the marked processes are a subset of those with SQLite's locks.
        marked: False for a store that is open for reading only, and maybe without locks.
    """

    _open: ClassVar[Counter[_File]]

    @classmethod
    def _start_record(cls) -> None:
        super()._start_record()
        cls._open = Counter()

    def __init__(self, path: str, *, marked: bool = True) -> None:
        super().__init__()
        status = os.stat(path)
        self._file: _File | None = (status.st_dev, status.st_ino)
        with self._mutex.entry():
            self._open[self._file] += 1
        if marked and sys.platform == "linux":
            with suppress(OSError):  # a file system without such locks
                self._descriptors.append(os.open(path + "-wal", os.O_RDONLY))
                fcntl.flock(self._descriptors[-1], fcntl.LOCK_SH)

    def _remove_from_record(self) -> None:
        # An interrupt between both lines leaves the number too high, which only skips a `check`.
        file, self._file = self._file, None
        if file is not None:
            self._open[file] -= 1

    @classmethod
    def check(cls, path: str) -> None:
        """Check, before SQLite opens a file, that the processes with it open have their locks.

        Raises:
            LockedError: A process has lost its locks.
        """
        if sys.platform != "linux":
            return
        with suppress(OSError):
            status = os.stat(path)
            if cls._open[status.st_dev, status.st_ino] > 0:
                return  # closing a descriptor here would drop the locks of this process
            for _ in range(_ATTEMPTS):
                if not _is_marked(path) or _is_locked(path):
                    return
                time.sleep(_PAUSE)
            raise LockedError(
                f"cannot open {path!r} now: the process that has it open has lost its locks, most likely since it "
                "copied the file itself. Close the store there first, and back it up by `treehub-level copy` or "
                'sqlite3\'s ".backup"'
            )


if sys.platform == "linux":

    def _is_marked(path: str) -> bool:
        descriptor = os.open(path + "-wal", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _is_locked(path: str) -> bool:
        return _has_record_lock(path, _SHARED_BYTE) and _has_record_lock(path + "-shm", _CONNECTED_BYTE)

    def _has_record_lock(path: str, offset: int) -> bool:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return has_record_lock(descriptor, offset)
        finally:
            os.close(descriptor)
