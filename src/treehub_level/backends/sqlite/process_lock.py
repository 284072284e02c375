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
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import ClassVar, Final
from weakref import WeakSet

from ...errors import LockedError
from ...locks import ErrorCheckingLock

if sys.platform != "win32":
    import fcntl

#: The bytes that each connection in WAL mode keeps locked: of the database, and of the shared
#: memory ("dead man's switch"). They are ``SHARED_FIRST`` and ``UNIX_SHM_DMS`` in SQLite's
#: ``os_unix.c``.
_SHARED_BYTE: Final = 0x40000002
_CONNECTED_BYTE: Final = 128
#: Attempts to find a process between the two steps of its check, and the pause in seconds.
_ATTEMPTS: Final = 20
_PAUSE: Final = 0.005
#: The use of the lock over all marks, for the error of a thread that would wait for itself.
_ACTION: Final = "open or close an SQLite store"

_File = tuple[int, int]


class ProcessLock:
    """The mark of one open store. It ends with `release`, or with the process.

    Args:
        path: The database file, which SQLite has opened. The mark is to be released before SQLite
            closes it: the marked processes are a subset of those with SQLite's locks.
        marked: False for a store that is open for reading only, and maybe without locks.
    """

    _open: ClassVar[Counter[_File]] = Counter()
    _mutex: ClassVar[ErrorCheckingLock] = ErrorCheckingLock(_ACTION)

    def __init__(self, path: str, *, marked: bool = True) -> None:
        self._descriptor = -1
        status = os.stat(path)
        self._file = status.st_dev, status.st_ino
        with self._mutex.entry():
            self._open[self._file] += 1
        _locks.add(self)
        if marked and sys.platform == "linux":
            with suppress(OSError):  # a file system without such locks
                self._descriptor = os.open(path + "-wal", os.O_RDONLY)
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Remove the mark. Called once."""
        with self._mutex.entry():
            self._open[self._file] -= 1
        if self._descriptor >= 0 and sys.platform == "linux":
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a forked child may have a copy
        self.forget_after_fork()

    def forget_after_fork(self) -> None:
        """Close the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.forget_after_fork()

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
            wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
            found = fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted)
        finally:
            os.close(descriptor)
        kind: int = struct.unpack("hhqqi", found)[0]
        return kind != fcntl.F_UNLCK


#: All marks of this process.
_locks: Final[WeakSet[ProcessLock]] = WeakSet()


def _forget_all_after_fork() -> None:
    ProcessLock._mutex = ErrorCheckingLock(_ACTION)
    ProcessLock._open = Counter()
    for lock in [*_locks]:
        lock.forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_after_fork)
