"""Locks that a process holds by open file descriptors.

A lock of ``flock`` (flock(2)) and an open-file-description lock (fcntl(2)) belong to an open file
description. It ends when the last descriptor of the description is closed. A forked child has
copies of the descriptors of its parent: it closes them, and the parent keeps its locks.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from io import IOBase
from typing import ClassVar, Final

from ..locks import ErrorCheckingLock
from ..weak_registry import WeakRegistry

if sys.platform != "win32":
    import fcntl


class DescriptorLock:
    """A lock that ends with `release`, or when the object is garbage-collected.

    Each subclass has a mutex of its own over the record of its locks.

    Args:
        action: The use of the mutex, for the error of a thread that would wait for itself.
    """

    _action: ClassVar[str]
    _mutex: ClassVar[ErrorCheckingLock]

    def __init_subclass__(cls, action: str) -> None:
        cls._action = action
        cls._start_record()
        _kinds.append(cls)

    @classmethod
    def _start_record(cls) -> None:
        """Begin an empty record of locks. Called at first, and in each forked child."""
        cls._mutex = ErrorCheckingLock(cls._action)

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        _locks.add(self)

    def release(self) -> None:
        """Release the lock. Releasing twice is harmless."""
        with self._mutex.entry():
            self._remove_from_record()
        self._unlock()

    def _remove_from_record(self) -> None:
        """Forget the lock, unless that has happened. Called under the mutex."""

    def __del__(self) -> None:
        if hasattr(self, "_descriptors"):  # else `__init__` was interrupted
            self._unlock()  # `release` would wait for its own thread, if it was interrupted here

    def _unlock(self) -> None:
        """Unlock and close the descriptors."""
        for descriptor in self._descriptors:
            if sys.platform != "win32":
                # Closing does not unlock while a forked child has a copy of the descriptor.
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                    _unlock_description(descriptor)
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close the descriptors without unlocking them."""
        while self._descriptors:
            self._close(self._descriptors[-1])

    def _close(self, descriptor: int) -> None:
        self._descriptors.remove(descriptor)
        os.close(descriptor)


#: The subclasses, and all locks of this process.
_kinds: Final[list[type[DescriptorLock]]] = []
_locks: Final[WeakRegistry[DescriptorLock]] = WeakRegistry()
#: The files with locks that are not of this class.
_files: Final[WeakRegistry[IOBase]] = WeakRegistry()


def _forget_after_fork() -> None:
    for kind in _kinds:
        kind._start_record()
    for lock in _locks.alive():
        lock.close_descriptors()
    for file in _files.alive():
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


if sys.platform != "win32":
    #: The command of fcntl(2) that locks. macOS may have it, with another ``struct flock``.
    _SET_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
    #: ``struct flock`` of Linux: kind, whence, start, length, process.
    _FLOCK: Final = "hhqqi"

    def lock_description(descriptor: int) -> None:
        """Exclude record locks of other processes on a file, by an open-file-description lock.

        Raises:
            BlockingIOError, PermissionError: Another process holds a lock.
        """
        if _SET_LOCK is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.fcntl(descriptor, _SET_LOCK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))

    #: True if this system has locks of a range of bytes that belong to an open file description.
    HAS_RANGE_LOCKS: Final = _SET_LOCK is not None

    def close_after_fork(file: IOBase) -> None:
        """Close a file in each forked child, so that a lock of the file ends in this process."""
        _files.add(file)

    def lock_range(descriptor: int, start: int, length: int) -> int:
        """Lock a range of the bytes of a file, by an open-file-description lock.

        Returns:
            0; or else the length of a range that another description has locked and that overlaps.
        """
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        while True:
            with suppress(BlockingIOError, PermissionError):
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
                return 0
            kind, _, _, found, _ = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted))
            if kind != fcntl.F_UNLCK:
                return int(found)

    def unlock_range(descriptor: int, start: int, length: int) -> None:
        """Unlock a range of the bytes of a file, locked or not."""
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))

    def _unlock_description(descriptor: int) -> None:
        if _SET_LOCK is not None:
            fcntl.fcntl(descriptor, _SET_LOCK, struct.pack(_FLOCK, fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))

    def has_record_lock(descriptor: int, offset: int) -> bool:
        """Return True if another process has a record lock on a byte of a file."""
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        kind: int = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted))[0]
        return kind != fcntl.F_UNLCK
