"""Writing: a transaction that has locked the store."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Final

import psycopg
from psycopg.errors import UniqueViolation

from ...errors import InvalidKeyError, StorageError
from ..base import Batch
from .connections import Connection, Connections, Result, execute
from .errors import commit_failed, translated
from .expectation import Expectation
from .reading import PostgresCursor, get, get_many
from .statements import ByteaArray, Statements

#: The longest key. PostgreSQL keeps whole keys in its index, three to a page of 8 KiB, with some bytes of its own.
MAX_KEY_BYTES: Final = 2500

#: Bytes and keys after which what is sent at once is cut: a server takes at most 1 GiB in one message, and is to be
#: done with each statement in time.
_PIECE_BYTES: Final = 8 * 1024 * 1024
_PIECE_KEYS: Final = 10_000
#: From so many keys on, asking whether they are there already pays.
_MANY: Final = 100


class PostgresTransaction:
    """See `base.Transaction`. A ``with`` block is inside it.

    Args:
        connections: Where to take one from.
        statements: Those of the store.
        expected: What its batches have brought so far.
    """

    def __init__(self, connections: Connections, statements: Statements, expected: Expectation) -> None:
        self._connections = connections
        self._statements = statements
        self._expected = expected
        self._label = connections.settings.label
        self._durable = False
        self._has_written = False
        self._connection_epoch: Hashable = None

    def __enter__(self) -> PostgresTransaction:
        self._connections.writers.take()
        try:
            self._connection, rows = self._connections.begin(self._statements.begin)
        except BaseException:
            self._connections.writers.give()
            raise
        try:
            while not rows:  # the first write of all; or somebody has just deleted the lock
                self._run(self._statements.make_lock)
                rows = self._run(self._statements.lock)
        except BaseException:
            self._give()
            raise
        self._lock, began = rows[0]
        self._connection_epoch = self._connections.losses, began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and self._has_written:
                self._commit(self._connection)
        finally:
            self._give()

    @property
    def connection_epoch(self) -> Hashable:
        """See `base.Transaction.connection_epoch`: the count of lost connections, and when the server began."""
        return self._connection_epoch

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        return get(self._run, self._statements, key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        return get_many(self._run, self._statements, keys)

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PostgresCursor:
        """See `Reader.scan`. No other writer is let in, so that all statements see the same."""
        return PostgresCursor(self._run, self._statements, start, stop, reverse)

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `base.Transaction.write`. The COMMIT follows at the end of the block."""
        changes = dict(batch)
        longest = max(changes, key=len, default=b"")
        if len(longest) > MAX_KEY_BYTES:
            raise InvalidKeyError(
                f"the key {longest!r:.80} takes {len(longest)} bytes, and PostgreSQL's index at most {MAX_KEY_BYTES}, "
                "metadata included: shorten it"
            )
        puts = {key: value for key, value in changes.items() if value is not None}
        if len(puts) < len(changes):
            self._delete([key for key in changes if key not in puts])
        if puts:
            # Neighbours in the index one after the other take a fraction of the time that any other order does.
            self._put(sorted(puts), puts)
        self._durable = durable
        self._has_written = bool(changes)

    def _delete(self, keys: list[bytes]) -> None:
        for start in range(0, len(keys), _PIECE_KEYS):
            self._run(self._statements.delete, (ByteaArray(keys[start : start + _PIECE_KEYS]),))

    def _put(self, keys: list[bytes], puts: dict[bytes, bytes]) -> None:
        """Store the values of some of the keys of ``puts``."""
        if len(keys) > 1 and (len(keys) > _PIECE_KEYS or sum(len(puts[key]) for key in keys) > _PIECE_BYTES):
            self._put(keys[: len(keys) // 2], puts)
            self._put(keys[len(keys) // 2 :], puts)
        elif len(keys) < _MANY:
            self._store_rows(self._statements.put, keys, puts)
        else:
            # Nobody else writes now. Rows are inserted, or looked up first and then inserted: either takes less time
            # than to have each row prepared for a conflict, and no more than COPY.
            self._put_many(keys, puts)

    def _put_many(self, keys: list[bytes], puts: dict[bytes, bytes]) -> None:
        if self._expected.is_all_new:
            apart = self._expected.overwritten
            if self._insert_new([key for key in keys if key not in apart], puts):
                self._expected.succeed()
                self._store_rows(self._statements.put, [key for key in keys if key in apart], puts)
                return
            self._expected.fail()
        found = {key for (key,) in self._run(self._statements.find, (ByteaArray(keys),))}
        self._expected.learn(found)
        self._store_rows(self._statements.insert, [key for key in keys if key not in found], puts)
        self._store_rows(self._statements.put, [key for key in keys if key in found], puts)

    def _insert_new(self, keys: list[bytes], puts: dict[bytes, bytes]) -> bool:
        """Insert rows if none of them is there already; otherwise nothing has happened."""
        self._run("SAVEPOINT before_rows")
        try:
            self._store_rows(self._statements.insert, keys, puts)
        except StorageError as error:
            if not isinstance(error.__cause__, UniqueViolation):
                raise
            self._run("ROLLBACK TO SAVEPOINT before_rows")
            return False
        return True

    def _store_rows(self, statement: str, keys: list[bytes], puts: dict[bytes, bytes]) -> None:
        if keys:
            self._run(statement, (ByteaArray(keys), ByteaArray([puts[key] for key in keys])))

    def _run(self, query: str, parameters: Sequence[object] = ()) -> Result:
        with translated(self._label, self._connection):
            return execute(self._connection, query, parameters)

    def _commit(self, connection: Connection) -> None:
        try:
            execute(connection, self._statements.commit(self._lock, durable=self._durable))
        except psycopg.Error as error:
            raise commit_failed(self._label, error, connection) from error

    def _give(self) -> None:
        self._connections.give(self._connection)
        self._connections.writers.give()
