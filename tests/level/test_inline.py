"""What runs on the event loop's own thread, and what must not; and that others get their turns either way."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from treehub_level import Delete, Level, MemoryBackend, Put, StorageError

native = pytest.importorskip("treehub_level.backends.leveldb", reason="LevelDB was not there at build time")

MIB = 1024 * 1024


class Watched:
    """Mixed into a backend: remembers which thread made each write, and can keep the next one waiting."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writers: list[int] = []
        self.under_way: int | None = None
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def write(self, batch: Any, *, durable: bool = False) -> None:
        self.writers.append(threading.get_ident())
        self.under_way = threading.get_ident()
        self.begun.set()
        assert self.go_on.wait(20)
        super().write(batch, durable=durable)  # type: ignore[misc]
        self.under_way = None

    def inline(self) -> list[bool]:
        """Of each write since the last time this was asked, whether it ran on the event loop's thread (this one)."""
        writers, self.writers = self.writers, []
        return [writer == threading.get_ident() for writer in writers]


class WatchedMemory(Watched, MemoryBackend):
    pass


class WatchedLevelDB(Watched, native.LevelDBBackend):  # type: ignore[misc, name-defined]
    pass


@pytest.fixture(params=[WatchedMemory, WatchedLevelDB])
async def server(request: Any, tmp_path: Path) -> AsyncIterator[Level]:
    """A server over a watched backend, which has been written to once."""
    async with Level(str(tmp_path / "store"), backend=request.param, mode=Level.SERVER) as level:
        await level.put("first", 1)
        watched(level).inline()
        yield level


def watched(level: Level) -> Any:
    return level._store.backend


# ------------------------------------------------------------------------------------------------ which thread


async def test_a_lone_small_write_runs_on_the_event_loop(server: Level) -> None:
    await server.put("a", 1)
    await server.delete("a")
    await server.batch([Put("b", 2), Delete("a")])
    async with server.write_batch() as batch:
        batch.put("c", 3)
    await server.sublevel("s").put("d", 4)
    assert watched(server).inline() == [True] * 5
    assert server.cid == 7


async def test_a_durable_write_never_runs_on_the_event_loop(server: Level) -> None:
    await server.put("a", 1, durable=True)
    assert watched(server).inline() == [False]


async def test_a_large_write_does_not_run_on_the_event_loop(server: Level) -> None:
    await server.put("a", "x" * 20_000)
    await server.batch([Put(f"{n}", n) for n in range(100)])
    await server.load((f"{n}", n) for n in range(100))
    assert watched(server).inline() == [False] * 3


async def test_a_backend_that_does_not_say_so_is_never_written_to_on_the_event_loop() -> None:
    class Silent(WatchedMemory):
        def writes_at_once(self) -> bool:
            return super(MemoryBackend, self).writes_at_once()

    async with Level("x", backend=Silent) as level:
        await level.put("a", 1)
        assert watched(level).inline()[-1:] == [False]


async def test_a_write_beside_a_waiting_one_waits_behind_it(server: Level) -> None:
    backend = watched(server)
    backend.begun.clear()
    backend.go_on.clear()
    writes = [asyncio.create_task(server.put("ahead", 1, durable=True))]
    assert await asyncio.to_thread(backend.begun.wait, 20)
    writes += [asyncio.create_task(server.put(key, 2)) for key in ("behind", "last")]
    await asyncio.sleep(0.05)
    assert not any(write.done() for write in writes)
    backend.go_on.set()
    await asyncio.gather(*writes)
    assert not any(backend.inline())
    assert (await server.changes(1)).changes == [["ahead", 1], ["behind", 2], ["last", 2]]


async def test_a_write_beside_a_waiting_step_waits_behind_it(server: Level) -> None:
    await asyncio.gather(server.change(1, [["ahead", 1]]), server.put("behind", 2))
    assert (await server.changes(1)).changes == [["ahead", 1], ["behind", 2]]


async def test_walks_run_beside_the_event_loop_and_a_scan_hops_once_a_chunk() -> None:
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


# ------------------------------------------------------------------------------------------------ cancellation


async def test_a_write_cancelled_before_it_began_is_not_made(server: Level) -> None:
    task = asyncio.create_task(server.put("a", 1))
    task.cancel()
    await asyncio.wait([task])
    assert not await server.has("a")
    assert server.cid == await server.get("!") == 1


async def test_a_loop_of_writes_that_is_cancelled_leaves_whole_writes_and_the_cid_of_the_disk(server: Level) -> None:
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


# ------------------------------------------------------------------------------------------------ turns


@pytest.mark.parametrize("verb", ["put", "get", "has", "get_many", "batch"])
async def test_a_loop_of_calls_that_never_wait_gives_others_their_turns(server: Level, verb: str) -> None:
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


class Turns:
    """Counts the turns of the event loop while it is entered, and notes the count whenever asked to."""

    def __init__(self) -> None:
        self.count = 0
        self.noted: list[int] = []

    def note(self) -> None:
        self.noted.append(self.count)

    async def _count(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    async def __aenter__(self) -> Turns:
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()


class Op(dict[str, Any]):
    """An operation that notes when it is encoded."""

    turns: Turns

    def __getitem__(self, name: str) -> Any:
        self.turns.note()
        return super().__getitem__(name)


async def test_the_loop_turns_while_a_large_batch_is_encoded(server: Level) -> None:
    async with Turns() as turns:
        ops = [Op(type="put", key=f"{n:06}", value=n) for n in range(20_000)]
        Op.turns = turns
        await server.batch(ops)
    assert turns.noted[-1] - turns.noted[0] > 2


@pytest.mark.parametrize("verb", ["batch", "load"])
async def test_the_loop_turns_while_many_items_are_taken_from_an_iterator(server: Level, verb: str) -> None:
    async with Turns() as turns:

        def items() -> Iterator[Any]:
            for n in range(50_000):
                turns.note()
                yield Put(f"{n:06}", n)

        if verb == "batch":
            await server.batch(items())
        else:
            await server.load(items(), batch_size=50_000)
    assert turns.noted[-1] - turns.noted[0] > 2


async def test_a_list_that_changes_while_it_is_encoded_is_written_as_it_was(server: Level) -> None:
    ops: list[Any] = [Put(f"{n:06}", n) for n in range(50_000)]
    task = asyncio.create_task(server.batch(ops))
    while not task.done():
        await asyncio.sleep(0)
        ops.clear()
    assert await server.count() == 50_001


# ------------------------------------------------------------------------------------------------ stalls


class Blockage:
    """Keeps a LevelDB store from making tables: where the next ones would be are pipes, and opening those blocks.

    A thread watches the writes. When one of them is stuck it notes in which thread, and lets LevelDB go on, which
    finds that its table cannot be written: from then on that store refuses writes.
    """

    def __init__(self, directory: Path, backend: Watched) -> None:
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
            stuck = self._backend.under_way
            if seen == before and stuck is not None:
                self.stuck = stuck
                break
        while not self._freed.wait(0.01):
            for pipe in self._pipes:
                os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))

    def free(self) -> None:
        self._freed.set()
        self._thread.join()


class Reckless(WatchedLevelDB):
    """The control: it writes on the event loop come what may."""

    def writes_at_once(self) -> bool:
        return True


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize(("backend", "loop_is_stuck"), [(WatchedLevelDB, False), (Reckless, True)])
async def test_a_write_that_stalls_never_stalls_the_event_loop(
    backend: Any, loop_is_stuck: bool, tmp_path: Path
) -> None:
    async with Level(tmp_path / "store", backend=backend, write_buffer_size=4 * MIB) as level:
        blockage = Blockage(tmp_path / "store", watched(level))
        try:
            with pytest.raises(StorageError):
                for n in range(10_000):
                    await level.put(f"{n}", os.urandom(4096).hex())
        finally:
            blockage.free()
        inline = watched(level).inline()
    assert True in inline
    assert blockage.stuck is not None
    assert (blockage.stuck == threading.get_ident()) is loop_is_stuck
