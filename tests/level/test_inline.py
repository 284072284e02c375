"""Calls that run on the event loop's thread, calls that must not, and fairness to other tasks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from treehub_level import Delete, Level, MemoryBackend, Put, StorageError

native = pytest.importorskip("treehub_level.backends.leveldb.native", reason="LevelDB was not there at build time")

MIB = 1024 * 1024


class ThreadRecorder:
    """A backend mixin that records the thread of each write and can delay the next write."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writers: list[int] = []
        self.writing_thread: int | None = None
        self.begun = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()

    def write(self, batch: Any, *, durable: bool = False) -> None:
        self.writers.append(threading.get_ident())
        self.writing_thread = threading.get_ident()
        self.begun.set()
        assert self.may_write.wait(20)
        super().write(batch, durable=durable)  # type: ignore[misc]
        self.writing_thread = None

    def inline(self) -> list[bool]:
        """Return for each write since the last call True if it ran on this thread (the loop's)."""
        writers, self.writers = self.writers, []
        return [writer == threading.get_ident() for writer in writers]


class RecordingMemory(ThreadRecorder, MemoryBackend):
    pass


class RecordingLevelDB(ThreadRecorder, native.LevelDBBackend):  # type: ignore[misc, name-defined]
    pass


@pytest.fixture(params=[RecordingMemory, RecordingLevelDB])
async def server(request: Any, tmp_path: Path) -> AsyncIterator[Level]:
    """A server over a recording backend, after one write."""
    async with Level(str(tmp_path / "store"), backend=request.param, mode=Level.SERVER) as level:
        await level.put("first", 1)
        recorder_of(level).inline()
        yield level


def recorder_of(level: Level) -> Any:
    return level._store.backend


# ------------------------------------------------------------------------------------- which thread


async def test_a_lone_small_write_runs_on_the_event_loop(server: Level) -> None:
    await server.put("a", 1)
    await server.delete("a")
    await server.batch([Put("b", 2), Delete("a")])
    async with server.write_batch() as batch:
        batch.put("c", 3)
    await server.sublevel("s").put("d", 4)
    assert recorder_of(server).inline() == [True] * 5
    assert server.cid == 7


async def test_a_durable_write_never_runs_on_the_event_loop(server: Level) -> None:
    await server.put("a", 1, durable=True)
    assert recorder_of(server).inline() == [False]


async def test_a_large_write_does_not_run_on_the_event_loop(server: Level) -> None:
    await server.put("a", "x" * 20_000)
    await server.batch([Put(f"{n}", n) for n in range(100)])
    await server.load((f"{n}", n) for n in range(100))
    assert recorder_of(server).inline() == [False] * 3


async def test_a_backend_that_may_block_is_never_written_to_on_the_event_loop() -> None:
    class MayBlock(RecordingMemory):
        def writes_at_once(self) -> bool:
            return super(MemoryBackend, self).writes_at_once()

    async with Level("x", backend=MayBlock) as level:
        await level.put("a", 1)
        assert recorder_of(level).inline()[-1:] == [False]


async def test_a_write_beside_a_waiting_one_waits_behind_it(server: Level) -> None:
    backend = recorder_of(server)
    backend.begun.clear()
    backend.may_write.clear()
    writes = [asyncio.create_task(server.put("ahead", 1, durable=True))]
    assert await asyncio.to_thread(backend.begun.wait, 20)
    writes += [asyncio.create_task(server.put(key, 2)) for key in ("behind", "last")]
    await asyncio.sleep(0.05)
    assert not any(write.done() for write in writes)
    backend.may_write.set()
    await asyncio.gather(*writes)
    assert not any(backend.inline())
    assert (await server.changes(1)).changes == [["ahead", 1], ["behind", 2], ["last", 2]]


async def test_a_write_beside_a_waiting_step_waits_behind_it(server: Level) -> None:
    await asyncio.gather(server.change(1, [["ahead", 1]]), server.put("behind", 2))
    assert (await server.changes(1)).changes == [["ahead", 1], ["behind", 2]]


async def test_ranges_are_read_in_a_thread_and_a_scan_changes_threads_once_a_chunk() -> None:
    fetches: list[int] = []

    class Walked(MemoryBackend):
        def scan(self, *args: Any, **options: Any) -> Any:
            cursor = super().scan(*args, **options)
            fetch = cursor.fetch

            def noted(limit: int) -> Any:
                fetches.append(threading.get_ident())
                return fetch(limit)

            cursor.fetch = noted  # type: ignore[method-assign]
            return cursor

    async with Level("x", backend=Walked) as level:
        await level.load((f"{n:06}", n) for n in range(100_000))
        assert len(await level.query()) == 100_000
        assert len([pair async for pair in level.scan()]) == 100_000
    assert threading.get_ident() not in fetches
    assert len(fetches) == 2 * 101


# ------------------------------------------------------------------------------------- cancellation


async def test_a_write_cancelled_before_it_begins_is_not_made(server: Level) -> None:
    task = asyncio.create_task(server.put("a", 1))
    task.cancel()
    await asyncio.wait([task])
    assert not await server.has("a")
    assert server.cid == await server.get("!") == 1


async def test_a_cancelled_loop_of_writes_leaves_complete_writes_and_the_cid_on_disk(server: Level) -> None:
    async def write() -> None:
        for n in range(100_000):
            await server.batch([Put(f"{n:06}", n), Put(f"{n:06}/twin", n)])

    task = asyncio.create_task(write())
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    written = await server.count() - 1
    assert written > 0
    assert written % 2 == 0
    assert server.cid == await server.get("!") == written + 1


# ----------------------------------------------------------------------------------------- fairness


@pytest.mark.parametrize("verb", ["put", "get", "has", "get_many", "batch"])
async def test_a_loop_of_calls_that_never_wait_lets_other_tasks_run(server: Level, verb: str) -> None:
    args: dict[str, Any] = {"put": ("a", 1), "get_many": (["first"],), "batch": ([Put("a", 1)],)}
    others_turns = 0

    async def other() -> None:
        nonlocal others_turns
        while True:
            others_turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(1_000_000):
        await getattr(server, verb)(*args.get(verb, ("first",)))
        if others_turns == 5:
            break
    task.cancel()
    assert others_turns == 5


class IterationCounter:
    """Count the iterations of the event loop within a block; `note()` records the count."""

    def __init__(self) -> None:
        self.count = 0
        self.noted: list[int] = []

    def note(self) -> None:
        self.noted.append(self.count)

    async def _count(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    async def __aenter__(self) -> IterationCounter:
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()


class Op(dict[str, Any]):
    """An operation that calls the counter when it is encoded."""

    turns: IterationCounter

    def __getitem__(self, name: str) -> Any:
        self.turns.note()
        return super().__getitem__(name)


async def test_the_loop_runs_while_a_large_batch_is_encoded(server: Level) -> None:
    async with IterationCounter() as turns:
        ops: list[Any] = [Op(type="put", key=f"{n:06}", value=n) for n in range(20_000)]
        Op.turns = turns
        await server.batch(ops)
    assert turns.noted[-1] - turns.noted[0] > 2


@pytest.mark.parametrize("verb", ["batch", "load"])
async def test_the_loop_runs_while_many_items_are_read_from_an_iterator(server: Level, verb: str) -> None:
    async with IterationCounter() as turns:

        def items() -> Iterator[Any]:
            for n in range(50_000):
                turns.note()
                yield Put(f"{n:06}", n)

        if verb == "batch":
            await server.batch(items())
        else:
            await server.load(items(), batch_size=50_000)
    assert turns.noted[-1] - turns.noted[0] > 2


async def test_a_list_changed_while_it_is_encoded_is_written_in_its_first_state(server: Level) -> None:
    ops: list[Any] = [Put(f"{n:06}", n) for n in range(50_000)]
    task = asyncio.create_task(server.batch(ops))
    while not task.done():
        await asyncio.sleep(0)
        ops.clear()
    assert await server.count() == 50_001


# ------------------------------------------------------------------------------------------- stalls


class TableBlocker:
    """Block a LevelDB store when it creates a table: named pipes take the names of the next tables.

    Opening such a pipe blocks. A thread observes the writes. When one is blocked, it records the
    thread of that write in `stuck` and unblocks LevelDB. LevelDB then cannot write its table and
    refuses writes from then on.
    """

    def __init__(self, directory: Path, backend: ThreadRecorder) -> None:
        last = max(int(file.stem) for file in directory.iterdir() if file.stem.isdigit())
        self._pipes = [directory / f"{number:06}.ldb" for number in range(last + 1, last + 12)]
        self._backend = backend
        self.stuck: int | None = None
        self._freed = threading.Event()
        for pipe in self._pipes:
            os.mkfifo(pipe)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        seen, stuck = -1, None
        while not self._freed.wait(1):
            seen, before = len(self._backend.writers), seen
            stuck = self._backend.writing_thread
            if seen == before and stuck is not None:
                self.stuck = stuck
                break
        while not self._freed.wait(0.01):
            for pipe in self._pipes:
                with suppress(FileNotFoundError):  # LevelDB removes files that it does not use
                    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))

    def free(self) -> None:
        self._freed.set()
        self._thread.join()


class StallingLevelDB(RecordingLevelDB):
    """The control: a backend that writes on the event loop even if LevelDB can stall."""

    def writes_at_once(self) -> bool:
        return True


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize(("backend", "loop_is_stuck"), [(RecordingLevelDB, False), (StallingLevelDB, True)])
async def test_a_stalled_write_never_blocks_the_event_loop(backend: Any, loop_is_stuck: bool, tmp_path: Path) -> None:
    async with Level(tmp_path / "store", backend=backend, write_buffer_size=4 * MIB) as level:
        blocker = TableBlocker(tmp_path / "store", recorder_of(level))
        try:
            with pytest.raises(StorageError):
                for n in range(10_000):
                    await level.put(f"{n}", os.urandom(4096).hex())
        finally:
            blocker.free()
        inline = recorder_of(level).inline()
    assert True in inline
    assert blocker.stuck is not None
    assert (blocker.stuck == threading.get_ident()) is loop_is_stuck
