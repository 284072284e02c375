"""The transactions that write, and the ``with`` block of one."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from types import TracebackType
from typing import Final

from ...errors import NotOpenError, StorageError, UnavailableError
from ...locks import ErrorCheckingLock
from ..base import Batch
from ..disk_space import frees_space
from .errors import has_run_out_of_space, translating_errors
from .file import SQLiteFile
from .reading import SQLiteSnapshot

#: The table has no trigger and no other index, so SQLite overwrites a row in place, with one
#: lookup.
_PUT: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?)"
_DELETE: Final = "DELETE FROM entries WHERE key = ?"


class SQLiteExclusive:
    """The ``exclusive()`` block of a store: a transaction on the writing connection.

    It is no generator: one that is interrupted would end its transaction when it is collected, in
    the middle of a later one. The transaction that an interrupt leaves open is rolled back before
    the next one begins.

    Args:
        file: The file of the store.
        write_lock: The lock of the one writer in this process.
    """

    def __init__(self, file: SQLiteFile, write_lock: ErrorCheckingLock) -> None:
        self._file = file
        self._write_lock = write_lock
        self._acquired = False
        self._pages = 0
        self._transaction: SQLiteTransaction | None = None

    def __enter__(self) -> SQLiteTransaction:
        file = self._file
        if not self._write_lock.is_owned():
            self._acquired = self._write_lock.acquire()
        try:
            writer = file.writer
            if writer is None:
                raise NotOpenError(f"the SQLite store {file.path!r} is not open")
            roll_back(writer)
            with translating_errors("write to", file.path):
                writer.execute("BEGIN IMMEDIATE")
            self._transaction = SQLiteTransaction(writer, file)
            file.check_in_place()
            self._pages = file.log.page_count(writer)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        file, transaction = self._file, self._transaction
        try:
            if file.writer is not None and transaction is not None:
                self._end(file.writer, transaction, error)
            if error is None and transaction is not None and transaction.durable:
                # Under the lock: closing removes the log.
                file.sync_log()
                file.check_in_place()
        finally:
            if self._acquired:
                self._write_lock.release()

    def _end(self, writer: sqlite3.Connection, transaction: SQLiteTransaction, error: BaseException | None) -> None:
        """Commit the transaction, or roll it back after an error in the block."""
        log = self._file.log
        try:
            transaction.close()
            if error is None and transaction.has_written:
                if not transaction.frees_space:
                    log.check_growth(writer, self._pages)
                with translating_errors("write to", self._file.path):
                    writer.execute("COMMIT")
                    log.after_commit(writer)
        except StorageError as failure:
            error = failure
            raise
        finally:
            roll_back(writer)
            self._retry_with_space(error)

    def _retry_with_space(self, error: BaseException | None) -> None:
        """Let the engine repeat the step if the disk was full, and writing the log back has helped.

        Raises:
            UnavailableError: The step is to be repeated.
        """
        if isinstance(error, StorageError) and has_run_out_of_space(error) and self._file.make_space():
            retry = UnavailableError(f"{error}. The log was written back now: try again")
            retry.retryable = True
            raise retry from error


class SQLiteTransaction(SQLiteSnapshot):
    """See `base.Transaction`."""

    connection_epoch = None

    def __init__(self, writer: sqlite3.Connection, file: SQLiteFile) -> None:
        super().__init__(writer, file.path, lambda writer: None)
        self.has_written = self.durable = False
        #: True if the transaction deletes more than it writes.
        self.frees_space = False

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `base.Transaction.write`."""
        puts = dict(batch)
        deletes = [key for key, value in puts.items() if value is None]
        for key in deletes:
            del puts[key]
        # In order of the keys, so that those which share a page lie side by side. As bytearrays,
        # since sqlite3 looks for an adapter for each bytes, which takes longer than a copy.
        rows = ((bytearray(key), bytearray(puts[key] or b"")) for key in sorted(puts))
        with translating_errors("write to", self._path):
            self._connection.executemany(_PUT, rows)
            self._connection.executemany(_DELETE, ((key,) for key in deletes))
        self.has_written, self.durable = True, durable
        self.frees_space = frees_space(batch)

    def release_free_pages(self, count: int) -> bool:
        """Truncate the file by up to ``count`` free pages. Return True if more are left."""
        with translating_errors("compact", self._path):
            before = self._free_pages()
            self._connection.execute(f"PRAGMA incremental_vacuum({count})").fetchall()
            after = self._free_pages()
        self.has_written = self.frees_space = True
        return 0 < after < before

    def _free_pages(self) -> int:
        (count,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return int(count)

    def close(self) -> None:
        """Close all cursors, since an open statement would hold the old snapshot."""
        for cursor in tuple(self._cursors):
            cursor.close()
        super().close()


def roll_back(connection: sqlite3.Connection) -> None:
    """Roll back the transaction of a connection, if there is one."""
    # SQLite may have rolled back on its own. A block that was interrupted may end after the
    # connection is closed.
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
