"""`JobThreads`: the threads of an asyncio level, and the queues of their jobs.

The executors of ``concurrent.futures`` answer the event loop through a ``threading.Condition``,
which an interrupt can leave locked (see `locks`). Here a job passes through a ``SimpleQueue``,
whose ``put`` is one call into C. Its answer goes to the event loop that asked, so that a level
serves several loops, one after another or at a time.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from ..locks import start_thread
from ..weak_registry import WeakRegistry

T = TypeVar("T")

#: Threads for scans. They share the GIL, so that more of them would not be faster.
_READERS: Final = min(4, (os.cpu_count() or 1) + 1)


class JobProgress:
    """The progress of a job. Unlike the job, it keeps no task of an event loop alive.

    Attributes:
        begun: True once a thread runs the call.
        ended: True once the call has ended.
    """

    __slots__ = ("begun", "ended")

    def __init__(self) -> None:
        self.begun = self.ended = False


class Job(Generic[T]):
    """A call in another thread, for a task of the running event loop.

    Args:
        call: The call.

    Attributes:
        future: The result. Cancelling it does not cancel the call.
        progress: The progress of the call.
    """

    __slots__ = ("_call", "future", "progress")

    def __init__(self, call: Callable[[], T]) -> None:
        self._call: Callable[[], T] | None = call
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.progress = JobProgress()

    def run(self) -> None:
        """Make the call, and answer the event loop."""
        call, self._call = self._call, None
        assert call is not None
        self.progress.begun = True
        try:
            result, error = call(), None
        except BaseException as raised:
            result, error = None, raised
        self.progress.ended = True
        answer(self.future.get_loop(), _settle, self.future, result, error)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread; ``None`` if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def answer(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any) -> None:
    """Call a function soon on an event loop, from any thread. A closed loop has no waiters left."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return  # the task was cancelled
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # a future refuses it
        future.set_exception(RuntimeError(f"the call raised {error!r:.80}"))
    else:
        future.set_exception(error)


class _Queues:
    """The queues. The threads hold them, and not the `JobThreads`, which can thus be collected."""

    def __init__(self) -> None:
        self.writes: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.reads: SimpleQueue[Job[Any] | None] = SimpleQueue()
        #: One item for each reading thread that runs, that waits for a job, and that has ended.
        self.readers: deque[None] = deque()
        self.idle: deque[None] = deque()
        self.gone: SimpleQueue[None] = SimpleQueue()
        #: True once no thread takes jobs any more.
        self.ended = False

    def write_in_turn(self) -> None:
        while (job := self.writes.get()) is not None:
            job.run()
            del job  # a waiting thread must not keep the level alive
            if self.ended:
                break
        self.end_readers()
        self.run_left()

    def read_in_turn(self) -> None:
        self.readers.append(None)
        while True:
            self.idle.append(None)
            job = self.reads.get()
            self.idle.pop()
            if job is None:
                break
            job.run()
            del job
        self.reads.put(None)  # for the next reading thread
        self.gone.put(None)

    def end_readers(self) -> None:
        """Run the reads that are left, and wait for those in flight, in the writing thread."""
        _run_all(self.reads)
        self.reads.put(None)
        for _ in tuple(self.readers):
            self.gone.get()
        self.readers.clear()
        self.ended = True

    def run_left(self) -> None:
        """Run the jobs that came too late. The store refuses them, and so they have an answer."""
        _run_all(self.writes)
        _run_all(self.reads)


def _run_all(queue: SimpleQueue[Job[Any] | None]) -> None:
    jobs: list[Job[Any] | None] = []
    try:
        while True:
            jobs.append(queue.get_nowait())
    except Empty:
        pass
    for job in jobs:
        if job is not None:
            job.run()
    if None in jobs:
        queue.put(None)


class JobThreads:
    """One thread that writes, in the order of its jobs, and a few that read.

    Attributes:
        accepts: True while the level accepts calls.
        closing: True once `close` was called.
    """

    def __init__(self) -> None:
        self.accepts = False
        self.closing = False
        self._queues = _Queues()
        self._started = 0
        start_thread("treehub-level-write", self._queues.write_in_turn)
        _running.add(self)

    def __del__(self) -> None:
        self.end()

    def end(self) -> None:
        """Let the threads end after the jobs in their queues."""
        self._queues.writes.put(None)

    def write(self, call: Callable[[], T]) -> Job[T]:
        """Queue a call for the writing thread."""
        job = Job(call)
        self.put_write(job)
        return job

    def put_write(self, job: Job[Any]) -> None:
        """Queue a job for the writing thread."""
        self._queues.writes.put(job)
        if self._queues.ended:
            self._queues.run_left()

    def read(self, call: Callable[[], T]) -> Job[T]:
        """Queue a call for a reading thread."""
        job = Job(call)
        queues = self._queues
        queues.reads.put(job)
        if queues.reads.qsize() > len(queues.idle) and self._started < _READERS:
            self._started += 1
            start_thread("treehub-level-read", queues.read_in_turn)
        if queues.ended:
            queues.run_left()
        return job

    def end_reads(self) -> None:
        """Run the reads that are left, and wait for those in flight, in the writing thread."""
        self._queues.end_readers()

    def close(self, close_store: Callable[[], object], closed: Callable[[], object]) -> Job[None]:
        """Queue the end: all jobs so far, then ``close_store``, then the end of the threads.

        Args:
            close_store: Closes the store.
            closed: Called afterwards, in the writing thread, also if that failed.
        """

        def finish() -> None:
            self.end_reads()
            try:
                close_store()
            finally:
                closed()

        self.accepts = False
        job = self.write(finish)
        self.closing = True
        return job


_running: Final[WeakRegistry[JobThreads]] = WeakRegistry()


@atexit.register
def _end_all() -> None:
    """Wait at exit for the jobs of levels that were not closed: a write must not be cut off."""
    for threads in _running.alive():
        threads.end()
    for thread in threading.enumerate():
        if thread.name in ("treehub-level-write", "treehub-level-read"):
            thread.join()
