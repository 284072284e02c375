"""The names of stores that are paths."""

from __future__ import annotations

import os
import re
from typing import Final

from ..errors import StorageError

#: How a URL begins. (A drive of Windows has one letter.)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def checked_path(name: str | os.PathLike[str], engine: str) -> str:
    """The path that a store was named by.

    A URL could be one, but was meant for another backend, and may hold a password, which would be a directory's name.

    Args:
        name: What the backend was given.
        engine: Whose store it is, for messages.

    Raises:
        TypeError: It is no path.
        StorageError: It is a URL. Nothing of it is repeated.
    """
    path = os.fspath(name)
    if not isinstance(path, str):
        raise TypeError(f"the path of {engine} store must be a str or an os.PathLike of str, not {name!r:.80}")
    if _URL.match(path):
        raise StorageError(
            f"{engine} store is named by a path, and this is a URL: say which backend it is for, such as postgres"
        )
    return path
