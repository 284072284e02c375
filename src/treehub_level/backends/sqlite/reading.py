"""Reading by ``sqlite3``: single keys, and cursors. What a connection reads is one moment while a statement is open."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from ...errors import CorruptionError, LevelError, NotOpenError, StorageError, UnavailableError
from ..base import Row

T = TypeVar("T")

_GET: Final = "SELECT value FROM entries WHERE key = ?"

#: How SQLite says what went wrong: before Python 3.11 an exception has no code. (``sqlite3_errstr`` is frozen.)
_BUSY: Final = re.compile(r"is locked|locking protocol")
_DAMAGED: Final = re.compile(r"malformed|not a database|does not contain a|file is encrypted")
_FORBIDDEN: Final = re.compile(r"readonly|unable to open")


def translated(doing: str, path: str, error: Exception) -> LevelError:
    """What is raised for an error of ``sqlite3``, or of the system."""
    if isinstance(error, LevelError):
        return error
    if _BUSY.search(str(error)):
        return UnavailableError(f"cannot {doing} {path!r} now: another writer keeps it locked. Try again ({error})")
    if _DAMAGED.search(str(error)):
        return CorruptionError(f"cannot {doing} {path!r}: it is damaged, or no SQLite database ({error})")
    # Whoever only reads writes, too: into the memory that readers and writers share, a file beside it.
    hint = ". This user must be able to write to the file and its folder" if _FORBIDDEN.search(str(error)) else ""
    return StorageError(f"cannot {doing} {path!r}: {error}{hint}")


def value_of(connection: sqlite3.Connection, key: bytes) -> bytes | None:
    """See `Reader.get`."""
    row = connection.execute(_GET, (key,)).fetchone()
    return row[0] if row else None


def values_of(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    """See `Reader.get_many`. Of one moment only inside a transaction."""
    return [value_of(connection, key) for key in keys]


def _select(
    connection: sqlite3.Connection, start: bytes | None, stop: bytes | None, reverse: bool, values: bool
) -> sqlite3.Cursor:
    bounds = [(part, bound) for part, bound in (("key >= ?", start), ("key < ?", stop)) if bound is not None]
    where = " WHERE " + " AND ".join(part for part, _ in bounds) if bounds else ""
    columns = "key, value" if values else "key"
    order = " DESC" if reverse else ""
    return connection.execute(
        f"SELECT {columns} FROM entries{where} ORDER BY key{order}", [bound for _, bound in bounds]
    )


class ConnectionReader:
    """What one connection reads, which several threads may ask at the same time. A Reader.

    Args:
        connection: The connection, in a transaction, so that all is of one moment.
        path: The file, for messages.
        done: Called once nothing is read from the connection any more: this and all its cursors are closed.
    """

    def __init__(self, connection: sqlite3.Connection, path: str, done: Callable[[sqlite3.Connection], None]) -> None:
        self._connection = connection
        self._path = path
        self._done = done
        self._lock = threading.RLock()
        self._cursors: set[SQLiteCursor] = set()
        self._is_open = True

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        return self._ask(lambda connection: value_of(connection, key))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        return self._ask(lambda connection: values_of(connection, keys))

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> SQLiteCursor:
        """See `Reader.scan`."""
        statement = self._ask(lambda connection: _select(connection, start, stop, reverse, values))
        cursor = SQLiteCursor(self, statement)
        with self._lock:
            self._cursors.add(cursor)
        return cursor

    def _ask(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if not self._is_open:
                raise NotOpenError("the snapshot is closed")
            try:
                return ask(self._connection)
            except sqlite3.Error as error:
                raise translated("read", self._path, error) from error

    def fetch(self, cursor: SQLiteCursor, statement: sqlite3.Cursor, limit: int) -> list[Any]:
        """The next rows of a cursor, which is closed at its end: it would keep the log from being emptied."""
        with self._lock:
            if cursor not in self._cursors:
                return []
            try:
                rows = statement.fetchmany(limit)
            except sqlite3.Error as error:
                raise translated("read", self._path, error) from error
            if len(rows) < limit:
                self.forget(cursor, statement)
            return rows

    def forget(self, cursor: SQLiteCursor, statement: sqlite3.Cursor) -> None:
        """Close a cursor, unless it is."""
        with self._lock:
            if cursor in self._cursors:
                self._cursors.remove(cursor)
                statement.close()
                self._end()

    def close(self) -> None:
        """Let the moment go, once its cursors are closed."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._end()

    def _end(self) -> None:
        if not self._is_open and not self._cursors:
            self._done(self._connection)


class SQLiteCursor:
    """See `base.Cursor`."""

    def __init__(self, view: ConnectionReader, statement: sqlite3.Cursor) -> None:
        self._view = view
        self._statement = statement

    def fetch(self, limit: int) -> list[Row]:
        """See `base.Cursor.fetch`."""
        return self._view.fetch(self, self._statement, limit)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """See `base.Cursor.fetch_keys`."""
        return [row[0] for row in self._view.fetch(self, self._statement, limit)]

    def close(self) -> None:
        """See `base.Cursor.close`."""
        self._view.forget(self, self._statement)
