"""`LiveSession`: a task that keeps a client in sync with its server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, NamedTuple

from .. import blocking
from ..engine.store import Store
from ..errors import ForbiddenError, StateError, TransportError
from ..replication.driver import Finished, advance, transport_errors
from ..replication.live import LiveSessionBase
from ..replication.messages import Request
from ..replication.schedule import PollResult, Task
from .driver import drive
from .reads_writes import documented_by
from .threads import answer, running_loop
from .wait import set_within
from .worker import Worker


class _AsyncLongPoll(NamedTuple):
    """A long poll in flight."""

    session: Generator[Request, Any, PollResult]
    reply: asyncio.Task[Any]
    started: float


@documented_by(blocking.LiveSession)
class LiveSession(LiveSessionBase):
    """Keeps a client in sync with its server for the length of an ``async with`` block.

    Made by ``live()``.
    """

    def __init__(
        self, store: Store, worker: Worker, exchange: Callable[..., Any], *, interval: float, on_reset: str
    ) -> None:
        super().__init__(store, exchange, interval=interval, on_reset=on_reset)
        self._worker = worker
        self._woken = asyncio.Event()
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._poll: _AsyncLongPoll | None = None
        self._attempting: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---------------------------------------------------------------------------------- the session

    def pause(self) -> None:
        self._schedule.pause()
        self._on_own_loop(self._interrupt)

    def resume(self) -> None:
        if self._schedule.is_over:
            raise self._over()
        self._schedule.resume()
        self._on_own_loop(self._woken.set)

    async def in_sync(self, *, within: float | None = None) -> None:
        if self._schedule.is_over:
            raise self._over()
        loop = self._loop
        if loop is not None and not loop.is_running():
            raise StateError(
                "in_sync() cannot wait here: the live session belongs to the event loop that entered it, which is not "
                "running now. Enter another session in this loop"
            )
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = self._schedule.take_ticket()
        self._on_own_loop(self._woken.set)
        try:
            await asyncio.wait_for(waiter, within)
        except asyncio.TimeoutError:
            raise self._not_in_sync(within) from self._schedule.last_error
        finally:
            self._waiters.pop(waiter, None)

    async def __aenter__(self) -> LiveSession:
        self._store.client("live")
        self._loop = asyncio.get_running_loop()
        self._runner = asyncio.create_task(self._run(), name="treehub-level-live")
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._runner is None or self._loop is None:
            return
        if self._loop is asyncio.get_running_loop():
            self._end()
            await self._runner
            return
        self._schedule.end()
        self._on_own_loop(self._end)
        if self._loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_wait_for(self._runner), self._loop))
        else:  # the task never runs again, or ends as soon as its loop runs
            self._store.remove_listener(self._on_commit)

    def __repr__(self) -> str:
        return f"<treehub_level live session, {self.state}>"

    # -------------------------------------------------------------------------------------- signals

    def _on_commit(self) -> None:
        """React to a commit, or to the closing of the store. Called from any thread."""
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
        self._schedule.end()
        self._interrupt()

    def _interrupt(self) -> None:
        """Cancel the attempt in progress."""
        if self._attempting is not None:
            self._attempting.cancel()
        self._woken.set()

    def _resolve_waiters(self) -> None:
        """Resolve the waiters of `in_sync` that are served, or never will be."""
        for waiter, ticket in tuple(self._waiters.items()):
            if self._schedule.has_synced(ticket):
                answer(waiter.get_loop(), _settle, waiter, None)
            elif self._schedule.is_over:
                answer(waiter.get_loop(), _settle, waiter, self._over())

    # ------------------------------------------------------------------------------------- its task

    async def _run(self) -> None:
        store = self._store
        store.add_listener(self._on_commit)
        try:
            if not store.is_open:
                self._end()
            while await self._run_task():
                pass
        finally:
            store.remove_listener(self._on_commit)
            self._end()
            await self._drop_poll()
            self._resolve_waiters()

    async def _run_task(self) -> bool:
        assert self._loop is not None
        self._woken.clear()
        if self._schedule.state == "idle":
            await self._attempt(self._check_both_sides())
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
            self._schedule.request_sync()
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
            if not self._store.is_open:
                self._schedule.end()
            self._schedule.on_failure(error, self._loop.time())
        self._resolve_waiters()

    async def _sync(self) -> None:
        assert self._loop is not None
        session = self._sync_session(look_ahead=True)
        remaining: TransportError | ForbiddenError | None = None
        try:
            async with self._worker.sync_lock:
                await drive(self._worker, session, self._exchange, self._schedule.on_reply)
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        self._schedule.on_synced(self._loop.time(), remaining)

    async def _start_poll(self) -> None:
        assert self._loop is not None
        session = self._poll_session()
        request = await self._worker.write(advance, session)
        if isinstance(request, Finished):
            self._schedule.request_sync()
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
        self._schedule.on_polled(outcome.result, now, elapsed=now - started, wait=self._wait)

    async def _drop_poll(self) -> None:
        if self._poll is not None:
            poll, self._poll = self._poll, None
            poll.reply.cancel()
            await asyncio.wait([poll.reply])
            if not poll.reply.cancelled():
                poll.reply.exception()  # or asyncio would log it
            poll.session.close()


async def _wait_for(runner: asyncio.Task[None]) -> None:
    await asyncio.wait([runner])


def _settle(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


async def _awaited(reply: Awaitable[Any]) -> Any:
    return await reply
