"""An event loop without a clock and without threads: time passes when nobody has anything left to do.

What a level of asyncio would run in its threads runs on the loop, some moments later, as a seed decides. So a program
of many tasks is one sequence of steps, and the same seed gives the same one.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from treehub_level.aio import worker as _worker

#: The most seconds that a call waits for its thread.
_LATENCY = 0.005
#: Seconds that a turn of the loop takes. Without any, whoever is a rounding error too early would be so for ever.
_TURN = 1e-6


class DeadlockError(AssertionError):
    """Everybody waits for somebody else, and nothing is due ever."""


class _Selector(selectors.SelectSelector):
    """Nothing ever arrives from outside: waiting for it is what time is made of."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("everybody waits, and nothing is due")
        self.now += max(timeout, 0) + _TURN
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def _write_to_self(self) -> None:
        """There is no other thread that would have to wake this one."""


class _Threads:
    """Stands in for the threads of a level: calls run on the loop, one at a time, later."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, workers: int) -> None:
        self._loop = loop
        self._rng = rng
        self._in_order = workers == 1
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, function))
        self._loop.call_later(self._rng.uniform(0, _LATENCY), self._run_one)
        return future

    def _run_one(self) -> None:
        index = 0 if self._in_order else self._rng.randrange(len(self._waiting))
        future, function = self._waiting.pop(index)
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    def shutdown(self, wait: bool = True) -> None:
        pass


class _InOrder(dict[Any, None]):
    """A set that is walked in the order in which things came: that of their addresses is another in each run."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def in_order(level: Any) -> None:
    """Let a level call those who listen to it in the order in which they came."""
    level._store.listeners = _InOrder()


@contextmanager
def virtual_time(rng: random.Random) -> Iterator[VirtualLoop]:
    """A loop on which levels of asyncio run without threads, and without chance but for that of ``rng``."""
    loop = VirtualLoop()
    # Sessions draw the jitter of their pauses from it.
    state = random.getstate()
    random.seed(rng.getrandbits(64))
    with ExitStack() as stack:
        stack.callback(random.setstate, state)
        stack.callback(loop.close)
        stack.enter_context(mock.patch.object(_worker, "monotonic", loop.time))
        stack.enter_context(
            mock.patch.object(_worker, "ThreadPoolExecutor", lambda workers, _: _Threads(loop, rng, workers))
        )
        yield loop
