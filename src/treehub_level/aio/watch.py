"""Watching on the event loop: an asynchronous iterator over changes, and callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from inspect import isawaitable
from typing import Any, Final

from ..blocking.watch import ChangesOfWatch, WatchTimeout, call_back, log_failure, logger, seconds_to_wait
from ..engine.watch import Watch
from ..errors import LevelError, NotOpenError, StateError
from ..types import Change
from .threads import answer, running_loop
from .wait import set_within
from .worker import Worker

#: The tasks of subscriptions. An event loop refers to its tasks weakly.
_TASKS: Final[set[asyncio.Task[None]]] = set()


class AsyncChangeIterator(ChangesOfWatch, AsyncIterator[Change]):
    """The changes of a watch. Made by ``watch()``.

    Leaving the loop ends the watch, and so does `aclose`. An iterator that is kept goes on where it
    stopped: a task that is cancelled, or whose time is over, loses no change.
    """

    def __init__(self, watch: Watch, worker: Worker, timeout: float | None = None) -> None:
        self._timeout = WatchTimeout(timeout)
        super().__init__(watch)
        self._worker = worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._filling: asyncio.Task[bool] | None = None

    def __aiter__(self) -> AsyncChangeIterator:
        return self

    async def __anext__(self) -> Change:
        watch = self._watch
        self._use(asyncio.get_running_loop())
        deadline = None if watch.buffer else self._timeout.deadline()
        while not watch.buffer:
            self._woken.clear()
            if not await self._fill():
                raise StopAsyncIteration
            if not (watch.buffer or watch.has_more):
                if deadline is not None and time.monotonic() >= deadline:
                    raise StopAsyncIteration
                await set_within(self._woken, seconds_to_wait(watch, deadline))
        return watch.buffer.popleft()

    def _use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the signals wake the event loop that waits this time."""
        if self._loop is loop:
            return
        event = self._woken = asyncio.Event()
        self._loop, self._filling = loop, None
        self._watch.wake = lambda: answer(loop, event.set)

    async def _fill(self) -> bool:
        """Fill the buffer, in a thread if it may take long. Return False if the watch has ended."""
        if self._filling is None:
            await self._worker.yield_if_due()
            if self._watch.fill_at_once():
                return True
            self._filling = asyncio.create_task(_fill_in_thread(self._watch, self._worker))
        # A cancelled caller leaves the task to the next one.
        is_open = await asyncio.shield(self._filling)
        self._filling = None
        return is_open

    async def aclose(self) -> None:
        """End the watch. Closing it again is harmless."""
        self._close()

    async def __aenter__(self) -> AsyncChangeIterator:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()


async def _fill_in_thread(watch: Watch, worker: Worker) -> bool:
    try:
        return await worker.read(watch.fill)
    except NotOpenError:
        return False


class AsyncSubscription:
    """A callback for the changes of a watch, on the running event loop. Made by ``on_change()``.

    Args:
        changes: The changes.
        callback: The callback: a function or a coroutine function.

    Raises:
        StateError: No event loop runs in this thread.
    """

    def __init__(self, changes: AsyncChangeIterator, callback: Callable[[Change], Any]) -> None:
        loop = running_loop()
        if loop is None:
            raise StateError("on_change() calls back on the event loop that calls it, and none runs in this thread")
        self._loop = loop
        self._is_over = False
        self._task = loop.create_task(self._run(changes, callback), name="treehub-level-changes")
        _TASKS.add(self._task)
        self._task.add_done_callback(_TASKS.discard)

    async def _run(self, changes: AsyncChangeIterator, callback: Callable[[Change], Any]) -> None:
        try:
            async for change in changes:
                if self._is_over:
                    return
                result = call_back(callback, change)
                if isawaitable(result):
                    try:
                        await result
                    except Exception:
                        log_failure(change)
                    except asyncio.CancelledError:
                        if self._is_over or (task := asyncio.current_task()) is None or _is_cancelled(task):
                            raise
                        log_failure(change)  # the callback has cancelled itself
        except LevelError as error:
            logger.error("the subscription to changes ends, since they cannot be read: %s", error)
        finally:
            await changes.aclose()

    def unsubscribe(self) -> None:
        """End the subscription. Any thread may call it. An awaited callback is cancelled."""
        self._is_over = True
        if running_loop() is self._loop:
            if self._task is not asyncio.current_task():
                self._task.cancel()
        else:
            answer(self._loop, self._task.cancel)


def _is_cancelled(task: asyncio.Task[Any]) -> bool:
    """Return True if the task itself was cancelled; Python 3.10 does not tell."""
    cancelling = getattr(task, "cancelling", None)
    return cancelling is None or cancelling() > 0
