"""The connections of a process to one table, shared by all of its stores there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from ...errors import UnavailableError
from .errors import not_connected, translated
from .settings import Settings
from .statements import ADAPTERS

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Result: TypeAlias = list[tuple[Any, ...]]

#: Seconds for which the pool goes on by itself after it failed to connect. Whoever needs a connection makes it try
#: again, so this is short: the longer it tries, the longer it waits between two attempts.
_GIVE_UP: Final = 2.0
#: Seconds after which whoever waits for a connection looks whether one can be made at all.
_SOON: Final = 1.0
#: How many connections the pool makes at a time.
_WORKERS: Final = 3
#: How many connections are tried for a statement: one that was lost long ago, those that the pool's workers had made
#: just before that, too late for its check, and a new one.
_ATTEMPTS: Final = _WORKERS + 2


def connect(settings: Settings) -> Connection:
    """A connection of one's own, outside the pool.

    Raises:
        UnavailableError: The server cannot be reached at the moment.
        StorageError: It will not have us.
    """
    try:
        return psycopg.connect(settings.conninfo, autocommit=True, prepare_threshold=None, context=ADAPTERS)
    except psycopg.Error as error:
        raise not_connected(settings.label, error) from error


def execute(connection: Connection, query: str, parameters: Sequence[object] = ()) -> Result:
    """What the last of some statements gives. Several take no parameters."""
    if not parameters:
        cursor = connection.execute(query)
        while cursor.nextset():
            pass
    else:
        cursor = connection.execute(query, parameters, binary=True)
    return cursor.fetchall() if cursor.description else []


class ConnectionQuota:
    """How many may do something at once.

    Args:
        what: What they do, for the message to those who cannot.
        settings: How long they wait.
        most: How many.
    """

    def __init__(self, what: str, settings: Settings, most: int) -> None:
        self._what = what
        self._settings = settings
        self._most = most
        self._free = threading.BoundedSemaphore(most)

    def take(self) -> None:
        """Be one of them.

        Raises:
            UnavailableError: None of them ended in time.
        """
        if not self._free.acquire(timeout=self._settings.lock_timeout):
            raise UnavailableError(
                f"{self._most} {self._what} are open on {self._settings.label} already, and none of them ended within "
                f"{self._settings.lock_timeout:g} seconds: close some, or open the store with more than "
                f"connections={self._settings.connections}"
            )

    def give(self) -> None:
        """Be one of them no more."""
        self._free.release()


class Connections:
    """A pool, divided so that scans, which hold a connection for long, leave some to writers, and both to readers.

    Args:
        settings: Where it connects to.

    Attributes:
        losses: How many connections broke.
        moments: Who holds a connection for a scan or a snapshot.
        writers: Who holds one for a write.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.losses = 0
        self.read_transactions = ConnectionQuota("scans and snapshots", settings, settings.connections // 2)
        self.writers = ConnectionQuota("writes", settings, settings.connections // 4)
        self._pool = ConnectionPool(
            settings.conninfo,
            kwargs={"autocommit": True, "prepare_threshold": None, "context": ADAPTERS},
            min_size=1,
            max_size=settings.connections,
            timeout=settings.lock_timeout,
            reconnect_timeout=_GIVE_UP,
            num_workers=_WORKERS,
            name="treehub-level",
            open=False,
        )
        self._pool.open()

    def close(self) -> None:
        """Close them all."""
        self._pool.close()

    def run(self, query: str, parameters: Sequence[object] = ()) -> Result:
        """What one statement gives that only reads, in a transaction of its own."""
        connection, rows = self.begin(query, parameters)
        self.give(connection)
        return rows

    def begin(self, query: str, parameters: Sequence[object] = ()) -> tuple[Connection, Result]:
        """Take a connection, and what the first statement on it gives, which must not write.

        A connection that turns out to be broken has been so for a while most likely, since the server began anew: the
        statement is run on another one then. Where there is no server any more, there is no other one, either.

        Raises:
            UnavailableError: There is no connection, or it was lost, or the server is too busy.
            StorageError: The statement failed.
        """
        for left in reversed(range(_ATTEMPTS)):
            connection = self._take()
            try:
                with translated(self.settings.label, connection):
                    return connection, execute(connection, query, parameters)
            except BaseException:
                again = left > 0 and connection.closed
                self.give(connection)
                if not again:
                    raise
        raise AssertionError("the last time it returns or raises")

    def give(self, connection: Connection) -> None:
        """Give a connection back. What was begun on it is undone."""
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        lost = connection.closed
        self._pool.putconn(connection)
        if lost:
            self.losses += 1
            self._pool.check()  # the others are lost too, most likely: they are replaced before they are used

    def _take(self) -> Connection:
        try:
            return self._pool.getconn(min(_SOON, self.settings.lock_timeout))
        except PoolTimeout:
            connect(self.settings).close()  # or it says why there is none
        try:
            return self._pool.getconn()
        except PoolTimeout as error:
            raise UnavailableError(
                f"all {self.settings.connections} connections to {self.settings.label} are in use: try again later, "
                "or open the store with more connections"
            ) from error
