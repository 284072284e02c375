"""Stores that are written elsewhere first, and get their name once they are complete.

The store ``NAME`` is written as ``NAME.partial/store``. A rename publishes it, so ``NAME`` is
either absent or complete, whenever the process or the machine stops.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ..backends.descriptor_lock import DescriptorLock
from ..backends.disk_space import disk_full_error
from ..backends.durable_files import remove_tree, sync_folder, sync_tree
from ..errors import LockedError, StateError, StorageError

if sys.platform != "win32":
    import fcntl

#: The end of the name of the folder for an unfinished store.
SUFFIX: Final = ".partial"
_STORE: Final = "store"
#: The files of an unfinished store: a LevelDB directory, or an SQLite file with its companions.
_CONTENTS: Final = {_STORE, *(f"{_STORE}-{end}" for end in ("journal", "wal", "shm"))}
#: The beginning of the names that a process leaves behind which is killed while it reads the store.
_LEFT_BEHIND: Final = f".{_STORE}-"


@contextmanager
def unfinished(name: str) -> Iterator[str]:
    """Yield the path at which to write a store that is not complete yet, alone on this machine.

    The path has what an interrupted block has left. The folder is removed once it is empty.

    Args:
        name: The absolute path of the store that will be.

    Raises:
        LockedError: Another process, or thread, writes the same store.
        StateError: The folder holds other files.
        StorageError: The disk is full, or the folder cannot be written.
    """
    folder = name + SUFFIX
    with translating_errors(name):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        lock = _FolderLock(folder)
        try:
            for found in os.listdir(folder):
                if found.startswith(_LEFT_BEHIND):
                    remove_tree(os.path.join(folder, found))
                elif found not in _CONTENTS:
                    raise StateError(
                        f"cannot write {name!r}: {folder!r} holds other files than an unfinished store: move it away"
                    )
            yield os.path.join(folder, _STORE)
        finally:
            with suppress(OSError):
                os.rmdir(folder)
            lock.release()


def discard(path: str) -> None:
    """Remove an unfinished store.

    Args:
        path: What `unfinished` has yielded.

    Raises:
        OSError: It cannot be removed.
    """
    folder = os.path.dirname(path)
    for name in os.listdir(folder):
        remove_tree(os.path.join(folder, name))


def publish(path: str, name: str) -> None:
    """Give a complete store its name, durably.

    Args:
        path: What `unfinished` has yielded.
        name: The path of the store, which is absent, or an empty folder.

    Raises:
        StateError: There is something of that name by now.
        OSError: It cannot be written.
    """
    sync_tree(path)
    try:
        if os.path.isdir(path):
            if os.name != "posix" and os.path.isdir(name):
                os.rmdir(name)
            os.rename(path, name)
        else:
            _rename_file(path, name)
    except OSError as error:
        if not os.path.lexists(name):
            raise
        raise StateError(f"cannot write {name!r}: meanwhile something else has that name ({error})") from error
    sync_folder(os.path.dirname(name))


def _rename_file(path: str, name: str) -> None:
    """Rename a file, and do not replace another one."""
    if os.name != "posix":
        os.rename(path, name)  # fails on Windows if the name is taken
        return
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(name):
            raise
        os.rename(path, name)
    else:
        os.unlink(path)


@contextmanager
def translating_errors(name: str) -> Iterator[None]:
    """Translate errors of the disk on which a store is written, for the length of a block."""
    try:
        yield
    except StorageError as error:
        if not error.is_disk_full:
            raise
        raise _full(name, error) from error
    except OSError as error:
        full = disk_full_error("")
        if error.errno == full.errno:
            raise _full(name, error) from error
        raise StorageError(f"cannot write {name!r}: {error}") from error


def _full(name: str, error: Exception) -> StorageError:
    return disk_full_error(
        f"cannot write {name!r}: the disk is full. Nothing that was complete before has changed. Free space there and "
        f"run the same again, which continues ({error})"
    )


class _FolderLock(DescriptorLock, action="write an unfinished store"):
    """A lock on a folder, which is created if it does not exist."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        while True:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            if sys.platform == "win32":
                return
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # the one before has just removed it
                continue
            self._descriptors.append(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self.close_descriptors()
                raise LockedError(
                    f"cannot write {folder.removesuffix(SUFFIX)!r}: another process is writing it. Wait for its end"
                ) from error
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                    return
            self.close_descriptors()
