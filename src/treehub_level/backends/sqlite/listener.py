"""The listener for commits of other processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ...locks import WakeUp, start_thread

#: Seconds between two polls for commits of other processes.
_POLL_SECONDS: Final = 0.03


class SQLiteListener:
    """A thread that polls for commits and calls a callback after them.

    Args:
        callback: Called after each commit.
        connect: Returns a new connection, which the thread uses alone.
    """

    def __init__(self, callback: Callable[[], None], connect: Callable[[], sqlite3.Connection]) -> None:
        self._callback = callback
        self._connect = connect
        self._stopped = WakeUp()
        self._ended = WakeUp()
        self._has_started = False

    def start(self) -> None:
        """Start the thread."""
        start_thread("treehub-level-sqlite-listen", self._run)
        self._has_started = True

    def request_stop(self) -> None:
        """Let the thread end soon."""
        self._stopped.set()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self.request_stop()
        if self._has_started:
            self._ended.wait()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        last_version = None
        while not self._stopped.wait(_POLL_SECONDS):
            with suppress(sqlite3.Error):  # locked, or out of file descriptors: try again at the next poll
                connection = connection or self._connect()
                version = connection.execute("PRAGMA data_version").fetchone()
                if version != last_version:
                    last_version = version
                    self._callback()
        if connection is not None:
            connection.close()
        self._ended.set()
