"""The listener for commits of other processes."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Final

import psycopg

from ...errors import StorageError
from ...locks import ErrorCheckingLock, WakeUp, start_thread
from .pool import Connection, connect, execute
from .settings import Settings
from .statements import ByteaArray, select_locks

#: Seconds between two polls of the lock rows, without LISTEN and with it. With LISTEN polling is
#: still needed, since another process may have been opened with ``notify=False``.
_POLL_SECONDS: Final = 0.5
_POLL_SECONDS_LISTENING: Final = 10.0
#: Seconds to wait before reconnecting: the first delay and the longest; the delay doubles each
#: time.
_BACKOFF: Final = (0.1, 5.0)

Callback = Callable[[], None]


class PostgresListener:
    """A thread with a connection of its own, which calls the registered callbacks after commits.

    Args:
        settings: The settings of the table.
        can_listen: True to use LISTEN; false to poll the lock rows only.
    """

    def __init__(self, settings: Settings, *, can_listen: bool) -> None:
        self._settings = settings
        self._can_listen = can_listen
        self._lock = ErrorCheckingLock("change the listeners of a table in PostgreSQL")
        self._callbacks: dict[str, list[Callback]] = {}
        self._is_running = False
        self._ended = WakeUp()
        self._stopping = False
        #: The stores with a commit for which no callback was called yet.
        self._pending: set[str] = set()

    def add(self, store: str, callback: Callback) -> None:
        """Register a callback for the commits to a store. The first call starts the thread."""
        with self._lock.entry():
            self._callbacks.setdefault(store, []).append(callback)
            if not self._is_running:
                self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
                start_thread("treehub-level-listener", self._run)
                self._is_running = True

    def remove(self, store: str, callback: Callback) -> None:
        """Undo one ``add`` of the same arguments."""
        with self._lock.entry():
            self._callbacks[store].remove(callback)
            if not self._callbacks[store]:
                del self._callbacks[store]

    def close(self) -> None:
        """Stop the thread and wait for it."""
        if self._is_running:
            self._stopping = True
            self._wakeup_sender.send(b"\0")
            self._ended.wait()
            self._wakeup_sender.close()
            self._wakeup_receiver.close()

    def _run(self) -> None:
        first_delay, longest_delay = _BACKOFF
        delay = first_delay
        while not self._stopping:
            try:
                with connect(self._settings) as connection:
                    self._pending.clear()
                    connection.add_notify_handler(lambda notify: self._pending.add(notify.payload))
                    if self._can_listen:
                        connection.execute(f"LISTEN {self._settings.channel}")
                    self._listen_on(connection)
            except (StorageError, psycopg.Error):
                self._wait(delay)
                delay = min(2 * delay, longest_delay)
            else:
                delay = first_delay
        self._ended.set()

    def _listen_on(self, connection: Connection) -> None:
        """Call the callbacks until this listener is closed or the connection is lost."""
        counters = self._commit_counters(connection)
        self._pending.update(self._stores())  # commits may have happened before this connection was made
        while not self._stopping:
            pending, self._pending = self._pending, set()
            for store in pending:
                self._call(store)
            self._wait(_POLL_SECONDS_LISTENING if self._can_listen else _POLL_SECONDS, connection)
            if not self._pending:
                before, counters = counters, self._commit_counters(connection)
                self._pending.update(store for store, counter in counters.items() if counter != before.get(store))

    def _wait(self, seconds: float, connection: Connection | None = None) -> None:
        """Wait for a notification or for ``close()``, at most ``seconds``."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup_receiver, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            selector.select(seconds)
        if connection is not None:
            connection.pgconn.consume_input()
            while notification := connection.pgconn.notifies():
                self._pending.add(notification.extra.decode())

    def _commit_counters(self, connection: Connection) -> dict[str, bytes]:
        """Return the value of each store's lock row, which changes with each commit."""
        locks = ByteaArray([store.encode() for store in self._stores()])
        rows = execute(connection, select_locks(self._settings), (locks,))
        return {key.decode(): counter for key, counter in rows}

    def _stores(self) -> list[str]:
        with self._lock.entry():
            return [*self._callbacks]

    def _call(self, store: str) -> None:
        with self._lock.entry():
            callbacks = [*self._callbacks.get(store, ())]
        for callback in callbacks:
            callback()
