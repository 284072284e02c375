"""Reads of stores, snapshots and transactions: single keys and ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ...errors import NotOpenError
from ...locks import ErrorCheckingLock
from ..base import FETCH_BYTES, Row
from .errors import translate_errors
from .pool import Lease, LimitedPool, Result, execute
from .statements import ByteaArray, Statements

#: Runs a statement with its parameters, and returns the rows.
Run: TypeAlias = Callable[[str, Sequence[object]], Result]


def get(run: Run, statements: Statements, key: bytes) -> bytes | None:
    """See `Reader.get`."""
    rows = run(statements.get, (key,))
    return rows[0][0] if rows else None


def get_many(run: Run, statements: Statements, keys: Sequence[bytes]) -> list[bytes | None]:
    """See `Reader.get_many`. One statement reads all keys, so they are of one snapshot."""
    found: dict[Any, Any] = dict(run(statements.get_many, (ByteaArray(keys),)))
    return [found.get(key) for key in keys]


class ReadTransaction:
    """A REPEATABLE READ transaction, which holds a connection of the pool until it is closed.

    Args:
        pool: The pool to take a connection from.
        statements: The statements of the store.
    """

    def __init__(self, pool: LimitedPool, statements: Statements) -> None:
        self._pool = pool
        self._lock = ErrorCheckingLock("read from this snapshot")
        self._lease = Lease(pool, pool.scan_limit)
        self._lease.begin(statements.begin_read)
        self._connection = self._lease.connection
        self._is_open = True

    def run(self, query: str, parameters: Sequence[object]) -> Result:
        """Run a statement in the transaction, and return its rows."""
        with self._lock.entry():
            if not self._is_open:
                raise NotOpenError("the snapshot is closed")
            with translate_errors(self._pool.settings.label, self._connection):
                return execute(self._connection, query, parameters)

    def close(self) -> None:
        """End the transaction, and return the connection to the pool."""
        with self._lock.entry():
            if self._is_open:
                self._is_open = False
                self._lease.close()


class PostgresSnapshot:
    """See `base.Snapshot`.

    Args:
        transaction: The transaction to read in. Closing the snapshot closes it.
        statements: The statements of the store.
    """

    def __init__(self, transaction: ReadTransaction, statements: Statements) -> None:
        self._transaction = transaction
        self._statements = statements

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        return get(self._transaction.run, self._statements, key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        return get_many(self._transaction.run, self._statements, keys)

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PostgresCursor:
        """See `Reader.scan`."""
        return PostgresCursor(self._transaction.run, self._statements, start, stop, reverse)

    def close(self) -> None:
        """See `base.Snapshot.close`."""
        self._transaction.close()


class PostgresCursor:
    """See `base.Cursor`. Each fetch is a query of its own, so the server keeps no cursor open.

    Args:
        run: Runs the statements, all of them in one snapshot.
        statements: The statements of the store.
        start: See `Reader.scan`.
        stop: See `Reader.scan`.
        reverse: See `Reader.scan`.
        transaction: The transaction to close with the cursor; ``None`` if the cursor does not own
            it.
    """

    def __init__(
        self,
        run: Run,
        statements: Statements,
        start: bytes | None,
        stop: bytes | None,
        reverse: bool,
        transaction: ReadTransaction | None = None,
    ) -> None:
        self._run = run
        self._statements = statements
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._transaction = transaction
        self._ended = False

    def fetch(self, limit: int) -> list[Row]:
        """See `base.Cursor.fetch`."""
        return self.fetch_within(limit, FETCH_BYTES)

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        """See `base.Cursor.fetch_within`."""
        rows: list[Any] = self._next(limit, max_bytes)
        return rows

    def fetch_keys(self, limit: int) -> list[bytes]:
        """See `base.Cursor.fetch_keys`."""
        return [key for (key,) in self._next(limit, None)]

    def _next(self, limit: int, max_bytes: int | None) -> Result:
        """Return the next rows, up to the one that reaches ``max_bytes``; for ``None`` the keys."""
        if self._ended:
            return []
        bounds = [bound for bound in (self._start, self._stop) if bound is not None]
        has_start, has_stop = self._start is not None, self._stop is not None
        if max_bytes is None or limit == 1:
            query = self._statements.scan(
                start=has_start, stop=has_stop, reverse=self._reverse, values=max_bytes is not None
            )
            rows = self._run(query, (*bounds, limit))
        else:
            query = self._statements.scan_within(start=has_start, stop=has_stop, reverse=self._reverse)
            rows = self._run(query, (*bounds, limit, max_bytes))
        if len(rows) < limit and (max_bytes is None or sum(len(row[1]) for row in rows) < max_bytes):
            self.close()
        elif rows and self._reverse:
            self._stop = rows[-1][0]
        elif rows:
            self._start = rows[-1][0] + b"\0"
        return rows

    def close(self) -> None:
        """See `base.Cursor.close`."""
        self._ended = True
        if self._transaction is not None:
            self._transaction.close()
