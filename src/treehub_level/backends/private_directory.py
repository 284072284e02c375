"""A temporary directory that belongs to this process alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref


class PrivateDirectory:
    """A temporary directory, removed by `remove`, at garbage collection or at exit.

    A forked child does not remove it: its parent may still use it.

    Args:
        prefix: The beginning of the directory's name.
        folder: The folder for the directory; ``None`` for the folder of temporary files.

    Raises:
        OSError: The directory cannot be created.
    """

    def __init__(self, prefix: str, folder: str | None = None) -> None:
        self.path = tempfile.mkdtemp(prefix=prefix, dir=folder)
        self._remove = weakref.finalize(self, _remove, self.path, os.getpid())

    def remove(self) -> None:
        """Remove the directory with its files. Removing it twice is harmless."""
        self._remove()


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)
