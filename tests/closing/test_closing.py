"""The short share of T12. ``python -m tests.closing`` is for longer runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from treehub_level import CorruptionError, Put
from treehub_level.aio.worker import Worker
from treehub_level.engine.call_guard import CallGuard
from treehub_level.locks import ErrorCheckingLock

from . import cancelling
from .__main__ import BACKENDS, KINDS, PROGRAM
from .cancelling import VERBS, Bench, cancel_all
from .reentrance import with_calls_inside
from .rounds import with_threads
from .strict import StrictBackend

#: A kind of rounds and a backend. An await is cancelled in the same way over each backend on disk,
#: so the suite does it over the fastest of them.
ROUNDS = [
    *((kind, backend) for kind in KINDS for backend in BACKENDS),
    *(("cancelling", backend) for backend in BACKENDS[:2]),
]


@pytest.mark.parametrize(("kind", "backend"), ROUNDS)
def test_nothing_crashes_or_hangs_or_loses_the_cid(kind: str, backend: str) -> None:
    assert PROGRAM.run(kind, backend, 2, seed=1), "see the output above"


async def test_each_verb_has_an_await_to_be_cancelled_at(tmp_path: Path) -> None:
    made: dict[str, StrictBackend] = {}
    counts = await cancel_all(Bench(lambda name: made.setdefault(name, StrictBackend(name)), ""))
    assert [*counts] == [*VERBS]
    assert all(counts.values()), counts


# ----------------------------------------------------------------------------------------- controls


def test_a_guard_that_does_not_wait_is_found() -> None:
    made: dict[str, StrictBackend] = {}

    def shut(self: CallGuard) -> None:
        self.is_open = False

    with mock.patch.object(CallGuard, "shut", shut), pytest.raises(AssertionError, match="it was closed"):
        with_threads("store", lambda name: made.setdefault(name, StrictBackend(name)), rounds=10, seed=1)


def test_control_a_lock_that_its_owner_takes_twice_is_found() -> None:
    made: dict[str, StrictBackend] = {}
    with (
        mock.patch.object(ErrorCheckingLock, "entry", lambda self: self),
        pytest.raises((AssertionError, CorruptionError)),  # two commits of one CID, for example
    ):
        with_calls_inside("", lambda name: made.setdefault(name, StrictBackend(name)), rounds=20, seed=1)


async def test_a_close_that_ends_only_in_its_own_task_is_found() -> None:
    async def stop(self: Worker, closing: Any) -> None:
        assert self._threads is not None
        self._threads.accepts = False
        await asyncio.sleep(0)
        closing()
        self._threads.end()
        self._threads = None

    made: dict[str, StrictBackend] = {}
    bench = Bench(lambda name: made.setdefault(name, StrictBackend(name)), "")
    with (
        mock.patch.object(Worker, "stop", stop),
        mock.patch.object(cancelling, "PATIENCE", 0.5),
        pytest.raises(AssertionError, match="it neither opens nor closes"),
    ):
        await bench.__aenter__()
        await bench.cancel_everywhere(bench.close)
    for level in (bench.client, bench.server):
        level._blocking.close()


async def test_a_batch_that_is_written_in_parts_is_found() -> None:
    class Piecemeal(Bench):
        async def batch(self) -> None:
            for n in range(100):
                await self.server.batch([Put(f"b{self._n} {n}", n)])
                await asyncio.sleep(0)

    made: dict[str, StrictBackend] = {}
    with pytest.raises(AssertionError, match="half a batch"):
        await cancel_all(Piecemeal(lambda name: made.setdefault(name, StrictBackend(name)), ""), ["batch"])


# ------------------------------------------------------------------------------------------ forking

FORK = """
import asyncio, gc, os, sys
from treehub_level import Level, LevelError, NotOpenError, blocking

backend, path = sys.argv[1:]
level = blocking.Level(path, backend=backend, mode=Level.SERVER)
level.open()
level.load((f"k{n}", n) for n in range(100))
rows, snapshot = level.scan(), level.snapshot()
next(rows)
calls = [
    lambda: level.get("k1"), lambda: level.query(), lambda: level.put("k1", 2), lambda: level.cid,
    lambda: snapshot.get("k1"), lambda: next(level.scan()), level.close, level.open,
]
child = os.fork()
if child == 0:
    for call in calls:
        try:
            call()
        except NotOpenError as error:
            assert "forked" in str(error), error
        else:
            os._exit(1)
    try:
        blocking.Level(path, backend=backend, mode=Level.SERVER).open()
    except LevelError:
        assert backend != "memory"
    del level, rows, snapshot, calls
    gc.collect()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert len([*rows]) == 99 and snapshot.get("k1") == 1
level.put("k1", 3)
level.close()
with blocking.Level(path, backend=backend, mode=Level.SERVER) as level:
    assert level.cid == (0 if backend == "memory" else 101)

async def main():
    level = Level(path, backend=backend)
    await level.open()
    await level.put("k1", 4)
    child = os.fork()
    if child == 0:
        calls = [lambda: level.get("k1"), lambda: level.put("k1", 5), level.query, level.close, level.open]
        for call in calls:
            try:
                await call()
            except NotOpenError as error:
                assert "forked" in str(error), error
            else:
                os._exit(1)
        os._exit(0)
    assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
    assert await level.get("k1") == 4
    await level.close()

path += "-async"
asyncio.run(main(), debug=False)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_neither_use_nor_harm_the_store_of_its_parent(backend: str, tmp_path: Path) -> None:
    # Python 3.12 and later warn of a fork with other threads, which this test does on purpose.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, backend, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
