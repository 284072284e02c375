"""A blocking interface to an asyncio level: each call runs the event loop until it returns."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any


class LoopAdapter:
    """A level, sublevel, snapshot or write batch of asyncio, with blocking methods."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            result = attribute(*args, **options)
            if inspect.isawaitable(result):
                return self._loop.run_until_complete(result)
            if hasattr(result, "__anext__"):
                return self._iterate(result)
            return result if result is None else LoopAdapter(result, self._loop)

        return call

    def _iterate(self, iterator: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(iterator))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(iterator.aclose())

    def __enter__(self) -> Any:
        entered = self._loop.run_until_complete(self._inner.__aenter__())
        return self if entered is self._inner else entered

    def __exit__(self, *exception: object) -> None:
        self._loop.run_until_complete(self._inner.__aexit__(*exception))
