"""Checks of paths: of store names, and of permissions."""

from __future__ import annotations

import os
import re
import sys
from typing import Final

from ..errors import StorageError

#: A URL scheme. It has at least two letters, so that a Windows drive such as ``C:`` is no URL.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_writable(path: str) -> bool:
    """Return True if the effective user of this process may write to a file or directory."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def is_on_read_only_medium(path: str) -> bool:
    """Return True if no process can write to the file system of a path."""
    return sys.platform != "win32" and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def checked_path(name: str | os.PathLike[str], engine: str) -> str:
    """Return the path that ``name`` stands for.

    A URL is rejected, although it is a valid path: it was meant for another backend, and it may
    contain a password, which would become part of a directory name.

    Args:
        name: The name that the backend was given.
        engine: The kind of store with its article, for error messages: ``"a LevelDB"``.

    Raises:
        TypeError: ``name`` is not a path.
        StorageError: ``name`` is a URL. The message does not repeat it.
    """
    path = os.fspath(name)
    if not isinstance(path, str):
        raise TypeError(f"the path of {engine} store must be a str or an os.PathLike of str, not {name!r:.80}")
    if _URL.match(path):
        raise StorageError(
            f"the name of {engine} store must be a path, not a URL: pass the backend that the URL is for, such as "
            'backend="postgres"'
        )
    return path
