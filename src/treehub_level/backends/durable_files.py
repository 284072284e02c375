"""Copies of files and directories that a power cut cannot take back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Bytes copied at a time.
_CHUNK: Final = 1 << 20
#: The end of the name of a file that is being copied.
_COPYING: Final = ".copying"

#: Called with the number of bytes that were copied or linked since the last call.
OnCopied = Callable[[int], object]


def copy_file(source: str, target: str, on_copied: OnCopied) -> None:
    """Copy a file durably: the target is absent, or complete with the modification time.

    A file that grows meanwhile is copied up to the length that it had at first.

    Raises:
        OSError: A file cannot be read or written.
    """
    part = target + _COPYING
    with open(source, "rb") as original:
        status = os.fstat(original.fileno())
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with open(descriptor, "wb", buffering=0) as copy:
            left = status.st_size
            while left and (chunk := original.read(min(_CHUNK, left))):
                _write_all(copy.fileno(), chunk)
                left -= len(chunk)
                on_copied(len(chunk))
            os.fsync(copy.fileno())
    os.utime(part, ns=(status.st_mtime_ns, status.st_mtime_ns))
    os.replace(part, target)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def link_file(source: str, target: str) -> bool:
    """Give a file a second name. Return False where that is impossible, as between two disks."""
    with suppress(OSError):
        os.link(os.path.realpath(source), target)
        return True
    return False


def is_same_file(first: str, second: str) -> bool:
    """Return True if two files have the same length and modification time, to the nanosecond.

    That is enough for a file that never changes once it is complete, and that `copy_file` copies.
    """
    try:
        a, b = os.stat(first), os.stat(second)
    except OSError:
        return False
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def sync_tree(path: str) -> None:
    """Write a file, or a folder with all that is in it, to the disk.

    Raises:
        OSError: It cannot be written.
    """
    if os.path.isdir(path):
        for name in os.listdir(path):
            sync_tree(os.path.join(path, name))
        sync_folder(path)
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str) -> None:
    """Write the names in a folder to the disk, where the system can.

    Raises:
        OSError: They cannot be written.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: str) -> None:
    """Remove a file or a folder, unless it is gone already.

    Raises:
        OSError: It cannot be removed.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
