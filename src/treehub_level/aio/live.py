"""`LiveSession`: a task that keeps a client in sync with its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from .. import blocking
from ..backends.base import SyncLock
from ..engine.store import Store
from ..errors import ForbiddenError, StateError, TransportError
from ..events import Event
from ..replication.driver import Finished, advance, transport_errors
from ..replication.live import LiveSessionBase
from ..replication.merging import OnConflict
from ..replication.messages import Request
from ..replication.schedule import PollResult, Task
from ..replication.session_events import SessionEvents
from ..replication.sync_locks import sync_lock
from ..tracing import sync_span
from ..types import SyncReport
from .driver import acquire, drive
from .reads_writes import documented_by
from .threads import answer, running_loop
from .wait import set_within
from .worker import Worker

#: Seconds after which a call in another event loop looks again: the session's may have stopped.
_PATIENCE: Final = 0.5


class _AsyncLongPoll(NamedTuple):
    """A long poll in flight."""

    session: Generator[Request, Any, PollResult]
    reply: asyncio.Task[Any]
    started: float


class _SyncWait(NamedTuple):
    """A call that waits for a sync.

    Attributes:
        ticket: The ticket of the sync.
        check: Raises StateError if the wait is in vain. Called under the lock.
    """

    ticket: int
    check: Callable[[], None]


class AsyncEventIterator(AsyncIterator[Event]):
    """The events of a live session. Made by ``events()``."""

    def __init__(self, events: SessionEvents) -> None:
        self._events = events
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._queue = events.listen()

    def __aiter__(self) -> AsyncEventIterator:
        return self

    async def __anext__(self) -> Event:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # wake the event loop that waits this time
            woken = self._woken = asyncio.Event()
            self._loop = loop
            self._queue.wake = lambda: answer(loop, woken.set)
        while True:
            self._woken.clear()
            is_over = self._events.is_over
            event = self._queue.take()
            if event is not None:
                return event
            if is_over:
                raise StopAsyncIteration
            await self._woken.wait()


@documented_by(blocking.LiveSession)
class LiveSession(LiveSessionBase):
    """Keeps a client in sync with its server for the length of an ``async with`` block.

    Made by ``live()``.
    """

    def __init__(
        self,
        store: Store,
        worker: Worker,
        exchange: Callable[..., Any],
        *,
        interval: float,
        on_reset: str,
        on_conflict: OnConflict | None = None,
    ) -> None:
        super().__init__(store, exchange, interval=interval, on_reset=on_reset, on_conflict=on_conflict)
        self._worker = worker
        self._woken = asyncio.Event()
        self._waiters: dict[asyncio.Future[None], _SyncWait] = {}
        self._poll: _AsyncLongPoll | None = None
        self._attempting: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---------------------------------------------------------------------------------- the session

    def pause(self) -> None:
        self._store.require_same_process()
        with self._lock:
            self._schedule.pause()
        self._on_own_loop(self._interrupt)
        self._resolve_waiters()

    def resume(self) -> None:
        self._store.require_same_process()
        with self._lock:
            self._raise_if_over()
            self._schedule.resume()
        self._on_own_loop(self._woken.set)

    async def in_sync(self, *, within: float | None = None) -> None:
        self._store.require_same_process()
        self._check_outside("in_sync() cannot wait")
        await self._wait_for_sync(within, self._raise_if_over)

    async def pushed(self, *, within: float | None = None) -> None:
        self._store.require_same_process()
        self._check_outside("pushed() cannot wait")
        wait = self._events.wait_for_push()
        await self._wait_for_sync(within, self._raise_if_stopped)
        self._raise_unless_pushed(wait)

    def events(self) -> AsyncEventIterator:
        return AsyncEventIterator(self._events)

    async def _wait_for_sync(self, within: float | None, check: Callable[[], None]) -> None:
        """Wait for a sync that begins after this call.

        Args:
            within: Seconds to wait; ``None`` for no limit.
            check: Raises an error if the wait is in vain. Called under the lock.
        """
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            check()
            self._waiters[waiter] = _SyncWait(self._take_ticket(), check)
        self._on_own_loop(self._woken.set)
        try:
            if not await self._wait_for(waiter, within):
                raise self._not_in_sync(within) from self._schedule.last_error
            waiter.result()
        finally:
            waiter.cancel()
            with self._lock:
                del self._waiters[waiter]

    async def __aenter__(self) -> LiveSession:
        self._enter()
        self._loop = asyncio.get_running_loop()
        self._runner = asyncio.create_task(self._run(), name="treehub-level-live")
        return self

    async def __aexit__(self, *exception: object) -> None:
        runner, loop = self._runner, self._loop
        if runner is None or loop is None or self._store.guard.closed_reason:
            return
        self._check_outside("a live session cannot be left")
        with self._lock:
            self._schedule.end()
        self._on_own_loop(self._end)
        if loop is asyncio.get_running_loop():
            await runner
            return
        ended = asyncio.get_running_loop().create_future()
        self._on_own_loop(lambda: runner.add_done_callback(lambda _: answer(ended.get_loop(), _settle, ended, None)))
        with suppress(StateError):  # the task never runs again, or ends as soon as its loop runs
            await self._wait_for(ended, None)
        self._store.remove_listener(self._on_commit)

    async def _wait_for(self, waiter: asyncio.Future[None], within: float | None) -> bool:
        """Wait for an answer of the session. Return False if there is none in time.

        Args:
            waiter: A future of the running event loop.
            within: Seconds to wait; ``None`` for no limit.

        Raises:
            StateError: The event loop of the session does not run, or no longer.
        """
        loop, own_loop = asyncio.get_running_loop(), self._loop
        assert own_loop is not None
        deadline = float("inf") if within is None else loop.time() + within
        while not waiter.done() and (rest := deadline - loop.time()) > 0:
            if not own_loop.is_running():
                raise StateError(
                    "cannot wait for the live session here: it belongs to the event loop that entered it, which is not "
                    "running now. Enter another session in this loop"
                )
            await asyncio.wait([waiter], timeout=_timeout(rest if own_loop is loop else min(rest, _PATIENCE)))
        return waiter.done()

    def __repr__(self) -> str:
        return f"<treehub_level live session, {self.state}>"

    def _check_outside(self, action: str) -> None:
        """Raise StateError in a task of the session: it would wait for itself."""
        reply = None if self._poll is None else self._poll.reply
        task = asyncio.current_task()
        if task is not None and task in (self._runner, self._attempting, reply):
            raise StateError(f"{action} here: this is a task of the live session, within its own work")

    # -------------------------------------------------------------------------------------- signals

    def _on_commit(self) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed, and the session with it
            self._loop.call_soon_threadsafe(self._woken.set if self._store.is_open else self._end)

    def _on_own_loop(self, function: Callable[[], object]) -> None:
        """Call a function on the event loop of the session: at once if it is the running one."""
        if self._loop is None or self._loop is running_loop():
            function()
        else:
            answer(self._loop, function)

    def _end(self) -> None:
        with self._lock:
            self._schedule.end()
        self._interrupt()

    def _interrupt(self) -> None:
        """Cancel the attempt in progress."""
        if self._attempting is not None:
            self._attempting.cancel()
        self._woken.set()

    def _resolve_waiters(self) -> None:
        """Resolve the waiters of `in_sync` that are served, or never will be."""
        with self._lock:
            for waiter, wait in self._waiters.items():
                if self._schedule.has_synced(wait.ticket):
                    answer(waiter.get_loop(), _settle, waiter, None)
                    continue
                try:
                    wait.check()
                except StateError as error:
                    answer(waiter.get_loop(), _settle, waiter, error)

    # ------------------------------------------------------------------------------------- its task

    async def _run(self) -> None:
        store = self._store
        try:
            self._listen()
            if not store.is_open:
                self._end()
            with self._live_lock() as lock:
                while await self._run_task(lock):
                    pass
        finally:
            store.remove_listener(self._on_commit)
            self._end()
            self._events.end()
            self._resolve_waiters()
            await self._drop_poll()

    async def _run_task(self, lock: SyncLock) -> bool:
        assert self._loop is not None
        self._woken.clear()
        self._take_turn(lock)
        if self._schedule.state == "idle":
            await self._attempt(self._check_both_sides())
        with self._lock:
            task = self._schedule.next_task(self._loop.time())
        if task is Task.SYNC:
            await self._attempt(self._sync())
        elif task is Task.POLL and self._poll is None:
            await self._attempt(self._start_poll())
        elif task is not Task.END:
            await self._rest()
        return task is not Task.END

    async def _rest(self) -> None:
        assert self._loop is not None
        if self._schedule.state != "idle":
            await self._drop_poll()
        due = self._schedule.due
        await set_within(self._woken, None if due is None else max(0, due - self._loop.time()))

    async def _check_both_sides(self) -> None:
        if await self._worker.read(self._has_changes):
            self._request_sync()
        if self._poll is not None and self._poll.reply.done():
            await self._finish_poll()

    async def _attempt(self, action: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        attempt = self._attempting = asyncio.create_task(action)
        try:
            await asyncio.wait([attempt])
        finally:
            self._attempting = None
            attempt.cancel()
        if not attempt.cancelled() and (error := attempt.exception()) is not None:
            await self._drop_poll()
            if not isinstance(error, Exception):
                raise error
            self._on_failure(error, self._loop.time())
        self._resolve_waiters()

    async def _sync(self) -> None:
        assert self._loop is not None
        report = SyncReport()
        session = self._sync_session(report, look_ahead=True)
        remaining: TransportError | ForbiddenError | None = None
        try:
            async with self._worker.sync_lock:
                with sync_lock(self._store, "sync") as lock:
                    await acquire(lock, timeout=None)
                    with sync_span(self._exchange, report):
                        await drive(self._worker, session, self._exchange, self._on_reply)
            if report.contended:  # to be pushed by another sync, at once
                self._request_sync()
                return
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        self._on_synced(self._loop.time(), remaining)

    async def _start_poll(self) -> None:
        assert self._loop is not None
        async with self._worker.sync_lock:
            with sync_lock(self._store, "sync") as lock:
                if not self._may_poll(lock, self._loop.time()):
                    return
                session = self._poll_session()
                request = await self._worker.write(advance, session)
        if isinstance(request, Finished):
            self._request_sync()
            return
        reply = asyncio.create_task(_awaited(self._exchange(request, wait=self._wait)))
        reply.add_done_callback(lambda _: self._woken.set())
        self._poll = _AsyncLongPoll(session, reply, self._loop.time())

    async def _finish_poll(self) -> None:
        assert self._poll is not None
        assert self._loop is not None
        session, reply, started = self._poll
        self._poll = None
        try:
            with transport_errors():
                message = await reply
            outcome = await self._worker.write(advance, session, message)
        finally:
            with suppress(ValueError):  # see `driver.drive`
                session.close()
        assert isinstance(outcome, Finished)
        now = self._loop.time()
        self._on_polled(outcome.result, now, elapsed=now - started)

    async def _drop_poll(self) -> None:
        if self._poll is not None:
            poll, self._poll = self._poll, None
            poll.reply.cancel()
            await asyncio.wait([poll.reply])
            if not poll.reply.cancelled():
                poll.reply.exception()  # or asyncio would log it
            poll.session.close()


def _timeout(seconds: float) -> float | None:
    """Return a timeout for asyncio, which takes ``None`` for no limit."""
    return None if seconds == float("inf") else seconds


def _settle(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


async def _awaited(reply: Awaitable[Any]) -> Any:
    return await reply
