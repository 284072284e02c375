"""`PostgresBackend`, and the listing of the stores in a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import LockedError, NotOpenError, StorageError
from ..base import Backend, Batch, Reader, Supports
from .errors import translate_errors
from .insert_strategy import InsertStrategy
from .open_tables import OpenTable, acquire_table, release_table
from .pool import connect, execute
from .reading import PostgresCursor, PostgresSnapshot, ReadTransaction, get, get_many
from .settings import checked_settings, checked_store, split_url
from .statements import Statements, remove, rename, select_all_locks
from .table import table_exists
from .transaction import MAX_KEY_BYTES, PostgresTransaction


class PostgresBackend(Backend):
    """A store in a table of PostgreSQL, CockroachDB or YugabyteDB, shared between processes.

    ``open()`` creates the table if it does not exist. The stores that one process has open in one
    table share their connections if they were opened with the same options.

    The durability of a commit is the database's ``synchronous_commit`` setting; a ``durable`` write
    is at least on the disk of the database server.

    Args:
        name: The database as ``postgresql://user:password@host:port/database``. Missing parts are
            taken from libpq's environment variables and password file. A parameter ``?store=NAME``
            names the store. The attribute ``name`` and all messages omit the password.
        store: The name of the store, unless the URL has it: lower-case letters, digits, ``-`` and
            ``_``. The default is ``"default"``.
        table: The name of the table, optionally with its schema.
        connections: The maximum number of connections, not counting the one that listens for
            commits. At most half of them serve scans and snapshots, each of which holds a
            connection until it is closed or exhausted. At most a quarter serve writers.
        lock_timeout: Seconds to wait for another writer, or for a connection from the pool. The
            database ends the transaction of a writer that sends nothing for half of this time, or
            for 5 seconds if that is longer: the writer's process most likely hangs.
        statement_timeout: The maximum run time, in seconds, of one statement of a writer or a scan.
        notify: Use NOTIFY and LISTEN to signal commits to other processes, where the server
            supports them. Otherwise, and with ``False``, the backend polls the table twice a second
            while a listener is registered.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range.
        StorageError: The URL, the name of the store or the name of the table is invalid.
    """

    supports = Supports(persistent=True, inline_reads=False, shared=True, max_key_bytes=MAX_KEY_BYTES)

    def __init__(
        self,
        name: str,
        *,
        store: str | None = None,
        table: str = "treehub_level",
        connections: int = 20,
        lock_timeout: float = 10.0,
        statement_timeout: float = 60.0,
        notify: bool = True,
    ) -> None:
        url, store_in_url = split_url(name)
        if store is None:
            store = "default" if store_in_url is None else store_in_url
        elif store_in_url is not None:
            raise StorageError(
                f"the store is named twice, in the URL as {store_in_url!r:.80} and by store={store!r:.80}: "
                "leave one of them out"
            )
        self.settings = checked_settings(
            url,
            table,
            connections=connections,
            lock_timeout=lock_timeout,
            statement_timeout=statement_timeout,
            notify=notify,
        )
        self._store = checked_store(store)
        super().__init__(f"{self.settings.label}?store={self._store}")
        self._open_table: OpenTable | None = None
        #: The latest transaction.
        self._transaction: PostgresTransaction | None = None
        self._callback: Callable[[], None] | None = None
        #: The commits of this object.
        self._commits = 0

    def open(self) -> None:
        """See `Backend.open`."""
        if self._open_table is not None:
            raise LockedError(f"the store {self.name!r} is open already: close the level that has it open first")
        try:
            table = acquire_table(self.settings)
        except StorageError as error:
            raise type(error)(f"cannot open the store {self.name!r}: {error}") from error
        self._statements = Statements(
            self.settings,
            self._store,
            reports_start_time=table.features.reports_start_time,
            can_notify=table.features.can_notify,
        )
        self._strategy = InsertStrategy()
        self._open_table = table

    def close(self) -> None:
        """See `Backend.close`. The connections stay open while another store uses them."""
        table, self._open_table = self._open_table, None
        callback, self._callback = self._callback, None
        if table is not None:
            if callback is not None:
                table.listener.remove(self._store, callback)
            release_table(table)

    def close_and_remove(self, is_unused: Callable[[Reader], bool]) -> None:
        """See `Backend.close_and_remove`. The table stays."""
        try:
            with self.exclusive() as transaction:
                if is_unused(transaction):
                    transaction.delete_store()
        finally:
            self.close()

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        return get(self._table.pool.run, self._statements, key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        return get_many(self._table.pool.run, self._statements, keys)

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PostgresCursor:
        """See `Reader.scan`."""
        transaction = ReadTransaction(self._table.pool, self._statements)
        return PostgresCursor(transaction.run, self._statements, start, stop, reverse, transaction)

    def snapshot(self) -> PostgresSnapshot:
        """See `Backend.snapshot`."""
        return PostgresSnapshot(ReadTransaction(self._table.pool, self._statements), self._statements)

    def exclusive(self) -> PostgresTransaction:
        """See `Backend.exclusive`."""
        self._transaction = PostgresTransaction(self._table.pool, self._statements, self._strategy, self._on_commit)
        return self._transaction

    def _on_commit(self) -> None:
        self._commits += 1

    def foreign_commits(self) -> object:
        """See `Backend.foreign_commits`: the counter in the lock row, less our own commits."""
        rows = self._table.pool.run(self._statements.select_counter)
        return int.from_bytes(rows[0][0], "big") - self._commits if rows else None

    def on_interrupt(self) -> None:
        """See `Backend.on_interrupt`."""
        if self._transaction is not None:
            self._transaction.close()

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """Write the batch in a transaction of its own."""
        with self.write_lock.entry(), self.exclusive() as transaction:
            transaction.write(batch, durable=durable)

    def listen(self, callback: Callable[[], None]) -> None:
        """See `Backend.listen`."""
        self._table.listener.add(self._store, callback)
        self._callback = callback

    def exists(self) -> bool:
        """See `Backend.exists`."""
        statements = Statements(self.settings, self._store, reports_start_time=False, can_notify=False)
        with connect(self.settings) as connection, translate_errors(self.settings.label, connection):
            return table_exists(connection, self.settings) and bool(execute(connection, statements.select_any))

    def size_on_disk(self) -> int:
        """Return the bytes of all keys and values, uncompressed and without the index."""
        ((size,),) = self._table.pool.run(self._statements.size)
        return int(size or 0)

    @property
    def _table(self) -> OpenTable:
        if self._open_table is None:
            raise NotOpenError(f"the store {self.name!r} is not open")
        return self._open_table


def stored_names(name: str, **options: Any) -> list[str]:
    """Return the names of the stores in a table, in alphabetical order.

    The list is empty if the table does not exist.

    Args:
        name: The database URL; see `PostgresBackend`.
        **options: The options of `PostgresBackend`, except ``store``.

    Raises:
        UnavailableError: The server cannot be reached at the moment.
        StorageError: The server refuses the connection, or the table belongs to another program.
    """
    settings = PostgresBackend(name, **options).settings
    with connect(settings) as connection, translate_errors(settings.label, connection):
        if not table_exists(connection, settings):
            return []
        return sorted(key.decode() for (key,) in execute(connection, select_all_locks(settings)))


def rename_store(name: str, old: str, new: str, **options: Any) -> None:
    """Give a store another name, which no other store in the table has.

    Args:
        name: The database URL; see `PostgresBackend`.
        old: The name of the store.
        new: Its new name.
        **options: The options of `PostgresBackend`, except ``store``.

    Raises:
        UnavailableError: The server cannot be reached, or the store is in use at the moment.
        StorageError: The server refuses the change.
    """
    settings = PostgresBackend(name, **options).settings
    statement = rename(settings, checked_store(old, aside=True), checked_store(new, aside=True))
    with connect(settings) as connection, translate_errors(settings.label, connection):
        execute(connection, statement)


def remove_store(name: str, store: str, **options: Any) -> None:
    """Remove a store from a table, open or not, if it is there.

    Args:
        name: The database URL; see `PostgresBackend`.
        store: The name of the store.
        **options: The options of `PostgresBackend`, except ``store``.

    Raises:
        UnavailableError: The server cannot be reached, or the store is in use at the moment.
        StorageError: The server refuses the change.
    """
    settings = PostgresBackend(name, **options).settings
    statement = remove(settings, checked_store(store, aside=True))
    with connect(settings) as connection, translate_errors(settings.label, connection):
        execute(connection, statement)
