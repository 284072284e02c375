"""A live session on the event loop: the twin of the one in ``blocking``, which decides what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ..blocking.live import LiveSession as BlockingLiveSession
from ..errors import ForbiddenError, TransportError
from ..replication.driver import Finished, advance, transport_errors
from ..replication.limits import PushLimits
from ..replication.live import WAIT, check_options, not_in_sync, session_is_over, takes_wait
from ..replication.messages import Request
from ..replication.schedule import LiveSchedule, LiveState, PollResult, Task
from .reads_writes import documented_by
from .wait import set_within

if TYPE_CHECKING:
    from .level import Level


class _Poll(NamedTuple):
    """A question for news that is on its way."""

    session: Generator[Request, Any, PollResult]
    reply: asyncio.Task[Any]
    started: float


@documented_by(BlockingLiveSession)
class LiveSession:
    """Keeps a client in sync with its server while its ``async with`` block lasts. Made by ``live()``."""

    def __init__(self, level: Level, exchange: Callable[..., Any], *, interval: float, on_reset: str) -> None:
        self._level = level
        self._blocking = level._blocking
        self._exchange = exchange
        self._wait = WAIT if takes_wait(exchange) else 0
        self._on_reset = check_options(interval, on_reset)
        self._schedule = LiveSchedule(interval=interval, can_wait=self._wait > 0)
        self._limits = PushLimits()
        self._stirred = asyncio.Event()
        self._waiters: dict[asyncio.Future[None], int] = {}
        self._poll: _Poll | None = None
        self._job: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------------------------------------ the session

    @property
    def state(self) -> LiveState:
        return self._schedule.state

    @property
    def last_error(self) -> Exception | None:
        return self._schedule.last_error

    @property
    def pending_push(self) -> int:
        return self._blocking.pending()

    def pause(self) -> None:
        self._schedule.pause()
        self._interrupt()

    def resume(self) -> None:
        if self._schedule.is_over:
            raise session_is_over(self._schedule)
        self._schedule.resume()
        self._stirred.set()

    async def in_sync(self, *, within: float | None = None) -> None:
        if self._schedule.is_over:
            raise session_is_over(self._schedule)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = self._schedule.take_ticket()
        self._stirred.set()
        try:
            await asyncio.wait_for(waiter, within)
        except asyncio.TimeoutError:
            raise not_in_sync(within, self._schedule) from self._schedule.last_error
        finally:
            self._waiters.pop(waiter, None)

    async def __aenter__(self) -> LiveSession:
        self._blocking._client("live")
        self._loop = asyncio.get_running_loop()
        self._runner = asyncio.create_task(self._run(), name="treehub-level-live")
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._end()
        if self._runner is not None:
            await self._runner

    def __repr__(self) -> str:
        return f"<treehub_level live session, {self.state}>"

    # --------------------------------------------------------------------------------------------- signals

    def _notify(self) -> None:
        """The store has changed, or is closing. Called from any thread."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed, and the session with it
            self._loop.call_soon_threadsafe(self._stirred.set if self._blocking.is_open else self._end)

    def _end(self) -> None:
        self._schedule.end()
        self._interrupt()

    def _interrupt(self) -> None:
        """Give up what is on its way."""
        if self._job is not None:
            self._job.cancel()
        self._stirred.set()

    def _settle(self) -> None:
        """Wake those who wait to be in sync, if they are, or never will be."""
        for waiter, ticket in self._waiters.items():
            if waiter.done():
                continue
            if self._schedule.has_synced(ticket):
                waiter.set_result(None)
            elif self._schedule.is_over:
                waiter.set_exception(session_is_over(self._schedule))

    # ---------------------------------------------------------------------------------------------- its task

    async def _run(self) -> None:
        store = self._blocking._store
        store.add_listener(self._notify)
        try:
            if not store.is_open:
                self._end()
            while await self._go_on():
                pass
        finally:
            store.remove_listener(self._notify)
            self._end()
            await self._drop_poll()
            self._settle()

    async def _go_on(self) -> bool:
        assert self._loop is not None
        self._stirred.clear()
        if self._schedule.state == "idle":
            await self._attempt(self._look())
        task = self._schedule.next_task(self._loop.time())
        if task is Task.SYNC:
            await self._attempt(self._sync())
        elif task is Task.POLL and self._poll is None:
            await self._attempt(self._ask())
        elif task is not Task.END:
            await self._rest()
        return task is not Task.END

    async def _rest(self) -> None:
        assert self._loop is not None
        if self._schedule.state != "idle":
            await self._drop_poll()
        due = self._schedule.due
        await set_within(self._stirred, None if due is None else max(0, due - self._loop.time()))

    async def _look(self) -> None:
        if await self._level._worker.read(self._blocking._has_to_push, self._limits):
            self._schedule.request_sync()
        if self._poll is not None and self._poll.reply.done():
            await self._take_news()

    async def _attempt(self, act: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        job = self._job = asyncio.create_task(act)
        try:
            await asyncio.wait([job])
        finally:
            self._job = None
            job.cancel()
        if not job.cancelled() and (error := job.exception()) is not None:
            await self._drop_poll()
            if not isinstance(error, Exception):
                raise error
            if not self._blocking.is_open:
                self._schedule.end()
            self._schedule.on_failure(error, self._loop.time())
        self._settle()

    async def _sync(self) -> None:
        assert self._loop is not None
        if self._schedule.state == "connecting":
            self._limits = PushLimits()  # what can be carried, and is allowed, may have changed
        session, _ = self._blocking._session(True, True, self._on_reset, None, self._limits, look_ahead=True)
        remaining: TransportError | ForbiddenError | None = None
        try:
            async with self._level._sync_lock:
                await self._level._drive(session, self._exchange, self._schedule.on_reply)
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        self._schedule.on_synced(self._loop.time(), remaining)

    async def _ask(self) -> None:
        assert self._loop is not None
        session = self._blocking._follow(self._on_reset, self._limits)
        request = await self._level._worker.write(advance, session)
        if isinstance(request, Finished):
            self._schedule.request_sync()
            return
        reply = asyncio.create_task(_awaited(self._exchange(request, wait=self._wait)))
        reply.add_done_callback(lambda _: self._stirred.set())
        self._poll = _Poll(session, reply, self._loop.time())

    async def _take_news(self) -> None:
        assert self._poll is not None
        assert self._loop is not None
        session, reply, started = self._poll
        self._poll = None
        try:
            with transport_errors():
                message = await reply
            news = await self._level._worker.write(advance, session, message)
        finally:
            with suppress(ValueError):  # see `Level._drive`
                session.close()
        assert isinstance(news, Finished)
        now = self._loop.time()
        self._schedule.on_polled(news.result, now, elapsed=now - started, wait=self._wait)

    async def _drop_poll(self) -> None:
        if self._poll is not None:
            poll, self._poll = self._poll, None
            poll.reply.cancel()
            await asyncio.wait([poll.reply])
            if not poll.reply.cancelled():
                poll.reply.exception()  # looked at, so that asyncio does not complain
            poll.session.close()


async def _awaited(reply: Awaitable[Any]) -> Any:
    return await reply
