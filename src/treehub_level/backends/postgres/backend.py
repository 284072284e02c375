"""The backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import LockedError, NotOpenError, StorageError
from ..base import Backend, Batch, Supports
from .connections import connect, execute
from .expectation import Expectation
from .reading import PostgresCursor, PostgresSnapshot, ReadTransaction, get, get_many
from .schema import is_there
from .settings import checked_settings, checked_store, split_url
from .sharing import SharedTable, acquire, release
from .statements import Statements, all_locks
from .transaction import MAX_KEY_BYTES, PostgresTransaction


class PostgresBackend(Backend):
    """A store in a table of PostgreSQL, of CockroachDB or YugabyteDB. Any number of processes may open it.

    The table is made where there is none. Stores that a process has open in one table share their connections if all
    that they were opened with is the same.

    A commit is acknowledged when the database does so: as its ``synchronous_commit`` says, and ``durable`` writes at
    least when they are on its disk.

    Args:
        name: The database, as ``postgresql://user:password@host:port/database``. libpq's environment variables, and
            its file of passwords, stand for what is missing. ``?store=NAME`` behind it names the store. Attributes and
            messages show it so, without the password.
        store: The name of the store, a lower-case one as databases have over HTTP, unless the URL has it; otherwise
            it is ``"default"``.
        table: The name of the table, with or without a schema before it.
        connections: How many of them to have at once, at most, and one more to hear of commits. Half of them serve
            scans and snapshots, each of which holds one until it is closed or at its end; a quarter serve writers.
        lock_timeout: Seconds to wait for another writer, or for a connection. A writer that keeps others out, and sends
            nothing for half of that, or for 5 seconds if that is longer, is put out: its process hangs, most likely.
        statement_timeout: Seconds for which one statement of a writer or a scan may run.
        notify: Hear of commits by LISTEN, and tell of them by NOTIFY, where that works. With ``False``, or where it
            does not, the table is asked twice a second while somebody waits for news.

    Raises:
        TypeError: Something is of a wrong type.
        ValueError: A number is out of range.
        StorageError: The URL, or the name of the store or the table, cannot be used.
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
        url, named = split_url(name)
        if store is None:
            store = "default" if named is None else named
        elif named is not None:
            raise StorageError(f"the URL names the store {named!r:.80} already: leave that out, or {store!r:.80}")
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
        self._opened: SharedTable | None = None
        self._heard: Callable[[], None] | None = None

    def open(self) -> None:
        """See `Backend.open`."""
        if self._opened is not None:
            raise LockedError(f"the store {self.name!r} is open already: close the level that has it open first")
        try:
            shared = acquire(self.settings)
        except StorageError as error:
            raise type(error)(f"cannot open the store {self.name!r}: {error}") from error
        self._statements = Statements(
            self.settings,
            self._store,
            tells_age=shared.abilities.tells_age,
            tells_commits=shared.abilities.tells_commits,
        )
        self._expected = Expectation()
        self._opened = shared

    def close(self) -> None:
        """Close. The connections stay open while another store uses them."""
        shared, self._opened = self._opened, None
        heard, self._heard = self._heard, None
        if shared is not None:
            if heard is not None:
                shared.listener.remove(self._store, heard)
            release(shared)

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        return get(self._shared.connections.run, self._statements, key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        return get_many(self._shared.connections.run, self._statements, keys)

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> PostgresCursor:
        """See `Reader.scan`."""
        transaction = ReadTransaction(self._shared.connections, self._statements)
        return PostgresCursor(transaction.run, self._statements, start, stop, reverse, transaction)

    def snapshot(self) -> PostgresSnapshot:
        """Hold this moment for reading."""
        return PostgresSnapshot(ReadTransaction(self._shared.connections, self._statements), self._statements)

    def exclusive(self) -> PostgresTransaction:
        """See `Backend.exclusive`."""
        return PostgresTransaction(self._shared.connections, self._statements, self._expected)

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `PostgresTransaction.write`, of which this is a whole one."""
        with self.exclusive() as transaction:
            transaction.write(batch, durable=durable)

    def listen(self, heard: Callable[[], None]) -> None:
        """See `Backend.listen`."""
        self._shared.listener.add(self._store, heard)
        self._heard = heard

    def exists(self) -> bool:
        """See `Backend.exists`."""
        statements = Statements(self.settings, self._store, tells_age=False, tells_commits=False)
        with connect(self.settings) as connection:
            return is_there(connection, self.settings) and bool(execute(connection, statements.any))

    def size_on_disk(self) -> int:
        """The bytes of all keys and values; not what the database adds for its index, or saves by compression."""
        ((size,),) = self._shared.connections.run(self._statements.size)
        return int(size or 0)

    @property
    def _shared(self) -> SharedTable:
        if self._opened is None:
            raise NotOpenError(f"the store {self.name!r} is not open")
        return self._opened


def stored_names(name: str, **options: Any) -> list[str]:
    """The names of the stores in a table, in order; none if there is no table.

    Args:
        name: See `PostgresBackend`.
        **options: Its options, except ``store``.

    Raises:
        UnavailableError: The server cannot be reached at the moment.
        StorageError: It will not have us, or the table is another program's.
    """
    settings = PostgresBackend(name, **options).settings
    with connect(settings) as connection:
        if not is_there(connection, settings):
            return []
        return sorted(key.decode() for (key,) in execute(connection, all_locks(settings)))
