"""Waiting for commits on the event loop, without holding a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from ..engine.store import Store
from ..errors import NotOpenError

T = TypeVar("T")


@contextmanager
def commit_event(store: Store) -> Iterator[asyncio.Event]:
    """Provide an event that is set after each commit, and when the store closes."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def on_commit() -> None:
        with suppress(RuntimeError):  # the loop is closed, and its waiters are gone
            loop.call_soon_threadsafe(event.set)

    store.add_listener(on_commit)
    try:
        yield event
    finally:
        store.remove_listener(on_commit)


async def wait_for_commit(store: Store, attempt: Callable[[], Awaitable[tuple[T, bool]]], wait: float) -> T:
    """Repeat a call after each commit until it has something to report, and return its last result.

    Args:
        store: The store.
        attempt: The call: returns a result, and True if there is nothing to report.
        wait: Seconds to wait at most. Closing the store ends the wait.
    """
    result, nothing = await attempt()
    if not wait or not nothing:
        return result
    deadline = asyncio.get_running_loop().time() + wait
    with commit_event(store) as committed:
        while nothing:
            committed.clear()
            try:
                result, nothing = await attempt()
            except NotOpenError:
                return result
            if nothing and not await set_within(committed, deadline - asyncio.get_running_loop().time()):
                return result
    return result


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event, and return True if it was set in time.

    Args:
        event: The event.
        seconds: The timeout; ``None`` for no limit.
    """
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
