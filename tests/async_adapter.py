"""`blocking.Level` with the manners of `Level`, so that each test is written once and run over both APIs.

A blocking call runs in a thread, as it would in a program that has threads: the tests of the
blocking API are therefore also tests of its use from several threads.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

from treehub_level import Level

_END = object()


class Bridge:
    """A blocking level, sublevel, snapshot or iterator, to be used with ``await``, ``async with`` and ``async for``."""

    def __init__(self, blocking: Any) -> None:
        self.blocking = blocking

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.blocking, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            plain = [_unwrap(arg) for arg in args]
            if _is_awaited(name):
                return asyncio.to_thread(attribute, *plain, **options)
            return Bridge(attribute(*plain, **options))

        return call

    async def __aenter__(self) -> Any:
        entered = await asyncio.to_thread(self.blocking.__enter__)
        # What write_batch() gives has plain methods in both APIs.
        return self if hasattr(entered, "get") or hasattr(entered, "in_sync") else entered

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.blocking.__exit__, *exception)

    async def __aiter__(self) -> AsyncIterator[Any]:
        iterator = await asyncio.to_thread(iter, self.blocking)
        try:
            while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
                yield item
        finally:
            if hasattr(iterator, "close"):
                await asyncio.to_thread(iterator.close)


class _BlockingForwarder:
    """A test's ``async def exchange``, for a blocking client that runs in a thread beside the loop."""

    def __init__(self, forwarder: Any) -> None:
        self._forwarder = forwarder
        self._loop = asyncio.get_running_loop()

    def exchange(self, request: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._forwarder.exchange(request), self._loop).result()


def _is_awaited(name: str) -> bool:
    """Whether the asynchronous twin of a verb is awaited (and is not one that gives an iterator or a context)."""
    return inspect.iscoroutinefunction(getattr(Level, name, None)) or name in ("open", "close", "in_sync")


def _unwrap(arg: Any) -> Any:
    if isinstance(arg, Bridge):
        return arg.blocking
    return _BlockingForwarder(arg) if inspect.iscoroutinefunction(getattr(arg, "exchange", None)) else arg
