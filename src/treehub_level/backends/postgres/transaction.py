"""The write transaction, which locks its store first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from types import TracebackType
from typing import Final

import psycopg
from psycopg.errors import UniqueViolation

from ...errors import InvalidKeyError, StorageError
from ..base import Batch
from .errors import commit_error, translate_errors
from .insert_strategy import InsertStrategy
from .pool import Connection, Lease, LimitedPool, Result, execute
from .reading import PostgresCursor, get, get_many
from .statements import ByteaArray, Statements

#: The longest key, in bytes. PostgreSQL's B-tree index takes a third of an 8 KiB page for an entry,
#: which holds the name of the store too.
MAX_KEY_BYTES: Final = 2500

#: The size of a chunk, in bytes of values and in keys. A server takes at most 1 GiB in one message,
#: and each statement must finish within ``statement_timeout``.
_CHUNK_BYTES: Final = 8 * 1024 * 1024
_CHUNK_KEYS: Final = 10_000
#: From this number of keys on, a query for the keys that exist costs less than it saves; see
#: `_put`.
_MIN_BULK_KEYS: Final = 100


class PostgresTransaction:
    """See `base.Transaction`. Entering the ``with`` block begins and locks, leaving it commits.

    Args:
        pool: The pool to take a connection from.
        statements: The statements of the store.
        strategy: The insert strategy of the store.
        on_commit: Called after the commit.
    """

    def __init__(
        self,
        pool: LimitedPool,
        statements: Statements,
        strategy: InsertStrategy,
        on_commit: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._statements = statements
        self._strategy = strategy
        self._on_commit = on_commit
        self._label = pool.settings.label
        self._durable = False
        self._has_written = False
        self._connection_epoch: Hashable = None
        self._lease = Lease(pool, pool.write_limit)

    def __enter__(self) -> PostgresTransaction:
        rows = self._lease.begin(self._statements.begin_write)
        self._connection = self._lease.connection
        try:
            while not rows:  # no lock row: this is the first write to the store, or the row was just deleted
                self._run(self._statements.create_lock)
                rows = self._run(self._statements.lock)
        except BaseException:
            self.close()
            raise
        self._lock, start_time = rows[0]
        self._connection_epoch = self._pool.lost_connections, start_time
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None and self._has_written:
                self._commit(self._connection)
        finally:
            self.close()

    @property
    def connection_epoch(self) -> Hashable:
        """The number of connections lost so far, and the start time of the server."""
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
        """See `Reader.scan`. All other writers are locked out, so all queries see the same rows."""
        return PostgresCursor(self._run, self._statements, start, stop, reverse)

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `base.Transaction.write`. COMMIT is sent at the end of the ``with`` block."""
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
            # In key order, since inserting index neighbours one after another is several times
            # faster.
            self._put(sorted(puts), puts)
        self._durable = durable
        self._has_written = bool(changes)

    def delete_store(self) -> None:
        """Delete all rows of the store, and its lock row."""
        self._run(self._statements.delete_all)
        self._run(self._statements.delete_lock)
        self._has_written = True

    def _delete(self, keys: list[bytes]) -> None:
        for start in range(0, len(keys), _CHUNK_KEYS):
            self._run(self._statements.delete, (ByteaArray(keys[start : start + _CHUNK_KEYS]),))

    def _put(self, keys: list[bytes], puts: dict[bytes, bytes]) -> None:
        """Store the values of some of the keys of ``puts``."""
        if len(keys) > 1 and (len(keys) > _CHUNK_KEYS or sum(len(puts[key]) for key in keys) > _CHUNK_BYTES):
            self._put(keys[: len(keys) // 2], puts)
            self._put(keys[len(keys) // 2 :], puts)
        elif len(keys) < _MIN_BULK_KEYS:
            self._put_rows(self._statements.put, keys, puts)
        else:
            # No other writer can add a key in between. A query for the keys that exist, and a plain
            # INSERT of the others, take less time than ON CONFLICT DO UPDATE for all keys: the
            # benchmark "fillbatch into PostgreSQL" runs 1.2 times as fast.
            self._put_many(keys, puts)

    def _put_many(self, keys: list[bytes], puts: dict[bytes, bytes]) -> None:
        # Without the query, where keys are new, that benchmark runs 1.1 to 1.2 times as fast.
        if self._strategy.expects_new_keys:
            overwritten = self._strategy.overwritten
            if self._insert_new([key for key in keys if key not in overwritten], puts):
                self._strategy.on_success()
                self._put_rows(self._statements.put, [key for key in keys if key in overwritten], puts)
                return
            self._strategy.on_conflict()
        existing = {key for (key,) in self._run(self._statements.select_keys, (ByteaArray(keys),))}
        self._strategy.learn(existing)
        self._put_rows(self._statements.insert, [key for key in keys if key not in existing], puts)
        self._put_rows(self._statements.put, [key for key in keys if key in existing], puts)

    def _insert_new(self, keys: list[bytes], puts: dict[bytes, bytes]) -> bool:
        """Insert rows and return True. If a key exists, insert nothing and return False."""
        self._run("SAVEPOINT before_rows")
        try:
            self._put_rows(self._statements.insert, keys, puts)
        except StorageError as error:
            if not isinstance(error.__cause__, UniqueViolation):
                raise
            self._run("ROLLBACK TO SAVEPOINT before_rows")
            return False
        return True

    def _put_rows(self, statement: str, keys: list[bytes], puts: dict[bytes, bytes]) -> None:
        if keys:
            self._run(statement, (ByteaArray(keys), ByteaArray([puts[key] for key in keys])))

    def _run(self, query: str, parameters: Sequence[object] = ()) -> Result:
        with translate_errors(self._label, self._connection):
            return execute(self._connection, query, parameters)

    def _commit(self, connection: Connection) -> None:
        try:
            execute(connection, self._statements.commit(self._lock, durable=self._durable))
        except psycopg.Error as error:
            raise commit_error(self._label, error, connection) from error
        self._on_commit()

    def close(self) -> None:
        """Give the connection back: roll back, unless it was committed."""
        self._lease.close()
