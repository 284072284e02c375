"""The connection pool of a process for one table, shared by all of its stores in that table."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from ...errors import UnavailableError
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
    """A semaphore that limits the connections used for one purpose.

    Args:
        purpose: The purpose in the plural, for the error message: ``"writes"``.
        settings: The settings of the table; ``lock_timeout`` is the time to wait.
        limit: The maximum number of connections.
    """

    def __init__(self, purpose: str, settings: Settings, limit: int) -> None:
        self._purpose = purpose
        self._settings = settings
        self._limit = limit
        self._semaphore = threading.BoundedSemaphore(limit)

    def acquire(self) -> None:
        """Wait until fewer connections than the limit are in use, and count one more.

        Raises:
            UnavailableError: The limit was still reached after ``lock_timeout`` seconds.
        """
        if not self._semaphore.acquire(timeout=self._settings.lock_timeout):
            raise UnavailableError(
                f"{self._limit} {self._purpose} are open on {self._settings.label} already, and none of them ended "
                f"within {self._settings.lock_timeout:g} seconds: close some, or open the store with more than "
                f"connections={self._settings.connections}"
            )

    def release(self) -> None:
        """Count one connection less."""
        self._semaphore.release()


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
        self._pool = ConnectionPool(
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
        self._pool.open()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def run(self, query: str, parameters: Sequence[object] = ()) -> Result:
        """Run one read-only statement in a transaction of its own, and return its rows."""
        connection, rows = self.begin(query, parameters)
        self.release(connection)
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
        self._pool.putconn(connection)
        if lost:
            self.lost_connections += 1
            self._pool.check()  # most likely the idle connections broke too: replace them before they are used

    def _acquire(self) -> Connection:
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
