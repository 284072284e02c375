"""The only threads of an asyncio level: one that writes, a few that scan; drained before the store is closed."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from .backends.base import Entry
from .blocking._store import Store, Write
from .errors import NotOpenError, StateError

P = ParamSpec("P")
T = TypeVar("T")

#: Scans that run at the same time; more of them wait. They share the GIL, so more threads would gain nothing.
_READERS = min(4, (os.cpu_count() or 1) + 1)


class Worker:
    """Runs what may block in threads, and brings the results back to the event loop.

    Cancelling a task that waits does not cancel what it waits for: a write is made or not made, never half, and the CID
    moves with the commit, in the thread that commits.

    Args:
        store: The store whose calls it runs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._accepting = False
        self._writer: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._commit_scheduled = False
        self._settled: deque[tuple[asyncio.Future[None], BaseException | None]] = deque()
        self._waking = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, opening: Callable[[], None], closing: Callable[[], None]) -> None:
        """Start the threads, and run ``opening`` in the one that writes; if it is cancelled, ``closing`` undoes it."""
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

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step that decides and writes, behind those that came before it."""
        return await self._run(self._ready(self._writer), function, *args, **kwargs)

    async def quick(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read of a few microseconds: right here if the backend can, a thread would cost ten times as much."""
        if self._store.backend.supports.inline_reads:
            return function(*args, **kwargs)
        return await self.read(function, *args, **kwargs)

    async def commit(self, entries: Sequence[Entry], durable: bool) -> None:
        """Have entries written, together with all else that waits to be."""
        writer = self._ready(self._writer)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._store.enqueue(Write(entries, durable, lambda write: self._wake(future, write.error)))
        self._pending.add(future)
        future.add_done_callback(_retrieve)
        if not self._commit_scheduled:
            self._commit_scheduled = True
            writer.submit(self._commit_waiting)
        # Shielded: the write goes on if its task is cancelled, and closing still waits for it.
        await asyncio.shield(future)

    def _ready(self, executor: ThreadPoolExecutor | None) -> ThreadPoolExecutor:
        if not self._accepting or executor is None:
            raise NotOpenError(f"the level {self._store.backend.name!r} is not open")
        return executor

    async def _run(self, executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        future = asyncio.get_running_loop().run_in_executor(executor, lambda: function(*args, **kwargs))
        future.add_done_callback(_retrieve)
        if self._accepting:
            self._pending.add(future)
            future.add_done_callback(self._pending.discard)
        return await asyncio.shield(future)

    # ------------------------------------------------------------------------- in the thread that writes

    def _commit_waiting(self) -> None:
        self._commit_scheduled = False
        self._store.commit_waiting()

    def _wake(self, future: asyncio.Future[None], error: BaseException | None) -> None:
        """A write is done: tell the loop, once for all that are done before it looks."""
        self._settled.append((future, error))
        if not self._waking:
            self._waking = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._settle)

    # ------------------------------------------------------------------------------------- on the loop

    def _settle(self) -> None:
        self._waking = False
        while self._settled:
            future, error = self._settled.popleft()
            self._pending.discard(future)
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Look at the error of a call, so that asyncio does not complain when the task that waited for it was cancelled."""
    if not future.cancelled():
        future.exception()
