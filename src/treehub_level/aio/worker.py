"""`Worker`: the calls of an asyncio level, on the event loop or in its threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import ParamSpec, TypeVar

from ..backends.base import Entry
from ..engine.group_commit import PendingWrite
from ..engine.store import Store
from ..errors import NotOpenError, StateError
from .session_lock import SessionLock
from .threads import JobProgress, JobThreads, answer

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds after which a task that works on the event loop yields to other tasks, and calls between
#: two looks at the clock.
_TURN_SECONDS = 0.001
_TURN_CALLS = 32


class _AwaitedWrite(PendingWrite):
    """A queued write that a task awaits."""

    __slots__ = ("future",)

    def __init__(
        self,
        entries: Sequence[Entry],
        durable: bool,
        is_batch: bool,
        principal: str | None,
        future: asyncio.Future[None],
    ) -> None:
        super().__init__(entries, durable, is_batch, principal)
        self.future = future


class Worker:
    """Runs blocking calls in threads, and returns their results to the event loop that asked.

    Calls that take microseconds and never wait run on the loop itself, since a hop to a thread and
    back takes ten times as long: reads of single keys, and small writes that find no other writer.

    Cancelling a task does not cancel the call that it awaits. A write is made completely or not at
    all, and the CID moves with the commit.

    The loop that opens the level need not be the one that uses it: nothing here belongs to a loop
    but the futures of the calls in flight.

    Args:
        store: The store that the calls use.

    Attributes:
        inline_reads_left: The number of single-key reads that may run on the loop before the next
            one must go through `read_key`; always 0 if the backend does not support inline reads.
        sync_lock: Held by the session that synchronises.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.queue.on_committed = _wake
        self._inline_reads = store.backend.supports.inline_reads
        self.inline_reads_left = 0
        self.sync_lock = SessionLock(f"synchronise the level {store.backend.name!r}")
        self._threads: JobThreads | None = None
        #: Steps in the writing thread. Those that have ended are removed by the next look.
        self._steps: set[JobProgress] = set()
        self._committing: JobProgress | None = None
        self._inline_writes = 0
        self._last_yield = 0.0

    @property
    def accepts(self) -> bool:
        """True between `start` and `stop`."""
        return self._threads is not None and self._threads.accepts

    async def start(self, open_store: Callable[[], None], close_store: Callable[[], None]) -> None:
        """Start the threads and open the store.

        If the task is cancelled, the store is closed again.
        """
        self._store.require_same_process()
        if self._threads is not None:
            raise StateError(f"cannot open the level {self._store.backend.name!r}: it is open already")
        threads = self._threads = JobThreads()

        def open_and_accept() -> None:
            try:
                open_store()
            except BaseException:
                threads.end()
                self._threads = None
                raise
            threads.accepts = not threads.closing

        try:
            await threads.write(open_and_accept).future
        except asyncio.CancelledError:
            # The thread goes on opening. Without this the store would stay open, and locked, for
            # ever.
            await asyncio.wait([self._close(threads, close_store)])
            raise

    async def stop(self, close_store: Callable[[], None]) -> None:
        """Refuse new calls, wait for those in flight, close the store, and end the threads."""
        self._store.require_same_process()
        threads = self._threads
        if threads is None or threads.closing:
            raise StateError(f"cannot close the level {self._store.backend.name!r}: it is not open")
        self._store.guard.raise_if_inside()
        await self._close(threads, close_store)

    def _close(self, threads: JobThreads, close_store: Callable[[], None]) -> asyncio.Future[None]:
        def close() -> None:
            if self._store.needs_close:  # else the opening failed
                close_store()

        return threads.close(close, partial(setattr, self, "_threads", None)).future

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that reads, or that takes its own turns at writing, in a reading thread."""
        return await self._ready().read(partial(function, *args, **kwargs)).future

    async def read_key(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a short read: on the loop if the backend supports that, else in a reading thread."""
        if not self._inline_reads:
            return await self.read(function, *args, **kwargs)
        await self.yield_if_due()
        self.inline_reads_left = _TURN_CALLS - 1
        return function(*args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step that decides and writes in the writing thread, after the steps before it."""
        step = self._ready().write(partial(function, *args, **kwargs))
        self._steps.add(step.progress)
        return await step.future

    async def commit(
        self, entries: Sequence[Entry], durable: bool, is_batch: bool = False, principal: str | None = None
    ) -> None:
        """Commit entries: on the loop if that takes microseconds, else in the writing thread.

        Once a write is queued, cancelling this call does not cancel it. The arguments are those of
        `Store.commit`.
        """
        threads = self._threads
        if threads is None or not threads.accepts:
            raise self._store.not_open()
        if self._steps:
            self._steps -= {step for step in tuple(self._steps) if step.ended}
        at_once = not (durable or self._steps or principal is not None)
        if not (at_once and self._store.commit_at_once(entries, is_batch)):
            future = asyncio.get_running_loop().create_future()
            write = _AwaitedWrite(entries, durable, is_batch, principal, future)
            self._store.enqueue(write)
            if self._committing is None or self._committing.begun:
                # Assigned last: interrupted before, the next write makes another job.
                self._committing = threads.write(self._store.commit_queued).progress
            await write.future
            return
        self._inline_writes += 1
        if self._inline_writes % _TURN_CALLS == 0:
            await self.yield_if_due()

    async def yield_if_due(self) -> None:
        """Yield to other tasks on the event loop, unless that has just happened."""
        if monotonic() - self._last_yield > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._last_yield = monotonic()

    def _ready(self) -> JobThreads:
        threads = self._threads
        if threads is None or not threads.accepts:
            raise NotOpenError(f"the level {self._store.backend.name!r} is not open")
        self._store.require_open()
        self._store.raise_if_in_function()
        return threads


def _wake(group: Sequence[PendingWrite]) -> None:
    """Wake the tasks of a group commit, with one call to each of their loops."""
    awaited = [write for write in group if isinstance(write, _AwaitedWrite)]
    for loop in {write.future.get_loop() for write in awaited}:
        answer(loop, _resolve, [write for write in awaited if write.future.get_loop() is loop])


def _resolve(group: Sequence[_AwaitedWrite]) -> None:
    """Set the futures of these writes. Called on their loop."""
    for write in group:
        if write.future.done():
            continue  # the task was cancelled
        error = write.outcome()
        if error is None:
            write.future.set_result(None)
        else:
            write.future.set_exception(error)
