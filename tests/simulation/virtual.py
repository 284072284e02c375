"""An event loop with virtual time and without threads.

Time advances to the next timer when no task can run. Calls that an asyncio level would run in its
worker threads run on the loop, after a random delay. So a program of many tasks is
one sequence of steps, and the same seed gives the same sequence.
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

#: The maximum delay of a call to a worker thread, in seconds.
_LATENCY = 0.005
#: Seconds that an iteration of the loop takes. Without them, a timer that is early by a rounding
#: error would never become due.
_TURN = 1e-6


class DeadlockError(AssertionError):
    """All tasks wait, and no timer is set."""


class _Selector(selectors.SelectSelector):
    """A selector without I/O: waiting advances the virtual time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("all tasks wait, and no timer is set")
        self.now += max(timeout, 0) + _TURN
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread."""


class _Threads:
    """A replacement for the thread pool of a level: calls run on the loop, later, one at a time."""

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
    """A set with insertion order: the order of a plain set differs in each run."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def in_order(level: Any) -> None:
    """Make a level call its listeners in the order in which they were added."""
    level._store.listeners = _InOrder()


@contextmanager
def virtual_time(rng: random.Random) -> Iterator[VirtualLoop]:
    """Provide a loop for asyncio levels, without threads; ``rng`` makes all random decisions."""
    loop = VirtualLoop()
    # Live sessions draw the jitter of their backoff from the global generator.
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
