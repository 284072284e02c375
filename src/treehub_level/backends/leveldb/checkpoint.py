"""A private copy of a LevelDB directory at one moment, while another process may write to it.

Opening a LevelDB directory changes it and needs its lock, so a store that is only read is opened
through a copy. LevelDB never changes a table that its MANIFEST names, and only appends to a log.
The copy therefore consists of hard links where the file system has them, which take neither time
nor space.

A table that the copied MANIFEST does not name must not be linked. The copy's LevelDB may give its
number to a new table of its own, and would overwrite the file of the store through the link.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from ...errors import LevelError, UnavailableError
from ..paths import is_on_read_only_medium, is_writable
from ..private_directory import PrivateDirectory
from .errors import directory_error
from .files import STORE_FILE
from .lock import DirectoryLock
from .log_scan import is_complete, listed_tables

#: Attempts to copy a directory that another process changes at the same time.
_ATTEMPTS: Final = 100
#: Seconds between two attempts.
_PAUSE: Final = 0.01
#: Seconds after which a copy that is not in use counts as left behind by a killed process.
_ABANDONED_AFTER: Final = 3600

_LOG: Final = re.compile(r"[0-9]+\.log")


class Checkpoint(PrivateDirectory):
    """A temporary directory with the files of a store, as they were at one moment.

    Args:
        path: The directory of the store.
        folder: The folder for the temporary directory: see `folders_for`.

    Raises:
        UnavailableError: The store changed too often to be copied.
        StorageError: The store cannot be read, or the folder cannot be written.
    """

    def __init__(self, path: str, folder: str) -> None:
        prefix = f".{os.path.basename(path)}-reading-"
        _remove_abandoned(folder, prefix)
        try:
            super().__init__(prefix, folder)
            _copy_consistently(path, self.path)
        except UnavailableError:
            self.remove()
            raise
        except OSError as error:
            raise directory_error("read", path, error) from error


def folders_for(path: str) -> list[str]:
    """Return the folders for a checkpoint of a store, best first.

    The folder of the store is on the same file system, which hard links need. It may be read-only
    or full; then the folder for temporary files has to do.
    """
    folder = os.path.dirname(path)
    return [*([folder] if is_writable(folder) else []), tempfile.gettempdir()]


def _copy_consistently(source: str, target: str) -> None:
    for _ in range(_ATTEMPTS):
        names = _store_files(source)
        _copy_listed(source, target, names)
        if is_complete(target):
            return
        # A damaged store is never complete: it is copied as it is, if it does not change.
        if _copy_rest(source, target, names) and _store_files(source) == names:
            return
        for name in os.listdir(target):
            os.unlink(os.path.join(target, name))
        time.sleep(_PAUSE)
    raise UnavailableError(f"the LevelDB store at {source!r} changes too often to be read beside its writer: try again")


def _store_files(path: str) -> list[str]:
    """Return the files to copy, in the order in which to copy them.

    LevelDB deletes a file after it has written a MANIFEST that does not name it. So the MANIFEST
    comes first. Of two logs the older one is complete as soon as the later one exists.
    """
    names = [name for name in os.listdir(path) if STORE_FILE.fullmatch(name)]
    return sorted(names, key=_copying_order)


def _copying_order(name: str) -> tuple[int, int]:
    if _LOG.fullmatch(name):
        return 1, int(name[:-4])
    return (0, 0) if name.startswith(("CURRENT", "MANIFEST")) else (2, 0)


def _copy_listed(source: str, target: str, names: Sequence[str]) -> None:
    """Copy the MANIFEST, and link the logs and the tables that it names, as far as they exist."""
    for name in names:
        if name.startswith(("CURRENT", "MANIFEST")):
            with suppress(FileNotFoundError):
                shutil.copyfile(os.path.join(source, name), os.path.join(target, name))
    tables = listed_tables(target)
    link = os.symlink if is_on_read_only_medium(source) else _link
    for name in names:
        if _LOG.fullmatch(name) or name in tables:
            with suppress(FileNotFoundError):
                link(os.path.join(source, name), os.path.join(target, name))


def _copy_rest(source: str, target: str, names: Sequence[str]) -> bool:
    """Copy the other files. Return False if one has vanished."""
    for name in names:
        copy = os.path.join(target, name)
        if not os.path.lexists(copy):
            try:
                shutil.copyfile(os.path.join(source, name), copy)
            except FileNotFoundError:
                return False
    return True


def _link(original: str, copy: str) -> None:
    try:
        os.link(original, copy)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, one without hard links, or the file of another user
        shutil.copyfile(original, copy)


def _remove_abandoned(folder: str, prefix: str) -> None:
    """Remove the checkpoints of killed processes, which keep deleted tables on the disk."""
    for path in _abandoned(folder, prefix):
        try:
            lock = DirectoryLock("remove", path)
        except LevelError:
            continue
        try:
            lock.hold_file()
            shutil.rmtree(path, ignore_errors=True)
        except LevelError:  # a process still reads it
            pass
        finally:
            lock.release()


def _abandoned(folder: str, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and time.time() - entry.stat().st_mtime > _ABANDONED_AFTER:
                    yield entry.path
    except OSError:
        return
