"""Reading: what the store, one moment of it and a transaction have in common, and the walk over a range."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ...errors import NotOpenError
from ..base import Row
from .connections import Connections, Result, execute
from .errors import translated
from .statements import ByteaArray, Statements

#: Runs a statement with its parameters.
Run: TypeAlias = Callable[[str, Sequence[object]], Result]


def get(run: Run, statements: Statements, key: bytes) -> bytes | None:
    """See `Reader.get`."""
    rows = run(statements.get, (key,))
    return rows[0][0] if rows else None


def get_many(run: Run, statements: Statements, keys: Sequence[bytes]) -> list[bytes | None]:
    """See `Reader.get_many`. It is one statement, so it sees one moment."""
    found: dict[Any, Any] = dict(run(statements.get_many, (ByteaArray(keys),)))
    return [found.get(key) for key in keys]


class ReadTransaction:
    """A transaction that sees the store as it was when this was made. It holds a connection until it is closed.

    Args:
        connections: Where to take one from.
        statements: Those of the store.
    """

    def __init__(self, connections: Connections, statements: Statements) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        connections.read_transactions.take()
        try:
            connection, _ = connections.begin(statements.hold)
        except BaseException:
            connections.read_transactions.give()
            raise
        self._connection = connection
        self._is_open = True

    def run(self, query: str, parameters: Sequence[object]) -> Result:
        """What a statement gives at that moment."""
        with self._lock:
            if not self._is_open:
                raise NotOpenError("the snapshot is closed")
            with translated(self._connections.settings.label, self._connection):
                return execute(self._connection, query, parameters)

    def close(self) -> None:
        """Let the moment go."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._connections.give(self._connection)
                self._connections.read_transactions.give()


class PostgresSnapshot:
    """See `base.Snapshot`.

    Args:
        moment: What it looks at. It is closed with it.
        statements: Those of the store.
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
        run: Runs its statements, all at one moment.
        statements: Those of the store.
        start: See `Reader.scan`.
        stop: See `Reader.scan`.
        reverse: See `Reader.scan`.
        moment: What is closed at its end, if the moment is its own.
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
        rows: list[Any] = self._next(limit, values=True)
        return rows

    def fetch_keys(self, limit: int) -> list[bytes]:
        """See `base.Cursor.fetch_keys`."""
        return [key for (key,) in self._next(limit, values=False)]

    def _next(self, limit: int, *, values: bool) -> Result:
        if self._ended:
            return []
        bounds = [bound for bound in (self._start, self._stop) if bound is not None]
        query = self._statements.scan(
            start=self._start is not None, stop=self._stop is not None, reverse=self._reverse, values=values
        )
        rows = self._run(query, (*bounds, limit))
        if len(rows) < limit:
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
