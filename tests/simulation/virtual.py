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
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

from treehub_level.aio import worker as _worker
from treehub_level.aio.threads import Job, JobThreads

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


class _Threads(JobThreads):
    """`JobThreads` without threads: jobs run on the loop, later, one at a time."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.accepts = False
        self.closing = False
        self._loop = loop
        self._rng = rng
        self._writes: list[Job[Any]] = []
        self._reads: list[Job[Any]] = []

    def put_write(self, job: Job[Any]) -> None:
        self._writes.append(job)
        self._run_later(lambda: self._writes.pop(0).run())

    def read(self, call: Callable[[], Any]) -> Job[Any]:
        job = Job(call)
        self._reads.append(job)
        self._run_later(self._run_read)
        return job

    def _run_later(self, run: Callable[[], None]) -> None:
        self._loop.call_later(self._rng.uniform(0, _LATENCY), run)

    def _run_read(self) -> None:
        if self._reads:  # else the end of the threads has run it
            self._reads.pop(self._rng.randrange(len(self._reads))).run()

    def end_reads(self) -> None:
        while self._reads:
            self._run_read()

    def end(self) -> None:
        """Do nothing: there is no thread."""


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
        stack.enter_context(mock.patch.object(_worker, "JobThreads", partial(_Threads, loop, rng)))
        yield loop
