"""Whose a directory is: one user's in this process, and one process's.

LevelDB guards a directory badly against its own process (observed with LevelDB 1.22 and 1.23). A second open under
another spelling of the path succeeds, and so does one by another copy of the library; one under the same spelling
fails, but drops the lock, so that another process gets in. A `DirectoryLock`
comes first. Its repair asks for no lock at all.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakValueDictionary

from ...errors import LockedError, StorageError

if sys.platform != "win32":
    import fcntl


class DirectoryLock:
    """The right of one user in this process to a directory, until it is released or forgotten.

    Args:
        verb: What is to be done with the directory, for messages.
        path: The directory. It is known by its device and inode, however it is spelt.

    Raises:
        LockedError: Somebody in this process has it.
        StorageError: It is not there, or is no directory.
    """

    _held: Final[WeakValueDictionary[tuple[int, int], DirectoryLock]] = WeakValueDictionary()
    _lock: Final = threading.Lock()

    def __init__(self, verb: str, path: str) -> None:
        try:
            with os.scandir(path):
                status = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: no path at all, such as one with a NUL in it
            raise cannot(verb, path, error) from error
        self._directory = status.st_dev, status.st_ino
        with self._lock:
            if self._directory in self._held:
                raise locked(path)
            self._held[self._directory] = self

    def release(self) -> None:
        """Let others claim the directory. Releasing twice is harmless."""
        with self._lock:
            if self._held.get(self._directory) is self:
                del self._held[self._directory]


@contextmanager
def other_processes_kept_out(verb: str, path: str) -> Iterator[None]:
    """Hold LevelDB's lock on a directory that this process has claimed.

    Raises:
        LockedError: Another process has it.
        StorageError: The lock cannot be made.
    """
    try:
        file = open(os.path.join(path, "LOCK"), "a")  # noqa: SIM115  # it is closed below
    except OSError as error:
        if sys.platform == "win32" and isinstance(error, PermissionError):
            raise locked(path) from error  # there, LevelDB keeps others from opening the file
        raise cannot(verb, path, error) from error
    with file:
        if sys.platform != "win32":
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise locked(path) from error
        yield


def cannot(verb: str, path: str, error: Exception) -> StorageError:
    """What to raise for an error of the operating system's. Each of its calls words a file in the way differently."""
    reason: object = error
    if isinstance(error, FileExistsError | NotADirectoryError) and os.path.isfile(path):
        reason = "that is a file, and a store is a directory"
    elif isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        reason = f"{error}. This user must be able to write to the directory and its files"
    return StorageError(f"cannot {verb} a LevelDB store at {path!r}: {reason}")


def locked(path: str) -> LockedError:
    """What to raise for a directory that somebody else has."""
    return LockedError(
        f"the LevelDB store at {path!r} is open already, in this process or another, and only one can have it open: "
        "close it there, or let that one own it, serve it over HTTP, and sync a store of your own with it"
    )
