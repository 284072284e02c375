"""The short share of T17. ``python -m tests.interrupts`` is for longer runs."""

from __future__ import annotations

import gc
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import pytest

from treehub_level import LockedError, MemoryBackend, _core
from treehub_level.backends.sqlite.sync_lock import HAS_SYNC_LOCKS, FileSyncLock
from treehub_level.engine.call_guard import CallGuard
from treehub_level.engine.store import Store
from treehub_level.locks import WakeUp

from .__main__ import EMBEDDED, KINDS, PROGRAM
from .bench import BlockingBench
from .injection import Injection, interrupt_everywhere

#: Interrupts of each kind over each backend.
FEW = {"c": 24, "python": 12}[_core.CORE]


@pytest.mark.parametrize("backend", EMBEDDED)
@pytest.mark.parametrize("kind", KINDS)
def test_after_an_interrupt_the_level_works_and_closes(kind: str, backend: str) -> None:
    assert PROGRAM.run(kind, backend, FEW, seed=1), "see the output above"


@pytest.fixture
def bench() -> Any:
    made: dict[str, MemoryBackend] = {}
    with BlockingBench(lambda name: made.setdefault(name, MemoryBackend(name)), "") as bench:
        yield bench


def test_a_put_and_a_get_work_after_an_interrupt_at_each_of_their_bytecodes(bench: BlockingBench) -> None:
    for call in (BlockingBench.put, BlockingBench.get):
        done = interrupt_everywhere(partial(call, bench), bench.check, most=10_000, rng=random.Random(1))
        assert done > 50, call
    bench.check_closes()


@contextmanager
def _in_python(path: Path) -> Iterator[FileSyncLock]:
    """The control: a lock that is released by a function of Python."""
    lock = FileSyncLock(str(path), "sync")
    try:
        yield lock
    finally:
        lock.release()


def _plain(path: Path) -> FileSyncLock:
    return FileSyncLock(str(path), "sync")


@pytest.mark.once
@pytest.mark.skipif(not HAS_SYNC_LOCKS, reason="the kernel has no locks of ranges for open file descriptions")
@pytest.mark.parametrize("way", [_plain, _in_python])
def test_no_interrupt_leaves_the_lock_of_a_sync_taken_though_its_traceback_is_kept(way: Any, tmp_path: Path) -> None:
    path = tmp_path / "client"
    (tmp_path / "client-wal").touch()
    kept: list[BaseException] = []
    left = 0

    def call() -> None:
        try:
            with way(path) as lock:
                lock.acquire()
        except KeyboardInterrupt as error:
            kept.append(error)  # as a task of asyncio does
            raise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # an interrupt before the block leaves the file
        for at in count():
            injection = Injection(at)
            injection.run(call)
            if not injection.reached:
                break
            with FileSyncLock(str(path), "sync") as other:
                try:
                    other.acquire()
                except LockedError:
                    left += 1
                    kept.clear()
                    gc.collect()
        kept.clear()
        gc.collect()
    assert at > 20
    assert (left > 0) == (way is _in_python)


def test_every_call_is_interrupted_where_it_waits_too() -> None:
    woken = WakeUp()
    counted = Injection(10**9)
    counted.run(lambda: woken.wait(0.001))
    for at in range(counted.seen):
        Injection(at).run(lambda: woken.wait(0.001))
        woken.set()
        assert woken.wait(1), "the signal was lost"
        Injection(at).run(lambda: woken.wait(0.001))
        assert woken.wait(1), "the signal was lost"
        woken.clear()


def test_the_injection_reaches_the_moment_between_two_statements() -> None:
    steps: list[int] = []

    def call() -> None:
        steps.append(1)
        steps.append(2)

    counted = Injection(10**9)
    counted.run(call)
    steps.clear()
    outcomes = set()
    for at in range(counted.seen):
        Injection(at).run(call)
        outcomes.add(tuple(steps))
        steps.clear()
    assert outcomes == {(1,), (1, 2)}  # a signal arrives after a call, at the earliest


# ----------------------------------------------------------------------------------------- controls


def acquiring_without_a_try(store: Store) -> Callable[..., bool]:
    """Make a commit acquire the lock once more, without a try statement that would release it."""
    commit = store._commit_alone

    def acquire_and_commit(*args: Any, **options: Any) -> bool:
        if not store._write_lock.acquire(blocking=False):
            return False
        store._write_lock.release()
        return commit(*args, **options)

    return acquire_and_commit


class CountedCall:
    """A call in flight that is counted in Python."""

    def __init__(self) -> None:
        self.calls = 0
        self.lock = self

    def __enter__(self) -> None:
        self.calls += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.calls -= 1

    def is_owned(self) -> bool:
        return False


def found(bench: BlockingBench) -> bool:
    """Return True if interrupts of a put leave something behind."""
    done = threading.Event()

    def put() -> None:
        bench.server.put("other", 1)
        done.set()

    def check() -> None:
        done.clear()
        threading.Thread(target=put, daemon=True).start()
        assert done.wait(0.5), "a put hangs"
        guarded: Any = bench.server._store.guard.thread
        assert not getattr(guarded, "calls", 0), "a call that has ended is counted"

    try:
        interrupt_everywhere(bench.put, check, most=10_000, rng=random.Random(1))
    except AssertionError:
        return True
    return False


def test_a_lock_acquired_before_its_try_statement_is_found() -> None:
    bench = BlockingBench("memory", "")
    bench.server.open()
    bench.server.put("first", 1)
    assert not found(bench)
    store = bench.server._store
    with mock.patch.object(store, "_commit_alone", acquiring_without_a_try(store)):
        assert found(bench)


def test_a_guard_that_counts_calls_is_found() -> None:
    bench = BlockingBench("memory", "")
    bench.server.open()
    bench.server.put("first", 1)
    guard: CallGuard = bench.server._store.guard
    guard.thread = CountedCall()  # type: ignore[assignment]
    assert found(bench)
