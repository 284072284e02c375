"""The connection pool of a process for one table, shared by all of its stores in that table."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias
from weakref import finalize

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from ...errors import UnavailableError
from ...locks import start_thread
from .errors import connection_error, translate_errors
from .settings import Settings
from .statements import ADAPTERS

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Result: TypeAlias = list[tuple[Any, ...]]

#: Seconds for which psycopg's pool retries in the background after a failed connection attempt.
#: Each request for a connection starts a new attempt anyway, and the pool's backoff grows with this
#: limit.
_RECONNECT_TIMEOUT: Final = 2.0
#: Seconds to wait for a pooled connection before a separate attempt checks that the server is
#: reachable.
_REACHABILITY_CHECK_AFTER: Final = 1.0
#: Threads of psycopg's pool that make connections.
_WORKERS: Final = 3
#: Connections to try for one statement: one that broke while it was idle, one from each worker
#: thread made just before the server went away (so the pool's check missed it), and a new one.
_ATTEMPTS: Final = _WORKERS + 2


def connect(settings: Settings) -> Connection:
    """Return a new connection that does not belong to the pool.

    Raises:
        UnavailableError: The server cannot be reached at the moment.
        StorageError: The server refuses the connection.
    """
    try:
        return psycopg.connect(settings.conninfo, autocommit=True, prepare_threshold=None, context=ADAPTERS)
    except psycopg.Error as error:
        raise connection_error(settings.label, error) from error


def execute(connection: Connection, query: str, parameters: Sequence[object] = ()) -> Result:
    """Run a query and return its rows.

    Args:
        connection: The connection to use.
        query: One statement; or several, if there are no parameters. The rows of the last are
            returned.
        parameters: The parameters of the statement.
    """
    if not parameters:
        cursor = connection.execute(query)
        while cursor.nextset():
            pass
    else:
        cursor = connection.execute(query, parameters, binary=True)
    return cursor.fetchall() if cursor.description else []


class ConnectionLimit:
    """A semaphore that limits the connections used for one purpose, by a queue of tokens.

    Args:
        purpose: The purpose in the plural, for the error message: ``"writes"``.
        settings: The settings of the table; ``lock_timeout`` is the time to wait.
        limit: The maximum number of connections.
    """

    def __init__(self, purpose: str, settings: Settings, limit: int) -> None:
        self._purpose = purpose
        self._settings = settings
        self._limit = limit
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(limit):
            self._tokens.put(None)

    def acquire(self, taken: list[None]) -> None:
        """Wait until fewer connections than the limit are in use, and take a token.

        Args:
            taken: The list that receives the token.

        Raises:
            UnavailableError: The limit was still reached after ``lock_timeout`` seconds.
        """
        try:
            # One call into C takes and records: an interrupt does not lose the token.
            taken.extend(map(self._tokens.get, (True,), (self._settings.lock_timeout,)))
        except Empty as error:
            raise UnavailableError(
                f"{self._limit} {self._purpose} are open on {self._settings.label} already, and none of them ended "
                f"within {self._settings.lock_timeout:g} seconds: close some, or open the store with more than "
                f"connections={self._settings.connections}"
            ) from error

    def release(self, taken: list[None]) -> None:
        """Put the token back, if one was taken."""
        deque(map(self._tokens.put, taken), maxlen=0)
        taken.clear()


class LimitedPool:
    """A connection pool with a limit for scans and another for writes.

    A scan holds a connection for long. The limits keep some connections free for writes, and some
    for single reads.

    Args:
        settings: The settings of the table.

    Attributes:
        lost_connections: The number of connections that broke so far.
        scan_limit: The limit for scans and snapshots: half of all connections.
        write_limit: The limit for writes: a quarter of all connections.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lost_connections = 0
        self.scan_limit = ConnectionLimit("scans and snapshots", settings, settings.connections // 2)
        self.write_limit = ConnectionLimit("writes", settings, settings.connections // 4)
        #: The tokens and connections of leases that were collected before they were closed.
        self._abandoned: deque[tuple[ConnectionLimit, list[None], list[Connection]]] = deque()
        self._pool = _open_pool(settings)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def renew(self) -> None:
        """Replace psycopg's pool, since an interrupt within it may have lost a connection."""
        before, self._pool = self._pool, _open_pool(self.settings)
        start_thread("treehub-level-close-pool", before.close)

    def abandon(self, limit: ConnectionLimit, tokens: list[None], held: list[Connection]) -> None:
        """Release the connection of a collected lease at the next call. A finalizer calls this."""
        if tokens or held:
            self._abandoned.append((limit, tokens, held))

    def settle(self) -> None:
        """Release the connections of collected leases."""
        while self._abandoned:
            self.give_back(*self._abandoned.popleft())

    def give_back(self, limit: ConnectionLimit, tokens: list[None], held: list[Connection]) -> None:
        """Release the connection of a lease, and its token."""
        try:
            while held:
                self.release(held.pop())
        except BaseException as error:
            if not isinstance(error, Exception):
                self.renew()
            raise
        finally:
            limit.release(tokens)

    def run(self, query: str, parameters: Sequence[object] = ()) -> Result:
        """Run one read-only statement in a transaction of its own, and return its rows."""
        try:
            connection, rows = self.begin(query, parameters)
            self.release(connection)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.renew()
            raise
        return rows

    def begin(self, query: str, parameters: Sequence[object] = ()) -> tuple[Connection, Result]:
        """Take a connection, run its first statement, and return both the connection and the rows.

        If the connection turns out to be broken, the statement is run again on another one: most
        likely the server restarted while the connection was idle. The statement must be read-only.

        Raises:
            UnavailableError: No connection is available, it was lost, or the server is overloaded.
            StorageError: The statement failed.
        """
        for attempts_left in reversed(range(_ATTEMPTS)):
            connection = self._acquire()
            try:
                with translate_errors(self.settings.label, connection):
                    return connection, execute(connection, query, parameters)
            except BaseException:
                retry = attempts_left > 0 and connection.closed
                self.release(connection)
                if not retry:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def release(self, connection: Connection) -> None:
        """Return a connection to the pool. An open transaction on it is rolled back."""
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        lost = connection.closed
        try:
            self._pool.putconn(connection)
        except ValueError:  # of a pool that `renew` has replaced
            connection.close()
        if lost:
            self.lost_connections += 1
            self._pool.check()  # most likely the idle connections broke too: replace them before they are used

    def _acquire(self) -> Connection:
        pool = self._pool
        try:
            return self._acquire_from_pool()
        except PoolClosed:
            if pool is self._pool:
                raise
            return self._acquire()  # `renew` has replaced it meanwhile

    def _acquire_from_pool(self) -> Connection:
        try:
            return self._pool.getconn(min(_REACHABILITY_CHECK_AFTER, self.settings.lock_timeout))
        except PoolTimeout:
            connect(self.settings).close()  # raises the reason if the server cannot be reached
        try:
            return self._pool.getconn()
        except PoolTimeout as error:
            raise UnavailableError(
                f"all {self.settings.connections} connections to {self.settings.label} are in use: try again later, "
                "or open the store with more connections"
            ) from error


class Lease:
    """A connection of the pool, which counts towards a limit, until `close`.

    A lease that is lost by an interrupt gives its connection back when it is collected.

    Args:
        pool: The pool.
        limit: The limit.
    """

    def __init__(self, pool: LimitedPool, limit: ConnectionLimit) -> None:
        self._pool = pool
        self._limit = limit
        self._tokens: list[None] = []
        self._held: list[Connection] = []
        finalize(self, pool.abandon, limit, self._tokens, self._held).atexit = False

    def begin(self, query: str) -> Result:
        """Take a connection, run its first statement, and return the rows: see `LimitedPool.begin`.

        Raises:
            UnavailableError: The limit is reached, or no connection is available.
        """
        self._pool.settle()
        try:
            self._limit.acquire(self._tokens)
            connection, rows = self._pool.begin(query)
            self._held.append(connection)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._pool.renew()
            self.close()
            raise
        return rows

    @property
    def connection(self) -> Connection:
        """The connection, after `begin` and before `close`."""
        return self._held[0]

    def close(self) -> None:
        """Give the connection back. Closing twice is harmless."""
        self._pool.give_back(self._limit, self._tokens, self._held)


def _open_pool(settings: Settings) -> ConnectionPool:
    pool = ConnectionPool(
        settings.conninfo,
        kwargs={"autocommit": True, "prepare_threshold": None, "context": ADAPTERS},
        min_size=1,
        max_size=settings.connections,
        timeout=settings.lock_timeout,
        reconnect_timeout=_RECONNECT_TIMEOUT,
        num_workers=_WORKERS,
        name="treehub-level",
        open=False,
    )
    pool.open()
    return pool
