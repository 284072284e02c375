"""The way to read a LevelDB store without changing it: in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from ...errors import CorruptionError, StorageError
from ..base import Backend
from ..paths import is_writable
from .checkpoint import Checkpoint, folders_for
from .errors import shown_paths
from .lock import DirectoryLock, hold_lock_file

B = TypeVar("B", bound=Backend)


def open_checkpoint(path: str, backend_at: Callable[[str], B], resources: ExitStack) -> B:
    """Open a checkpoint of a store, in the first folder that has space for it.

    Args:
        path: The directory of the store.
        backend_at: Returns the backend for the directory of the checkpoint.
        resources: Receives the closing and the removal of the checkpoint.

    Raises:
        UnavailableError: The store changes too often to be copied.
        StorageError: The store cannot be read, or no folder can hold the checkpoint.
        CorruptionError: The store is damaged.
    """
    *folders, last = folders_for(path)
    for folder in folders:
        with suppress(StorageError), ExitStack() as attempt:
            reading = _open_checkpoint_in(folder, path, backend_at, attempt)
            resources.enter_context(attempt.pop_all())
            return reading
    return _open_checkpoint_in(last, path, backend_at, resources)


def _open_checkpoint_in(folder: str, path: str, backend_at: Callable[[str], B], resources: ExitStack) -> B:
    checkpoint = Checkpoint(path, folder)
    resources.callback(checkpoint.remove)
    shown_paths[checkpoint.path] = path
    resources.callback(shown_paths.pop, checkpoint.path)
    reading = backend_at(checkpoint.path)
    resources.callback(reading.close)
    try:
        reading.open()
    except (StorageError, CorruptionError) as error:
        raise type(error)(str(error).replace(checkpoint.path, path)) from error
    reading.recovery_notes = [note.replace(checkpoint.path, path) for note in reading.recovery_notes]
    return reading


@contextmanager
def lock_for_reading(path: str) -> Iterator[None]:
    """Keep other processes from opening a store, if its medium can be written at all.

    Args:
        path: The directory of the store.

    Raises:
        LockedError: The store is open, in this process or another.
    """
    lock = DirectoryLock("read", path)
    try:
        if not is_writable(path):
            yield
            return
        lock.hold_file()
        with hold_lock_file("read", path):
            yield
    finally:
        lock.release()
