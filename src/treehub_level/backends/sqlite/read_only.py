"""The way to read an SQLite file without changing it: in place, or in a copy."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ...errors import UnavailableError
from ..paths import is_on_read_only_medium, is_writable
from ..private_directory import PrivateDirectory

_LOG: Final = "-wal"
_SHARED_MEMORY: Final = "-shm"
#: Attempts to copy a file that another process changes at the same time, and the pause in seconds.
_ATTEMPTS: Final = 20
_PAUSE: Final = 0.05


def read_only_uri(path: str, resources: ExitStack) -> str:
    """Return the URI to read a file by.

    SQLite in WAL mode needs shared memory to read, too. It is a file beside the database, which
    cannot be created on a read-only medium or in the folder of another user
    (https://www.sqlite.org/wal.html#readonly).

    Args:
        path: The file.
        resources: Receives the removal of a copy.

    Raises:
        UnavailableError: The file changes too often to be copied.
        OSError: The file cannot be read.
    """
    uri = Path(path).as_uri()
    if is_writable(path) and is_writable(os.path.dirname(path)):
        return f"{uri}?mode=rw"  # with "ro" SQLite would leave an empty log and the shared memory behind
    if os.path.exists(path + _SHARED_MEMORY) and os.path.exists(path + _LOG):
        return f"{uri}?mode=ro"  # another process has the store open, or was killed
    if is_on_read_only_medium(path) and not _size(path + _LOG):
        return f"{uri}?mode=ro&immutable=1"
    return f"{Path(_copy(path, resources)).as_uri()}?mode=rw"


def _copy(path: str, resources: ExitStack) -> str:
    """Copy a file with its log to a temporary directory, and return the path of the copy."""
    folder = PrivateDirectory("treehub-level-reading-")
    resources.callback(folder.remove)
    copy = os.path.join(folder.path, "copy")
    for _ in range(_ATTEMPTS):
        before = _state(path)
        for suffix in ("", _LOG):
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, copy + suffix)
        if _state(path) == before:
            return copy
        time.sleep(_PAUSE)
    raise UnavailableError(f"the SQLite store {path!r} changes too often to be read beside its writer: try again")


def _state(path: str) -> list[tuple[int, int]]:
    found = [os.stat(path + suffix) for suffix in ("", _LOG) if os.path.exists(path + suffix)]
    return [(status.st_size, status.st_mtime_ns) for status in found]


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
