"""`SQLiteFile`: the file of a store, its connections, and its place on the disk."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import CommitUnknownError, StorageError
from ...fsync import sync_descriptor
from .errors import translating_errors
from .log_limit import LogLimit, truncate_log

logger = logging.getLogger("treehub_level")


class SQLiteFile:
    """The file of a store.

    Args:
        path: The absolute path.
        timeout: Seconds that a connection waits for locks of others.

    Attributes:
        path: The path.
        timeout: The timeout.
        uri: The URI of connections that read.
        read_only: True if no connection may write.
        writer: The writing connection; ``None`` while the store is closed.
        log: The limit of the write-ahead log.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self.uri = ""
        self.read_only = False
        self.writer: sqlite3.Connection | None = None
        self.log = LogLimit(path)
        #: The device and inode of the file and of its log, as they were when the store was opened.
        self._place: list[tuple[int, int]] = []

    def connect(self, cache: int, timeout: float | None = None, uri: str | None = None) -> sqlite3.Connection:
        """Return a new connection.

        Args:
            cache: The size of its page cache in bytes.
            timeout: Seconds that it waits for locks; ``None`` for those of the store.
            uri: The URI to connect to; ``None`` for the one that reads.
        """
        connection = sqlite3.connect(
            uri or self.uri,
            uri=True,
            timeout=self.timeout if timeout is None else timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        with close_on_error(connection):
            connection.execute(f"PRAGMA cache_size = {-(cache // 1024)}")
            if sys.platform == "darwin":  # see `sync_descriptor`
                connection.execute("PRAGMA checkpoint_fullfsync = ON")
            if self.read_only:
                connection.execute("PRAGMA query_only = ON")
        return connection

    def make_space(self) -> bool:
        """See `LogLimit.make_space`."""
        return self.log.make_space(self.connect(0, timeout=0))

    def truncate_log(self) -> None:
        """Copy the log back and truncate it, unless a snapshot needs it.

        Raises:
            StorageError: The log cannot be copied back.
        """
        with translating_errors("write to", self.path):
            truncate_log(self.connect(0, timeout=0))

    def sync_log(self) -> None:
        """Sync the write-ahead log, as ``PRAGMA synchronous = FULL`` does after each commit.

        The pragma itself cannot be set inside a transaction, and only ``write``, inside it, says
        that the transaction is durable. Pages that a checkpoint has moved out of the log are synced
        already, due to ``synchronous = NORMAL``.
        """
        try:
            sync_path(self.path + "-wal", os.O_RDWR)
        except OSError as error:
            raise CommitUnknownError(
                f"the transaction was written to {self.path!r}, but fsync failed: a power cut may lose it ({error})"
            ) from error

    def remember_place(self) -> None:
        """Remember the file and its log, for `check_in_place`."""
        self._place = self._found()

    def check_in_place(self) -> None:
        """Check that the file and its log still lie where they were when the store was opened.

        Raises:
            StorageError: A file was deleted, moved or replaced.
        """
        if self.read_only:
            return
        try:
            found = self._found()
        except OSError as error:
            reason = str(error)
        else:
            if found == self._place:
                return
            reason = "another file has its name now"
        logger.error("the SQLite store %r was deleted, moved or replaced while it was open: %s", self.path, reason)
        raise StorageError(
            f"cannot write to {self.path!r}: the file or its write-ahead log was deleted, moved or replaced while it "
            f"was open ({reason}). Close the store in all processes. Then put both files back; or remove "
            f"{os.path.basename(self.path) + '-wal'!r}, and restore the file from a backup"
        )

    def _found(self) -> list[tuple[int, int]]:
        status = [os.stat(self.path + suffix) for suffix in ("", "-wal")]
        return [(found.st_dev, found.st_ino) for found in status]


def sync_path(path: str, flags: int) -> None:
    """Sync a file or a directory.

    Args:
        path: The file or directory.
        flags: The mode to open it in: ``os.O_RDONLY`` or ``os.O_RDWR``.
    """
    descriptor = os.open(path, flags)
    try:
        sync_descriptor(descriptor, data_only=True)
    finally:
        os.close(descriptor)


@contextmanager
def close_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Close a connection if the ``with`` block raises."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
