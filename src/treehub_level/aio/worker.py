"""`Worker`: the threads of an asyncio level. One thread writes, a few read; all end before the store closes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from ..backends.base import Entry
from ..engine.store import PendingWrite, Store
from ..errors import NotOpenError, StateError

P = ParamSpec("P")
T = TypeVar("T")

#: Threads for scans. They share the GIL, so that more of them would not be faster.
_READERS = min(4, (os.cpu_count() or 1) + 1)

#: Seconds after which a task that works on the event loop yields to other tasks, and calls between two
#: looks at the clock.
_TURN_SECONDS = 0.001
_TURN_CALLS = 32


class _AwaitedWrite(PendingWrite):
    """A queued write that a task awaits."""

    __slots__ = ("future",)

    def __init__(self, entries: Sequence[Entry], durable: bool, future: asyncio.Future[None]) -> None:
        super().__init__(entries, durable)
        self.future = future


class Worker:
    """Runs blocking calls in threads, and returns their results to the event loop.

    Calls that take microseconds and never wait run on the loop itself, since a hop to a thread and back
    takes ten times as long: reads of single keys, and small writes that find no other writer.

    Cancelling a task does not cancel the call that it awaits. A write is made completely or not at all,
    and the CID moves with the commit.

    Args:
        store: The store that the calls use.

    Attributes:
        inline_reads_left: The number of single-key reads that may run on the loop before the next one
            must go through `read_key`; always 0 if the backend does not support inline reads.
        sync_lock: Held by the session that synchronises. It belongs to the event loop of this opening.
    """

    sync_lock: asyncio.Lock

    def __init__(self, store: Store) -> None:
        self._store = store
        store.on_committed = self._wake
        self._inline_reads = store.backend.supports.inline_reads
        self.inline_reads_left = 0
        self._accepting = False
        self._writer: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._steps: set[asyncio.Future[Any]] = set()
        self._commit_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inline_writes = 0
        self._last_yield = 0.0

    @property
    def accepts(self) -> bool:
        """True between `start` and `stop`."""
        return self._accepting

    async def start(self, open_store: Callable[[], None], close_store: Callable[[], None]) -> None:
        """Start the threads and open the store. If the task is cancelled, the store is closed again."""
        self._store.require_same_process()
        if self._writer is not None:
            raise StateError(f"cannot open the level {self._store.backend.name!r}: it is open already")
        self._loop = asyncio.get_running_loop()
        self.sync_lock = asyncio.Lock()
        writer = self._writer = ThreadPoolExecutor(1, "treehub-level-write")
        self._readers = ThreadPoolExecutor(_READERS, "treehub-level-read")
        try:
            await self._run(writer, open_store)
        except asyncio.CancelledError:
            # The thread goes on opening. Without this the store would stay open, and locked, for ever.
            try:
                with suppress(StateError):  # the opening failed
                    await self._run(writer, close_store)
            finally:
                self._end_threads()
            raise
        except BaseException:
            self._end_threads()
            raise
        self._accepting = True

    async def stop(self, close_store: Callable[[], None]) -> None:
        """Refuse new calls, wait for those in flight, close the store, and end the threads."""
        if not self._accepting:
            raise StateError(f"cannot close the level {self._store.backend.name!r}: it is not open")
        self._store.require_same_process()
        self._accepting = False
        await asyncio.shield(self._drain(close_store))

    async def _drain(self, close_store: Callable[[], None]) -> None:
        assert self._writer is not None
        try:
            while self._pending:
                await asyncio.wait(self._pending)
            await self._run(self._writer, close_store)
        finally:
            self._end_threads()

    def _end_threads(self) -> None:
        for executor in (self._writer, self._readers):
            if executor is not None:
                executor.shutdown(wait=False)
        self._writer = self._readers = None

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in a reading thread: one that only reads, or that waits for its turns to write."""
        return await self._run(self._ready(self._readers), function, *args, **kwargs)

    async def read_key(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read of microseconds: on the loop if the backend supports it, else in a reading thread."""
        if not self._inline_reads:
            return await self.read(function, *args, **kwargs)
        await self.yield_if_due()
        self.inline_reads_left = _TURN_CALLS - 1
        return function(*args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step that decides and writes in the writing thread, after the steps before it."""
        step = self._submit(self._ready(self._writer), function, *args, **kwargs)
        self._steps.add(step)
        step.add_done_callback(self._steps.discard)
        return await asyncio.shield(step)

    async def commit(self, entries: Sequence[Entry], durable: bool) -> None:
        """Commit entries: on the loop if that takes microseconds, else in the writing thread with others.

        Once a write is queued, cancelling this call does not cancel it.
        """
        writer = self._writer
        if not self._accepting or writer is None:
            raise self._store.not_open()
        if durable or self._steps or not self._store.commit_at_once(entries):
            write = _AwaitedWrite(entries, durable, asyncio.get_running_loop().create_future())
            self._store.enqueue(write)
            if not self._commit_scheduled:
                self._commit_scheduled = True
                writer.submit(self._commit_queued)
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

    def _ready(self, executor: ThreadPoolExecutor | None) -> ThreadPoolExecutor:
        if not self._accepting or executor is None:
            raise NotOpenError(f"the level {self._store.backend.name!r} is not open")
        self._store.require_open()
        return executor

    async def _run(self, executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.shield(self._submit(executor, function, *args, **kwargs))

    def _submit(
        self, executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        future = asyncio.get_running_loop().run_in_executor(executor, lambda: function(*args, **kwargs))
        future.add_done_callback(_retrieve)
        if self._accepting:
            self._pending.add(future)
            future.add_done_callback(self._pending.discard)
        return future

    # ------------------------------------------------------------------------------ in the writing thread

    def _commit_queued(self) -> None:
        self._commit_scheduled = False
        self._store.commit_queued()

    def _wake(self, group: Sequence[PendingWrite]) -> None:
        """Wake the tasks of a group commit, with one call to the loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_resolve, group)


def _resolve(group: Sequence[PendingWrite]) -> None:
    """Set the futures of these writes. Called on the loop."""
    for write in group:
        if not isinstance(write, _AwaitedWrite) or write.future.done():
            continue  # a thread waits for the write, or the task was cancelled
        if write.error is None:
            write.future.set_result(None)
        else:
            write.future.set_exception(write.error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Read the error of a call, or asyncio would log it when the awaiting task was cancelled."""
    if not future.cancelled():
        future.exception()
