"""The translation of SQLite's errors."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ...errors import CorruptionError, LevelError, StorageError, UnavailableError
from ..disk_space import disk_full_error

#: SQLite's error messages. Python's exceptions have error codes only from 3.11 on, and the texts of
#: ``sqlite3_errstr`` do not change.
_BUSY: Final = re.compile(r"is locked|locking protocol")
_CORRUPT: Final = re.compile(r"malformed|not a database|does not contain a|file is encrypted")
_READ_ONLY: Final = re.compile(r"readonly|unable to open")
_FULL: Final = "disk is full"


def has_run_out_of_space(error: BaseException | None) -> bool:
    """Return True for SQLite's own error of a full disk (``SQLITE_FULL``), or a translation of it.

    `StorageError.is_disk_full` is also True for a write that `LogLimit` has refused before SQLite
    ran out of space.
    """
    if isinstance(error, StorageError):
        error = error.__cause__
    return isinstance(error, sqlite3.OperationalError) and _FULL in str(error)


def translated_error(verb: str, path: str, error: Exception) -> LevelError:
    """Return the exception for an error of ``sqlite3`` or of a system call.

    Args:
        verb: The operation on the file, for the message: ``"open"``.
        path: The file.
        error: The error; a `LevelError` is returned as it is.
    """
    if isinstance(error, LevelError):
        return error
    if _BUSY.search(str(error)):
        return UnavailableError(f"cannot {verb} {path!r} now: another writer keeps it locked. Try again ({error})")
    if _CORRUPT.search(str(error)):
        return CorruptionError(f"cannot {verb} {path!r}: it is damaged, or it is not an SQLite database ({error})")
    if _FULL in str(error):
        return disk_full_error(
            f"cannot {verb} {path!r}: {error}. Delete data in smaller batches and compact the store, or free space on "
            "the disk"
        )
    # Readers need write access too: the shared memory of WAL mode is a file in the same folder.
    hint = ". This user must be able to write to the file and its folder" if _READ_ONLY.search(str(error)) else ""
    return StorageError(f"cannot {verb} {path!r}: {error}{hint}")


@contextmanager
def translating_errors(verb: str, path: str) -> Iterator[None]:
    """Translate the errors of SQLite and of system calls in a ``with`` block.

    Args:
        verb: The operation on the file, for the message: ``"open"``.
        path: The file.
    """
    try:
        yield
    except LevelError:
        raise
    except (sqlite3.Error, OSError, OverflowError) as error:
        raise translated_error(verb, path, error) from error
