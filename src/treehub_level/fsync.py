"""Syncing files and directories to the disk.

On macOS, ``fsync`` leaves data in the cache of the disk.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "darwin":
    import fcntl


def sync_descriptor(descriptor: int, *, data_only: bool = False) -> None:
    """Write a file or a directory to the disk, so that it survives a power failure.

    On macOS, ``fsync`` passes data to the disk, which may keep it in its cache, and ``F_FULLFSYNC``
    empties that cache (fsync(2)). SQLite and LevelDB do the same. A file system that lacks it gets
    ``fsync``.

    Args:
        descriptor: The file descriptor.
        data_only: True if the metadata of the file, but for its size, may be lost.

    Raises:
        OSError: The system cannot write the file.
    """
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:
            os.fsync(descriptor)
    elif data_only and hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_directory(path: str) -> None:
    """Write the names in a directory to the disk: a power failure may undo a rename otherwise.

    On Windows it does nothing.

    Raises:
        OSError: The system cannot write them.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)
