"""Reads with ``sqlite3``: single keys, ranges, and the snapshot that both read from."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from ...errors import NotOpenError
from ..base import FETCH_BYTES, Row, take_within
from .errors import translated_error

T = TypeVar("T")

_GET: Final = "SELECT value FROM entries WHERE key = ?"


def select_value(connection: sqlite3.Connection, key: bytes) -> bytes | None:
    """See `Reader.get`."""
    row = connection.execute(_GET, (key,)).fetchone()
    return row[0] if row else None


def select_values(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    """See `Reader.get_many`. The values are of one snapshot only inside a transaction."""
    return [select_value(connection, key) for key in keys]


def _select_range(
    connection: sqlite3.Connection, start: bytes | None, stop: bytes | None, reverse: bool, values: bool
) -> sqlite3.Cursor:
    bounds = [(part, bound) for part, bound in (("key >= ?", start), ("key < ?", stop)) if bound is not None]
    where = " WHERE " + " AND ".join(part for part, _ in bounds) if bounds else ""
    columns = "key, value" if values else "key"
    order = " DESC" if reverse else ""
    return connection.execute(
        f"SELECT {columns} FROM entries{where} ORDER BY key{order}", [bound for _, bound in bounds]
    )


def _take(statement: sqlite3.Cursor, limit: int) -> tuple[list[Any], bool]:
    """Return the next rows of a statement, and True at its end."""
    rows = statement.fetchmany(limit)
    return rows, len(rows) < limit


class SQLiteSnapshot:
    """See `base.Snapshot`. A read transaction on a connection, which any thread may use.

    Args:
        connection: The connection, inside a transaction.
        path: The file, for error messages.
        on_closed: Called with the connection after the snapshot and all its cursors were closed.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, on_closed: Callable[[sqlite3.Connection], None]
    ) -> None:
        self._connection = connection
        self._path = path
        self._on_closed = on_closed
        self._lock = threading.RLock()  # recursive: a cursor closes its snapshot
        self._cursors: set[SQLiteCursor] = set()
        self._is_open = True

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        return self._query(lambda connection: select_value(connection, key))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        return self._query(lambda connection: select_values(connection, keys))

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> SQLiteCursor:
        """See `Reader.scan`."""
        statement = self._query(lambda connection: _select_range(connection, start, stop, reverse, values))
        cursor = SQLiteCursor(self, statement)
        with self._lock:
            self._cursors.add(cursor)
        return cursor

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if not self._is_open:
                raise NotOpenError("the snapshot is closed")
            try:
                return query(self._connection)
            except sqlite3.Error as error:
                raise translated_error("read", self._path, error) from error

    def fetch_keys(self, cursor: SQLiteCursor, statement: sqlite3.Cursor, limit: int) -> list[Any]:
        """Return the next keys of a cursor, each in a tuple, and close the cursor at its end.

        An open statement keeps SQLite from resetting the write-ahead log.
        """
        return self._fetch(cursor, statement, lambda: _take(statement, limit))

    def fetch(self, cursor: SQLiteCursor, statement: sqlite3.Cursor, limit: int, max_bytes: int) -> list[Row]:
        """Return the next rows of a cursor as `fetch_keys` does: see `base.Cursor.fetch_within`."""
        return self._fetch(cursor, statement, lambda: take_within(statement, limit, max_bytes))

    def _fetch(
        self, cursor: SQLiteCursor, statement: sqlite3.Cursor, take: Callable[[], tuple[list[Any], bool]]
    ) -> list[Any]:
        with self._lock:
            if cursor not in self._cursors:
                return []
            try:
                rows, is_at_end = take()
            except sqlite3.Error as error:
                raise translated_error("read", self._path, error) from error
            if is_at_end:
                self.close_cursor(cursor, statement)
            return rows

    def close_cursor(self, cursor: SQLiteCursor, statement: sqlite3.Cursor) -> None:
        """Close a cursor. Closing twice is harmless."""
        with self._lock:
            if cursor in self._cursors:
                self._cursors.remove(cursor)
                statement.close()
                self._end_if_unused()

    def close(self) -> None:
        """Close the snapshot. The transaction ends when its last cursor is closed, too."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._end_if_unused()

    def _end_if_unused(self) -> None:
        if not self._is_open and not self._cursors:
            self._on_closed(self._connection)


class SQLiteCursor:
    """See `base.Cursor`."""

    def __init__(self, snapshot: SQLiteSnapshot, statement: sqlite3.Cursor) -> None:
        self._snapshot = snapshot
        self._statement = statement

    def fetch(self, limit: int) -> list[Row]:
        """See `base.Cursor.fetch`."""
        return self._snapshot.fetch(self, self._statement, limit, FETCH_BYTES)

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        """See `base.Cursor.fetch_within`."""
        return self._snapshot.fetch(self, self._statement, limit, max_bytes)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """See `base.Cursor.fetch_keys`."""
        return [row[0] for row in self._snapshot.fetch_keys(self, self._statement, limit)]

    def close(self) -> None:
        """See `base.Cursor.close`."""
        self._snapshot.close_cursor(self, self._statement)
