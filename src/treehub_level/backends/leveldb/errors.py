"""The translation of LevelDB's errors, and of system calls on its directories."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

from ...errors import CorruptionError, LevelError, LockedError, StorageError
from .. import holder
from ..disk_space import disk_full_error
from .files import remedy

#: LevelDB's lock file.
LOCK_FILE: Final = "LOCK"
#: LevelDB's status message for a missing table.
_TABLE_GONE: Final = re.compile(r"NotFound: .*[0-9]\.(ldb|sst): ", re.DOTALL)
#: LevelDB's status messages for a lock that is held: by this process, by another process (one of
#: two error numbers), and on Windows.
_LOCK_TAKEN: Final = re.compile(
    f"^IO error: lock .*: (already held by process|{os.strerror(errno.EAGAIN)}|{os.strerror(errno.EACCES)})$"
    "|being used by another process"
)

#: The directories of stores, by the paths of their open checkpoints: error messages name the store.
shown_paths: Final[dict[str, str]] = {}


def directory_error(verb: str, path: str, error: Exception) -> StorageError:
    """Return the exception for a failed system call on a directory."""
    reason: object = error
    if isinstance(error, FileExistsError | NotADirectoryError) and os.path.isfile(path):
        reason = "that is a file, and a store is a directory"
    elif isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        reason = f"{error}. This user must be able to write to the directory and its files"
    return StorageError(f"cannot {verb} a LevelDB store at {path!r}: {reason}")


def locked_error(path: str) -> LockedError:
    """Return the exception for a directory that is open already. It names the process."""
    return holder.locked_error("LevelDB", path, holder.Holder.read(os.path.join(path, LOCK_FILE)))


def status_error(path: str, status: str) -> LevelError:
    """Return the exception for a LevelDB status.

    Args:
        path: The directory of the store.
        status: The message of the status: "IO error: …", "Corruption: …".
    """
    if path in shown_paths:
        status = status.replace(path, shown_paths[path])
        path = shown_paths[path]
    # LevelDB maps tables into memory. For a read beyond the end of a table, which means that the
    # file was truncated, its status is "Invalid argument".
    truncated = status.endswith(os.strerror(errno.EINVAL))
    if status.startswith("Corruption: ") or truncated or _TABLE_GONE.match(status):
        return CorruptionError(f"the LevelDB store at {path!r} is damaged: {status}. {remedy(path)}")
    if _LOCK_TAKEN.search(status):
        return locked_error(path)
    if status.endswith(os.strerror(errno.ENOSPC)):
        return disk_full_error(
            f"LevelDB could not write to {path!r}: the disk is full. Close the store, free space on the disk, and open "
            f"it again ({status})"
        )
    return StorageError(f"LevelDB could not read or write {path!r}: {status}")
