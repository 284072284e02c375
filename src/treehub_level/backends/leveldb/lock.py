"""Locks on a LevelDB directory: one user within this process, and one process.

LevelDB's own lock, a POSIX record lock on the file ``LOCK``, has two faults:

- It does not protect a directory against a second user in the same process (observed with LevelDB
  1.22 and 1.23). A second open succeeds if the path is spelled differently, or if another copy of
  the library makes it. With the same spelling the second open fails, but it also drops the lock.
  LevelDB's repair takes no lock at all.
- POSIX drops the record locks of a process on a file when that process closes any descriptor of the
  file (fcntl(2)). A program that copies the directory of its own open store, as a backup, reads and
  closes ``LOCK``, and another process can open the store.

Therefore every user takes a `DirectoryLock` first. It has locks that belong to an open file
description, and so end only when that description is closed:

- ``flock`` on ``LOCK``, from before LevelDB opens the store. On Linux it is independent of
  LevelDB's record lock. On other systems both kinds of lock exclude each other, even within one
  process, and this lock is left out.
- As soon as LevelDB has opened the store, ``LOCK`` is replaced by a new file, which this lock holds
  by an open-file-description lock (Linux) or by ``flock``. Either excludes programs that know only
  LevelDB's record lock. LevelDB keeps its lock on the replaced file. The new file names the process
  for the error messages of others (`holder`).

On Windows, LevelDB opens the file without sharing, so no other handle can be opened.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, Final
from weakref import WeakValueDictionary

from ..descriptor_lock import DescriptorLock
from ..holder import this_process
from .errors import LOCK_FILE, directory_error, locked_error

if sys.platform != "win32":
    import fcntl

    from ..descriptor_lock import lock_description

#: The name of the new lock file until it replaces the old one. Hidden files are not a store's.
_NEW_LOCK_FILE: Final = ".LOCK"
#: True where ``flock`` does not exclude record locks (flock(2)).
_FLOCK_IS_INDEPENDENT: Final = sys.platform == "linux"


class DirectoryLock(DescriptorLock, action="open or close a LevelDB store"):
    """An exclusive lock on a directory: within this process, and, with its files, on the machine.

    Args:
        verb: The operation on the directory, for error messages: ``"open"``.
        path: The directory. It is identified by device and inode, so the spelling does not matter.

    Raises:
        LockedError: The directory is locked in this process.
        StorageError: The directory does not exist, or the path is not a directory.
    """

    _held: ClassVar[WeakValueDictionary[tuple[int, int], DirectoryLock]]

    @classmethod
    def _start_record(cls) -> None:
        super()._start_record()
        cls._held = WeakValueDictionary()

    def __init__(self, verb: str, path: str) -> None:
        super().__init__()
        self._verb = verb
        self._path = path
        self._directory = -1, -1
        #: The descriptor of the lock file that names this process.
        self._named: int | None = None
        try:
            with os.scandir(path):
                status = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
            raise directory_error(verb, path, error) from error
        self._directory = status.st_dev, status.st_ino
        with self._mutex.entry():
            if self._directory in self._held:
                raise locked_error(path)
            self._held[self._directory] = self

    def _remove_from_record(self) -> None:
        if self._held.get(self._directory) is self:
            del self._held[self._directory]

    def _unlock(self) -> None:
        if self._named is not None and self._named in self._descriptors:
            with suppress(OSError):  # a full disk; then the next holder replaces the file
                os.ftruncate(self._named, 0)  # this process has the store open no longer
        super()._unlock()

    def hold_file(self) -> None:
        """Lock the lock file against other processes that take a `DirectoryLock`.

        Creates the file if it does not exist.

        Raises:
            LockedError: Another process holds the lock.
            StorageError: The file cannot be created.
        """
        if not _FLOCK_IS_INDEPENDENT:
            return
        lock_file = os.path.join(self._path, LOCK_FILE)
        while True:
            try:
                descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise directory_error(self._verb, self._path, error) from error
            self._descriptors.append(descriptor)
            _flock(self._path, descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock_file)):
                    return
            self._close(descriptor)  # another process has replaced the file: see `replace_file`

    def replace_file(self) -> os.stat_result | None:
        """Replace the lock file by one that excludes LevelDB's own locks, too.

        Called while LevelDB holds its lock on the old file.

        Returns:
            The status of the new file; ``None`` on Windows.

        Raises:
            StorageError: The file cannot be created.
        """
        if sys.platform == "win32":
            return None
        new = os.path.join(self._path, _NEW_LOCK_FILE)
        try:
            with suppress(FileNotFoundError):
                os.unlink(new)  # of a process that was killed at this place
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            self._descriptors.append(descriptor)
            _flock(self._path, descriptor)
            _lock_description(self._path, descriptor)
            os.write(descriptor, this_process().to_stored())
            self._named = descriptor
            os.replace(new, os.path.join(self._path, LOCK_FILE))
            return os.fstat(descriptor)
        except OSError as error:
            raise directory_error(self._verb, self._path, error) from error


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
        file = open(os.path.join(path, LOCK_FILE), "a")  # noqa: SIM115  # the with statement below closes it
    except OSError as error:
        if sys.platform == "win32" and isinstance(error, PermissionError):
            raise locked_error(path) from error  # on Windows, LevelDB opens the file without sharing
        raise directory_error(verb, path, error) from error
    with file:
        if sys.platform != "win32":
            _lock_description(path, file.fileno())
        yield


if sys.platform != "win32":

    def _flock(path: str, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise locked_error(path) from error
        except OSError as error:  # a file system without such locks: LevelDB's own must do
            if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL):
                raise

    def _lock_description(path: str, descriptor: int) -> None:
        """Exclude record locks of other processes on the file."""
        try:
            lock_description(descriptor)
        except (BlockingIOError, PermissionError) as error:
            raise locked_error(path) from error
