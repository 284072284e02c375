"""Work that a server repeats for each of its databases, such as compaction and backups."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from ...engine import clock
from ...errors import CorruptionError, DecodeError, LevelError, StateError
from .refusals import RefusedError, database_not_found

#: The part of the period by which a turn may begin earlier or later, at random: servers that were
#: started together do not work at the same moments.
_JITTER: Final = 0.1
#: Seconds after the start of a server at which a task has its first turn, unless its period is
#: shorter. A server that is restarted often gets its tasks done, too.
_FIRST_AFTER: Final = 60.0
#: Seconds for which the end of cancelled work is awaited.
_CANCEL_SECONDS: Final = 1.0

logger = logging.getLogger("treehub_level.http")


class TaskClock:
    """The time, for periodic tasks. Tests have another one."""

    def monotonic(self) -> float:
        """Return the seconds since some moment. They never go back."""
        return time.monotonic()

    def now(self) -> float:
        """Return the seconds since 1970-01-01 UTC, for people: nothing is decided by them."""
        return clock.unix_ms() / 1000

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class TaskRecord:
    """The runs of a periodic task for one database, for metrics. Times are seconds since 1970.

    Attributes:
        is_running: True during a run.
        runs: The number of runs that have ended; those that were cancelled do not count.
        failures: The number of them that have failed.
        started_at: The time at which the last run began; ``None`` before the first.
        succeeded_at: The time at which the last successful run ended; ``None`` before the first.
        seconds: The duration of the last run that has ended; ``None`` before the first.
        error: The reason why the last run that has ended failed; ``None`` if it succeeded.
    """

    is_running: bool = False
    runs: int = 0
    failures: int = 0
    started_at: float | None = None
    succeeded_at: float | None = None
    seconds: float | None = None
    error: str | None = None


class PeriodicTask:
    """Work that is repeated for each database: see `PeriodicTasks.add`.

    Args:
        name: The name of the work, for the log and for metrics: a noun, such as ``"compaction"``.
        work: An async function of the name of a database. It is cancelled when the server stops,
            so it must not run long without an ``await``: blocking calls belong in threads, in
            parts of less than a second.
        every: Seconds from the beginning of one turn to that of the next, on average. A turn that
            takes longer is followed by the next one at once.
        first_after: Seconds from the start of the server to the first turn, on average; ``None``
            for a minute, or for ``every`` if that is shorter.

    Attributes:
        records: The runs by database. A database that is deleted is removed at the next turn.

    Raises:
        ValueError: ``every`` is not above 0, or ``first_after`` is negative.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[str], Awaitable[object]],
        every: float,
        *,
        first_after: float | None = None,
    ) -> None:
        first_after = min(every, _FIRST_AFTER) if first_after is None else first_after
        if not (every > 0 and first_after >= 0):
            raise ValueError(f"the {name} runs every {every} seconds after {first_after}: give positive numbers")
        self.name = name
        self.every = every
        self.first_after = first_after
        self.records: dict[str, TaskRecord] = {}
        self._work = work

    async def run(self, database: str, time: TaskClock) -> None:
        """Do the work for one database, and record and log the outcome. Only `PeriodicTasks` calls.

        The same failure is logged once, however often it is repeated. A database that was deleted
        meanwhile is no failure.
        """
        record = self.records.setdefault(database, TaskRecord())
        before = record.error
        begin, record.started_at, record.is_running = time.monotonic(), time.now(), True
        try:
            await self._work(database)
            record.error, record.succeeded_at = None, time.now()
        except Exception as error:
            if _is_gone(error):
                self.records.pop(database, None)
                return
            record.error = reason_of(error)
            record.failures += 1
        finally:
            record.is_running = False
        record.runs += 1
        record.seconds = time.monotonic() - begin
        if record.error is not None and record.error != before:
            logger.error(
                "%s of database %s failed, and is tried again at its next turn: %s", self.name, database, record.error
            )
        elif before is not None and record.error is None:
            logger.info("%s of database %s succeeds again", self.name, database)


class PeriodicTasks:
    """The periodic tasks of a server. In each of its turns, a task goes through all databases.

    At most one task works on a database at a time; others wait for it. `Hub.tasks` starts with its
    hub, and ends when the hub stops.

    Args:
        databases: Returns the names of the databases. It may block: a thread calls it.
        time: The clock.
    """

    def __init__(self, databases: Callable[[], Iterable[str]], time: TaskClock | None = None) -> None:
        self._databases = databases
        self._time = time or TaskClock()
        self._tasks: list[PeriodicTask] = []
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: The task of the event loop for each periodic task; ``None`` unless they run.
        self._running: dict[str, asyncio.Task[None]] | None = None

    def __iter__(self) -> Iterator[PeriodicTask]:
        """Iterate over the tasks, in the order in which they were added."""
        return iter(tuple(self._tasks))

    def add(self, task: PeriodicTask) -> None:
        """Add a task, before the start or while the others run.

        Raises:
            StateError: There is a task of that name.
        """
        if any(task.name == other.name for other in self._tasks):
            raise StateError(f"this server has a periodic task {task.name!r} already")
        self._tasks.append(task)
        if self._running is not None:
            self._begin(self._running, task)

    def start(self) -> None:
        """Begin the tasks, on the running event loop."""
        self._locks = WeakValueDictionary()  # locks belong to one event loop
        self._running = {}
        for task in self._tasks:
            self._begin(self._running, task)

    def _begin(self, running: dict[str, asyncio.Task[None]], task: PeriodicTask) -> None:
        running[task.name] = asyncio.ensure_future(self._repeat(task))

    def cancel(self) -> None:
        """Cancel all tasks: `wait_closed` waits for them. Further calls have no effect."""
        for running in (self._running or {}).values():
            running.cancel()

    async def wait_closed(self) -> None:
        """Cancel all tasks, and wait a second at most for the end of their work."""
        self.cancel()
        running, self._running = self._running, None
        if not running:
            return
        await asyncio.wait(running.values(), timeout=_CANCEL_SECONDS)
        for name, left in running.items():
            if not left.done():
                logger.error("%s goes on although it was cancelled", name)

    @asynccontextmanager
    async def alone(self, database: str) -> AsyncIterator[None]:
        """Keep the tasks from a database, for the length of the block: wait for one that runs."""
        lock = self._locks.setdefault(database, asyncio.Lock())
        async with lock:
            yield

    async def run(self, task: PeriodicTask, database: str) -> None:
        """Run a task for one database now, apart from its turns.

        It does not raise the errors of the work: they are in the record of the task.
        """
        async with self.alone(database):
            await task.run(database, self._time)

    async def _repeat(self, task: PeriodicTask) -> None:
        due = self._time.monotonic() + _jittered(task.first_after)
        while True:
            await self._time.sleep(max(0.0, due - self._time.monotonic()))
            due = self._time.monotonic() + _jittered(task.every)
            await self._turn(task)

    async def _turn(self, task: PeriodicTask) -> None:
        try:
            names = [*await asyncio.to_thread(self._databases)]
        except (LevelError, OSError) as error:
            logger.error("%s is left out, since the databases cannot be listed: %s", task.name, reason_of(error))
            return
        for name in task.records.keys() - set(names):
            del task.records[name]
        for name in names:
            await self.run(task, name)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, RefusedError) and error.code == database_not_found().code


def reason_of(error: Exception) -> str:
    """Return the reason of an error for the log and for metrics, without a stored key or value."""
    code = error.code if isinstance(error, LevelError) else type(error).__name__
    if isinstance(error, (CorruptionError, DecodeError)) or not isinstance(error, (LevelError, OSError)):
        return code
    return f"{code}: {error}"
