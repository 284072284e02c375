"""The blocking API with ``await``, so that each test is written once and run over both APIs.

A blocking call runs in a thread, as in a program with threads: the tests of the blocking API
therefore also test its use from several threads.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

from treehub_level import Level

_END = object()


class AsyncAdapter:
    """Wraps a blocking level, sublevel, snapshot or iterator for ``await`` and its relatives."""

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
            return AsyncAdapter(attribute(*plain, **options))

        return call

    async def __aenter__(self) -> Any:
        entered = await asyncio.to_thread(self.blocking.__enter__)
        # A write batch has plain methods in both APIs.
        return self if hasattr(entered, "get") or hasattr(entered, "in_sync") else entered

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.blocking.__exit__, *exception)

    async def __aiter__(self) -> AsyncIterator[Any]:
        iterator = await asyncio.to_thread(iter, self.blocking)
        try:
            while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
                yield item
        finally:
            if hasattr(iterator, "close") and not self._goes_on(iterator):
                await asyncio.to_thread(iterator.close)

    @staticmethod
    def _goes_on(iterator: Any) -> bool:
        """True for a watch whose loop its timeout has ended."""
        timeout = getattr(iterator, "_timeout", None)
        return timeout is not None and timeout.deadline() is not None and not iterator.has_ended

    async def __anext__(self) -> Any:
        item = await asyncio.to_thread(next, self.blocking, _END)
        if item is _END:
            raise StopAsyncIteration
        return item


class _BlockingForwarder:
    """Wraps an ``async def exchange`` of a test for a blocking client, which runs in a thread."""

    def __init__(self, forwarder: Any) -> None:
        self._forwarder = forwarder
        self._loop = asyncio.get_running_loop()

    def exchange(self, request: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._forwarder.exchange(request), self._loop).result()


def _is_awaited(name: str) -> bool:
    """True if the asyncio counterpart of a method is awaited: no iterator, no context manager."""
    return inspect.iscoroutinefunction(getattr(Level, name, None)) or name in ("open", "close", "in_sync", "pushed")


def _unwrap(arg: Any) -> Any:
    if isinstance(arg, AsyncAdapter):
        return arg.blocking
    return _BlockingForwarder(arg) if inspect.iscoroutinefunction(getattr(arg, "exchange", None)) else arg
