"""Retention on the databases of a hub: a periodic task, and its totals for metrics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ...aio.level import Level, internals
from ...engine.retention import Retention, seconds_of
from ...engine.store import Store
from ...replication.retention import RetentionReport, flush_sightings, run_retention
from .periodic import PeriodicTask


class _RunEndedError(Exception):
    """The hub stops, needs the database closed, or needs room for another one."""


class RetainedDatabases(Protocol):
    """The part of a hub that retention uses."""

    def use(self, name: str) -> AbstractAsyncContextManager[Level]:
        """Provide a database, open for the length of the block."""

    def is_external(self, name: str) -> bool:
        """Return True if the program has opened the database itself."""

    def wants_closed(self, name: str) -> bool:
        """Return True if the use of the database should end."""


class HubRetention:
    """Keeps the logs of the databases in a hub's root small. Runs as a task of the hub.

    Args:
        hub: The hub.
        retention: The retention of each database.

    Attributes:
        totals: The work on each database since the start of the server, and the clients that its
            last run has left.
        task: The periodic task.
    """

    def __init__(self, hub: RetainedDatabases, retention: Retention) -> None:
        self._hub = hub
        self._retention = retention
        self.totals: dict[str, RetentionReport] = {}
        self.task = PeriodicTask("compaction", self._work, seconds_of(retention.every))

    def flush(self, store: Store) -> None:
        """Write the clients that a store has noted: see `flush_sightings`."""
        flush_sightings(store, self._retention)

    async def _work(self, database: str) -> None:
        """Run retention on one database, in a thread. A run that is interrupted goes on next time.

        A database that the program has opened itself has a retention of its own.
        """
        if self._hub.is_external(database):
            return
        stop = threading.Event()

        def pause(seconds: float) -> None:
            if stop.wait(seconds) or self._hub.wants_closed(database):
                raise _RunEndedError

        async with self._hub.use(database) as level:
            store = internals(level)[0].store
            running = asyncio.ensure_future(asyncio.to_thread(self._run, store, pause))
            try:
                report = await asyncio.shield(running)
            finally:
                stop.set()
                await asyncio.wait([running])
        if report is not None:
            self._add(database, report)

    def _run(self, store: Store, pause: Callable[[float], None]) -> RetentionReport | None:
        try:
            return run_retention(store, self._retention, pause)
        except _RunEndedError:
            return None

    def _add(self, database: str, report: RetentionReport) -> None:
        totals = self.totals.setdefault(database, RetentionReport())
        totals.dropped += report.dropped
        totals.forgotten += report.forgotten
        totals.clients = report.clients
