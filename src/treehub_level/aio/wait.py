"""Waiting on the event loop for something to happen to a store. No thread is held meanwhile."""

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
    """An event that is set after each commit, and when the store closes."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def on_progress() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(news.set)

    store.add_listener(on_progress)
    try:
        yield news
    finally:
        store.remove_listener(on_progress)


async def wait_for_commit(store: Store, look: Callable[[], Awaitable[tuple[T, bool]]], wait: float) -> T:
    """The twin of ``ServerVerbs._wait_for_commit``."""
    found, nothing = await look()
    if not wait or not nothing:
        return found
    deadline = asyncio.get_running_loop().time() + wait
    with commit_event(store) as news:
        while nothing:
            news.clear()
            try:
                found, nothing = await look()
            except NotOpenError:
                return found
            if nothing and not await set_within(news, deadline - asyncio.get_running_loop().time()):
                return found
    return found


async def set_within(news: asyncio.Event, seconds: float | None) -> bool:
    """Whether an event is set before so many seconds are over; ``None`` for as long as it takes."""
    try:
        await asyncio.wait_for(news.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
