"""The asyncio driver of sessions: the counterpart of ``replication.driver.drive``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ..backends.base import SyncLock
from ..errors import ForbiddenError, TransportError
from ..replication.driver import EncodedExchanger, Finished, advance, exchange_of, transport_errors
from ..replication.messages import Request
from ..replication.session import LookAhead
from ..replication.sync_locks import PAUSE, Attempts
from .worker import Worker

R = TypeVar("R")


async def acquire(lock: SyncLock, *, timeout: float | None) -> None:
    """Wait for the lock of a sync.

    Args:
        lock: The lock, within its ``with`` statement.
        timeout: Seconds to wait for another process; ``None`` for no limit.

    Raises:
        LockedError: Another process has had the lock for the whole timeout.
    """
    attempts = Attempts(lock, timeout)
    # No event tells that another process has released its lock.
    while not attempts.succeed():  # noqa: ASYNC110
        await asyncio.sleep(PAUSE)


class AsyncExchanger(Protocol):
    """The part of a server that `Level.sync` needs: one method."""

    def exchange(self, request: dict[str, Any], /) -> Awaitable[dict[str, Any]] | dict[str, Any]:
        """Answer a request: see `Level.exchange`."""


def async_exchange_of(server: AsyncExchanger) -> Callable[..., Any]:
    """Return a function that sends a request to a server: see `replication.driver.exchange_of`.

    A blocking level is called in a thread, since its calls would block the event loop.
    """
    exchange = exchange_of(server)
    if isinstance(server, EncodedExchanger) and not inspect.iscoroutinefunction(server.exchange):
        return lambda request: asyncio.to_thread(exchange, request)
    return exchange


async def drive(
    worker: Worker,
    session: Generator[Any, Any, R],
    exchange: Callable[[Request], Any],
    on_progress: Callable[[], object],
) -> R:
    """Run a session to its end, and return its result.

    The steps of the session run in the worker's writing thread; requests are awaited on the event
    loop. A request that the session announces before it takes the last reply (`session.LookAhead`)
    is sent at once, so that client and server work at the same time.

    Args:
        worker: The worker of the level.
        session: The session.
        exchange: Sends a request, and returns the reply or an awaitable of it.
        on_progress: Called after each exchange.

    Raises:
        LevelError: The session, or the server, raised it.
    """

    async def send(request: Request) -> Any:
        reply = exchange(request)
        return await reply if inspect.isawaitable(reply) else reply

    early: tuple[Request, asyncio.Task[Any]] | None = None
    try:
        request = await worker.write(advance, session)
        while not isinstance(request, Finished):
            try:
                with transport_errors():
                    reply = await (early[1] if early is not None and early[0] is request else send(request))
            except (TransportError, ForbiddenError) as error:
                reply = error
            request = await worker.write(advance, session, reply)
            if early is not None and request is not early[0]:
                early[1].cancel()  # the session has not reached that request
                early = None
            if isinstance(request, LookAhead):
                early = request.request, asyncio.create_task(send(request.request))
                request = await worker.write(advance, session)
            on_progress()
        result: R = request.result
        return result
    finally:
        if early is not None:
            early[1].cancel()
            await asyncio.gather(early[1], return_exceptions=True)
        with suppress(ValueError):  # cancelled during a step: the thread ends that step, and then the session
            session.close()
