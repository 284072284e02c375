"""fsync of directories, without which a power failure can undo a rename."""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """Write the entries of a directory to the disk. On Windows it does nothing."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
