"""Waiting on the event loop for something to happen to a store. No thread is held meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from .blocking._store import Store
from .errors import NotOpenError

T = TypeVar("T")


@contextmanager
def news_of(store: Store) -> Iterator[asyncio.Event]:
    """An event that is set after each commit, and when the store closes."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(news.set)

    store.add_listener(tell)
    try:
        yield news
    finally:
        store.remove_listener(tell)


async def wait_for_news(store: Store, look: Callable[[], Awaitable[tuple[T, bool]]], wait: float) -> T:
    """The twin of ``ServerVerbs._wait_for_news``."""
    found, nothing = await look()
    if not wait or not nothing:
        return found
    deadline = asyncio.get_running_loop().time() + wait
    with news_of(store) as news:
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
