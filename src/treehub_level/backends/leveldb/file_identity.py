"""The check that an open store still lies at its path.

A process keeps its files open when the directory is deleted, moved or replaced: its writes succeed,
and are gone with the files, or land in a directory that is no longer the store's.
"""

from __future__ import annotations

import os
from typing import Final

from ...errors import StorageError
from .log_scan import log_files


class FileIdentity:
    """The device and inode numbers of a directory and of the files that an open store writes to.

    The lock file, CURRENT and MANIFEST stay the same files as long as the store is open. LevelDB
    begins a new log now and then; the log is the current one if the last write has extended it.

    Args:
        path: The directory of a store that this process has just opened.
    """

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._files: list[tuple[str, tuple[int, int]]] = []
        self._log, self._log_identity, self._log_size = "", (-1, -1), 0
        self._missing_since_open: StorageError | None = None
        try:
            self._read()
        except OSError as error:
            self._missing_since_open = self._error(f"{error.filename!r} is missing")

    def _read(self) -> None:
        with open(os.path.join(self._path, "CURRENT")) as current:
            manifest = current.read().strip()
        files = [self._path, *(os.path.join(self._path, name) for name in ("LOCK", "CURRENT", manifest))]
        self._files = [(file, _identity(os.stat(file))) for file in files]
        self._follow_log()

    def check(self) -> None:
        """Check that the last write is in a file of the directory.

        Raises:
            StorageError: The directory or a file was deleted, moved or replaced.
        """
        self.check_directory()
        try:
            if not self._log_has_grown() and not self._follow_log():
                raise self._error(f"the log after {self._log!r} is missing")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._error(f"{error.filename!r} is missing") from error

    def check_directory(self) -> None:
        """Check the directory and those of its files that stay the same while it is open.

        Raises:
            StorageError: The directory or a file was deleted, moved or replaced.
        """
        if self._missing_since_open is not None:
            raise self._missing_since_open
        try:
            for file, identity in self._files:
                if _identity(os.stat(file)) != identity:
                    raise self._error(f"{file!r} is another file now")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._error(f"{error.filename!r} is missing") from error

    def _log_has_grown(self) -> bool:
        try:
            status = os.stat(self._log)
        except FileNotFoundError:
            return False
        grown = _identity(status) == self._log_identity and status.st_size > self._log_size
        if grown:
            self._log_size = status.st_size
        return grown

    def _follow_log(self) -> bool:
        """Turn to the newest log. Return False if it is not newer, or holds no write."""
        logs = log_files(self._path)
        newest = os.path.join(self._path, logs[-1]) if logs else self._log
        if newest == self._log:
            return False
        status = os.stat(newest)
        self._log, self._log_identity, self._log_size = newest, _identity(status), status.st_size
        return status.st_size > 0

    def _error(self, reason: str) -> StorageError:
        return StorageError(
            f"the LevelDB store at {self._path!r} was deleted, moved or replaced while it was open ({reason}): what is "
            "written now is lost when it closes. Put the directory back or restore it from a backup, then close the "
            "store and open it again"
        )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
