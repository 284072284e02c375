"""The only threads of an asyncio level: one that writes, a few that scan; drained before the store is closed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from ..backends.base import Entry
from ..engine.store import Store, Write
from ..errors import NotOpenError, StateError

P = ParamSpec("P")
T = TypeVar("T")

#: Scans that run at the same time; more of them wait. They share the GIL, so more threads would gain nothing.
_READERS = min(4, (os.cpu_count() or 1) + 1)

#: Larger writes than this, in bytes or entries, go through the thread: what that costs is little beside their own time.
_SMALL_BYTES = 16 * 1024
_SMALL_ENTRIES = 64

#: Seconds after which work on the event loop lets others have a turn, and calls between two looks at the clock.
_TURN = 0.001
_CALLS = 32


class _Awaited(Write):
    """A write that a task waits for."""

    __slots__ = ("future",)

    def __init__(self, entries: Sequence[Entry], durable: bool, future: asyncio.Future[None]) -> None:
        super().__init__(entries, durable)
        self.future = future


class Worker:
    """Runs what may block in threads, and brings the results back to the event loop.

    What takes microseconds and waits for nothing runs on the loop itself, since a hop to a thread and back takes ten
    times as long: reads of single keys, and small writes that find nobody ahead.

    Cancelling a task that waits does not cancel what it waits for: a write is made or not made, never half, and the CID
    moves with the commit.

    Args:
        store: The store whose calls it runs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.on_committed = self._wake
        self._inline_reads = store.backend.supports.inline_reads
        #: Whether a read of a few microseconds may run right here, as it is; if not, it goes through `quick`. Asked by
        #: each read: it is an iterator of C's since a method would take a tenth of the read's time.
        self.reads_inline: Callable[[], bool] = cycle([self._inline_reads] * (_CALLS - 1) + [False]).__next__
        self._accepting = False
        self._writer: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._steps: set[asyncio.Future[Any]] = set()
        self._commit_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writes = 0
        self._turned = 0.0

    @property
    def accepts(self) -> bool:
        """Whether it was started, and not yet told to stop."""
        return self._accepting

    async def start(self, opening: Callable[[], None], closing: Callable[[], None]) -> None:
        """Start the threads, and run ``opening`` in the one that writes; if it is cancelled, ``closing`` undoes it."""
        self._store.require_ours()
        if self._writer is not None:
            raise StateError(f"cannot open the level {self._store.backend.name!r}: it is open already")
        self._loop = asyncio.get_running_loop()
        writer = self._writer = ThreadPoolExecutor(1, "treehub-level-write")
        self._readers = ThreadPoolExecutor(_READERS, "treehub-level-read")
        try:
            await self._run(writer, opening)
        except asyncio.CancelledError:
            # The thread goes on opening: nobody would close the store, and nobody else could open it.
            try:
                with suppress(StateError):  # it could not be opened
                    await self._run(writer, closing)
            finally:
                self._end_threads()
            raise
        except BaseException:
            self._end_threads()
            raise
        self._accepting = True

    async def stop(self, closing: Callable[[], None]) -> None:
        """Refuse new calls, wait for those in flight, then run ``closing`` and end the threads."""
        if not self._accepting:
            raise StateError(f"cannot close the level {self._store.backend.name!r}: it is not open")
        self._store.require_ours()
        self._accepting = False
        await asyncio.shield(self._drain(closing))

    async def _drain(self, closing: Callable[[], None]) -> None:
        assert self._writer is not None
        try:
            while self._pending:
                await asyncio.wait(self._pending)
            await self._run(self._writer, closing)
        finally:
            self._end_threads()

    def _end_threads(self) -> None:
        for executor in (self._writer, self._readers):
            if executor is not None:
                executor.shutdown(wait=False)
        self._writer = self._readers = None

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that only reads, or that takes its own turns at writing, beside others."""
        return await self._run(self._ready(self._readers), function, *args, **kwargs)

    async def quick(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read of a few microseconds: in a thread if the backend needs one, which takes ten times as long."""
        if not self._inline_reads:
            return await self.read(function, *args, **kwargs)
        await self.breathe()
        return function(*args, **kwargs)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step that decides and writes, behind those that came before it."""
        step = self._submit(self._ready(self._writer), function, *args, **kwargs)
        self._steps.add(step)
        step.add_done_callback(self._steps.discard)
        return await asyncio.shield(step)

    async def commit(self, entries: Sequence[Entry], durable: bool) -> None:
        """Have entries written: right here if they are few and nobody is ahead, else together with all that waits.

        Cancelling it does not cancel the write, once it waits.
        """
        writer = self._ready(self._writer)
        if durable or self._steps or not _is_small(entries) or not self._store.commit_at_once(entries):
            write = _Awaited(entries, durable, asyncio.get_running_loop().create_future())
            self._store.enqueue(write)
            if not self._commit_scheduled:
                self._commit_scheduled = True
                writer.submit(self._commit_waiting)
            await write.future
            return
        self._writes += 1
        if self._writes % _CALLS == 0:
            await self.breathe()

    async def breathe(self) -> None:
        """Let the event loop turn, if this has not done so for a while: what runs on it must not starve the others."""
        if monotonic() - self._turned > _TURN:
            await asyncio.sleep(0)
            self._turned = monotonic()

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

    # ------------------------------------------------------------------------- in the thread that writes

    def _commit_waiting(self) -> None:
        self._commit_scheduled = False
        self._store.commit_waiting()

    def _wake(self, group: Sequence[Write]) -> None:
        """Writes are done: tell the loop, once for all of them."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_settle, group)


def _settle(group: Sequence[Write]) -> None:
    """Wake the tasks that wait for these writes. On the loop."""
    for write in group:
        if not isinstance(write, _Awaited) or write.future.done():
            continue  # it was cancelled, or a thread waits for it
        if write.error is None:
            write.future.set_result(None)
        else:
            write.future.set_exception(write.error)


def _is_small(entries: Sequence[Entry]) -> bool:
    if len(entries) > _SMALL_ENTRIES:
        return False
    size = 0
    for key, value in entries:
        size += len(key) if value is None else len(key) + len(value)
    return size <= _SMALL_BYTES


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Look at the error of a call, so that asyncio does not complain when the task that waited for it was cancelled."""
    if not future.cancelled():
        future.exception()
