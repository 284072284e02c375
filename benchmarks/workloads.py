"""What is measured. A workload prepares itself once, and then measures itself as often as it is asked."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import orjson

from treehub_level import Level, Put, _core
from treehub_level.backends.plyvel import PlyvelBackend

from .records import make_key, make_records

BATCH = 1000
#: Few enough to stay in LevelDB's memory.
HOT_KEYS = 10_000

#: Does the work once, and returns the seconds that it took.
Measure = Callable[[], Awaitable[float]]
Workload = Callable[[int], AbstractAsyncContextManager[Measure]]


@contextmanager
def _fresh() -> Iterator[str]:
    """A path where nothing is, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="treehub-level-bench-") as folder:
        yield f"{folder}/store"


@contextmanager
def _bare_plyvel(path: str) -> Iterator[Any]:
    """A database of plyvel's own, opened with the options that our backend gives it."""
    backend = PlyvelBackend(path)
    backend.open()
    try:
        yield backend._db
    finally:
        backend.close()


def _hot_keys(records: int) -> list[str]:
    chance = random.Random(1)
    return [make_key(chance.randrange(min(HOT_KEYS, records))) for _ in range(records)]


def _batches(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _puts(records: int) -> list[list[Put]]:
    return _batches([Put(key, value) for key, value in make_records(records)])


@asynccontextmanager
async def build(records: int) -> AsyncIterator[Measure]:
    """Batches for a server's log, from values as objects; no store."""
    yield _building(_puts(records))


@asynccontextmanager
async def build_json(records: int) -> AsyncIterator[Measure]:
    """The same, from values that are JSON already."""
    puts = [Put(key, _core.JSONBytes(orjson.dumps(value))) for key, value in make_records(records)]
    yield _building(_batches(puts))


def _building(batches: list[list[Put]]) -> Measure:
    space = _core.KeySpace("!")
    encoder = _core.Encoder(space)

    async def measure() -> float:
        cid = 0
        start = perf_counter()
        for batch in batches:
            _core.server_batch(space, cid, encoder.ops(batch))
            cid += len(batch)
        return perf_counter() - start

    return measure


@asynccontextmanager
async def fillbatch(records: int) -> AsyncIterator[Measure]:
    """Batches of 1000 into an empty server."""
    batches = _puts(records)

    async def measure() -> float:
        with _fresh() as path:
            async with Level(path, mode=Level.SERVER) as level:
                start = perf_counter()
                for batch in batches:
                    await level.batch(batch)
                return perf_counter() - start

    yield measure


@asynccontextmanager
async def fillbatch_plyvel(records: int) -> AsyncIterator[Measure]:
    """The entries that `fillbatch` writes, into the same LevelDB, by plyvel alone."""
    space = _core.KeySpace("!")
    encoder = _core.Encoder(space)
    batches = [
        _core.server_batch(space, number * BATCH, encoder.ops(batch)) for number, batch in enumerate(_puts(records))
    ]

    async def measure() -> float:
        with _fresh() as path, _bare_plyvel(path) as db:
            start = perf_counter()
            for batch in batches:
                with db.write_batch() as changes:
                    for key, value in batch:
                        changes.put(key, value)
            return perf_counter() - start

    yield measure


@asynccontextmanager
async def readhot(records: int) -> AsyncIterator[Measure]:
    """Awaited gets of a warm key set, as many as there are records."""
    with _fresh() as path:
        async with Level(path) as level:
            await level.load(make_records(records))
            asked = _hot_keys(records)

            async def measure() -> float:
                start = perf_counter()
                for key in asked:
                    await level.get(key)
                return perf_counter() - start

            await measure()
            yield measure


@asynccontextmanager
async def readhot_plyvel(records: int) -> AsyncIterator[Measure]:
    """The same by plyvel and orjson alone."""
    with _fresh() as path, _bare_plyvel(path) as db:
        for key, value in make_records(records):
            db.put(key.encode(), orjson.dumps(value))
        asked = [key.encode() for key in _hot_keys(records)]

        async def measure() -> float:
            start = perf_counter()
            for key in asked:
                orjson.loads(db.get(key))
            return perf_counter() - start

        await measure()
        yield measure


@asynccontextmanager
async def queryall(records: int) -> AsyncIterator[Measure]:
    """``query()`` of everything, decoded."""
    with _fresh() as path:
        async with Level(path) as level:
            await level.load(make_records(records))

            async def measure() -> float:
                start = perf_counter()
                rows = await level.query()
                seconds = perf_counter() - start
                assert len(rows) == records
                return seconds

            yield measure


@asynccontextmanager
async def pull(records: int) -> AsyncIterator[Measure]:
    """``sync()`` of an empty client with a server in the same process."""
    with _fresh() as server_path:
        async with Level(server_path, mode=Level.SERVER) as server:
            await server.load(make_records(records))

            async def measure() -> float:
                with _fresh() as path:
                    async with Level(path, mode=Level.CLIENT) as client:
                        start = perf_counter()
                        report = await client.sync(server)
                        seconds = perf_counter() - start
                        assert report.pulled == records
                        return seconds

            yield measure


WORKLOADS: dict[str, Workload] = {
    workload.__name__: workload
    for workload in (build, build_json, fillbatch, fillbatch_plyvel, pull, queryall, readhot, readhot_plyvel)
}
