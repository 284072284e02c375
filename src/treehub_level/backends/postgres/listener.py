"""Hearing of what other processes commit."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from typing import Final

import psycopg

from ...errors import StorageError
from .connections import Connection, connect, execute
from .settings import Settings
from .statements import ByteaArray, some_locks

#: Seconds between two looks at the locks: where nobody tells of commits, and where somebody does, in case that
#: another process was told not to.
_POLL: Final = 0.5
_POLL_TOLD: Final = 10.0
#: Seconds to wait after the connection was lost: the first time, and at most.
_RETRY: Final = (0.1, 5.0)

Heard = Callable[[], None]


class PostgresListener:
    """A thread with a connection of its own, which calls those who want to hear of a store's commits.

    Args:
        settings: Where the table is.
        listens: Whether the server tells of commits: otherwise it is asked.
    """

    def __init__(self, settings: Settings, *, listens: bool) -> None:
        self._settings = settings
        self._listens = listens
        self._lock = threading.Lock()
        self._heard: dict[str, list[Heard]] = {}
        self._thread: threading.Thread | None = None
        self._stopping = False
        #: The stores of whose commits nobody was told yet.
        self._told: set[str] = set()

    def add(self, store: str, heard: Heard) -> None:
        """Call ``heard`` after each commit to a store."""
        with self._lock:
            self._heard.setdefault(store, []).append(heard)
            if self._thread is None:
                self._asleep, self._waker = socket.socketpair()
                self._thread = threading.Thread(target=self._listen, name="treehub-level-listener", daemon=True)
                self._thread.start()

    def remove(self, store: str, heard: Heard) -> None:
        """Do not call it any more."""
        with self._lock:
            self._heard[store].remove(heard)
            if not self._heard[store]:
                del self._heard[store]

    def close(self) -> None:
        """End the thread."""
        thread = self._thread
        if thread is not None:
            self._stopping = True
            self._waker.send(b"\0")
            thread.join()
            self._waker.close()
            self._asleep.close()

    def _listen(self) -> None:
        first, most = _RETRY
        pause = first
        while not self._stopping:
            try:
                with connect(self._settings) as connection:
                    self._told.clear()
                    connection.add_notify_handler(lambda notify: self._told.add(notify.payload))
                    if self._listens:
                        connection.execute(f"LISTEN {self._settings.channel}")
                    self._hear(connection)
            except (StorageError, psycopg.Error):
                self._wait(pause)
                pause = min(2 * pause, most)
            else:
                pause = first

    def _hear(self, connection: Connection) -> None:
        """Pass on what comes over a connection, for as long as it lasts."""
        counts = self._counts(connection)
        self._told.update(self._stores())  # something may have been committed before there was this connection
        while not self._stopping:
            told, self._told = self._told, set()
            for store in told:
                self._notify(store)
            self._wait(_POLL_TOLD if self._listens else _POLL, connection)
            if not self._told:
                before, counts = counts, self._counts(connection)
                self._told.update(store for store, count in counts.items() if count != before.get(store))

    def _wait(self, seconds: float, connection: Connection | None = None) -> None:
        """Wait until something was told over a connection, or the time is over, or the end has come."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._asleep, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            selector.select(seconds)
        if connection is not None:
            connection.pgconn.consume_input()
            while told := connection.pgconn.notifies():
                self._told.add(told.extra.decode())

    def _counts(self, connection: Connection) -> dict[str, bytes]:
        """What is in the lock of each store now: it is another after each commit."""
        locks = ByteaArray([store.encode() for store in self._stores()])
        rows = execute(connection, some_locks(self._settings), (locks,))
        return {key.decode(): count for key, count in rows}

    def _stores(self) -> list[str]:
        with self._lock:
            return [*self._heard]

    def _notify(self, store: str) -> None:
        with self._lock:
            wanted = [*self._heard.get(store, ())]
        for heard in wanted:
            heard()
