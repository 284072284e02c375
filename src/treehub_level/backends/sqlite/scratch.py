"""Temporary tables on disk, for sets of keys that may be larger than memory.

A database without a name is private to its connection. SQLite keeps it in its page cache, writes it
to a temporary file once the cache is full, and removes the file with the connection
(https://www.sqlite.org/inmemorydb.html, "Temporary Databases").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from ...errors import StorageError

#: The page cache of a table, in bytes: the memory that a table takes at most.
CACHE_BYTES: Final = 512 * 1024


class _ScratchTable:
    """A temporary database with one table. Its owner calls it from one thread at a time.

    Args:
        columns: The definition of the table.
    """

    def __init__(self, columns: str) -> None:
        with _translating_errors():
            # Autocommit: without a journal there is nothing to roll back.
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            for setting in (f"cache_size = {-CACHE_BYTES // 1024}", "journal_mode = OFF", "synchronous = OFF"):
                self._connection.execute(f"PRAGMA {setting}").fetchall()
            self._connection.execute(f"CREATE TABLE scratch({columns}")

    def _run(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with _translating_errors():
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Remove the table. Closing it again is harmless."""
        self._connection.close()


class ScratchQueue(_ScratchTable):
    """Keys in the order in which they were added last, each once and with a flag."""

    def __init__(self) -> None:
        super().__init__("number INTEGER PRIMARY KEY, key BLOB UNIQUE, flag INTEGER)")

    def add(self, keys: Iterable[tuple[bytes, bool]]) -> None:
        """Add keys at the end. One that is present moves there, and takes the new flag."""
        self._run("INSERT OR REPLACE INTO scratch(key, flag) VALUES (?, ?)", keys)

    def take(self, limit: int) -> list[tuple[bytes, bool]]:
        """Remove the first keys, at most ``limit``, and return them with their flags."""
        with _translating_errors():
            rows = self._connection.execute(
                "SELECT number, key, flag FROM scratch ORDER BY number LIMIT ?", (limit,)
            ).fetchall()
            if rows:
                self._connection.execute("DELETE FROM scratch WHERE number <= ?", (rows[-1][0],))
        return [(key, bool(flag)) for _, key, flag in rows]

    def flag(self, key: bytes) -> bool | None:
        """Return the flag of a key; ``None`` if it is absent."""
        with _translating_errors():
            row = self._connection.execute("SELECT flag FROM scratch WHERE key = ?", (key,)).fetchone()
        return None if row is None else bool(row[0])


class ScratchMap(_ScratchTable):
    """A sorted map of keys to short values."""

    def __init__(self) -> None:
        super().__init__("key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def update(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Store the value of each key; ``None`` removes the key."""
        puts: dict[bytes, bytes] = {}
        removed: set[bytes] = set()
        for key, value in entries:
            if value is None:
                puts.pop(key, None)
                removed.add(key)
            else:
                puts[key] = value
        if removed:
            self._run("DELETE FROM scratch WHERE key = ?", ((key,) for key in removed))
        if puts:
            self._run("INSERT OR REPLACE INTO scratch VALUES (?, ?)", puts.items())

    def after(self, key: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the entries after a key, in key order and at most ``limit``; all for ``None``."""
        with _translating_errors():
            if key is None:
                return self._connection.execute("SELECT * FROM scratch ORDER BY key LIMIT ?", (limit,)).fetchall()
            return self._connection.execute(
                "SELECT * FROM scratch WHERE key > ? ORDER BY key LIMIT ?", (key, limit)
            ).fetchall()


@contextmanager
def _translating_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the changes for a watch that lags cannot be kept in a temporary file: {error}. Make room in the folder "
            "for temporary files, or let TMPDIR name another one"
        ) from error
