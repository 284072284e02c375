"""Locks on a LevelDB directory: one user within this process, and one process.

LevelDB's own lock does not protect a directory against a second user in the same process (observed
with LevelDB 1.22 and 1.23). A second open succeeds if the path is spelled differently, or if
another copy of the library makes it. With the same spelling the second open fails, but it also
drops the file lock, so that another process can open the directory. Therefore every user takes a
`DirectoryLock` first. LevelDB's repair takes no file lock at all; `hold_lock_file` takes it
instead.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakValueDictionary

from ...errors import LockedError, StorageError
from ...locks import ErrorCheckingLock

if sys.platform != "win32":
    import fcntl


class DirectoryLock:
    """An exclusive lock on a directory within this process.

    The lock ends with ``release()`` or when the object is garbage-collected.

    Args:
        verb: The operation on the directory, for error messages: ``"open"``.
        path: The directory. It is identified by device and inode, so the spelling does not matter.

    Raises:
        LockedError: The directory is locked in this process.
        StorageError: The directory does not exist, or the path is not a directory.
    """

    _held: Final[WeakValueDictionary[tuple[int, int], DirectoryLock]] = WeakValueDictionary()
    _lock: Final = ErrorCheckingLock("open or close a LevelDB store")

    def __init__(self, verb: str, path: str) -> None:
        try:
            with os.scandir(path):
                status = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
            raise directory_error(verb, path, error) from error
        self._directory = status.st_dev, status.st_ino
        with self._lock.entry():
            if self._directory in self._held:
                raise locked_error(path)
            self._held[self._directory] = self

    def release(self) -> None:
        """Release the lock. Releasing twice is harmless."""
        with self._lock.entry():
            if self._held.get(self._directory) is self:
                del self._held[self._directory]


@contextmanager
def hold_lock_file(verb: str, path: str) -> Iterator[None]:
    """Hold LevelDB's file lock on a directory, for which this process has the `DirectoryLock`.

    Args:
        verb: The operation on the directory, for error messages.
        path: The directory.

    Raises:
        LockedError: Another process holds the lock.
        StorageError: The lock file cannot be created.
    """
    try:
        file = open(os.path.join(path, "LOCK"), "a")  # noqa: SIM115  # the with statement below closes it
    except OSError as error:
        if sys.platform == "win32" and isinstance(error, PermissionError):
            raise locked_error(path) from error  # on Windows, LevelDB opens the file without sharing
        raise directory_error(verb, path, error) from error
    with file:
        if sys.platform != "win32":
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise locked_error(path) from error
        yield


def directory_error(verb: str, path: str, error: Exception) -> StorageError:
    """Return the exception for a failed system call on a directory."""
    reason: object = error
    if isinstance(error, FileExistsError | NotADirectoryError) and os.path.isfile(path):
        reason = "that is a file, and a store is a directory"
    elif isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        reason = f"{error}. This user must be able to write to the directory and its files"
    return StorageError(f"cannot {verb} a LevelDB store at {path!r}: {reason}")


def locked_error(path: str) -> LockedError:
    """Return the exception for a directory that is open already."""
    return LockedError(
        f"the LevelDB store at {path!r} is open already, in this process or another, and only one can have it open: "
        "close it there; or serve it over HTTP from the process that has it open, and sync a store of your own with it"
    )
