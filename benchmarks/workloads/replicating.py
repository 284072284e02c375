"""Replication between a server and a client in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from treehub_level import Level, Put

from ..records import make_key, make_records
from .common import Figures, Measure, Workload, batches, engine_class, filled, new_level

#: The number of keys that are overwritten.
_OVERWRITTEN = 1000


@asynccontextmanager
async def pull(records: int, engine: str) -> AsyncIterator[Measure]:
    """Sync an empty client with a server that has all records."""
    backend = engine_class(engine)
    with filled(records, backend, mode=Level.SERVER) as path:
        async with Level(path, backend=backend, mode=Level.SERVER) as server:

            async def measure() -> Figures:
                pulled, seconds = await _pull(server, engine)
                assert pulled == records
                return {"seconds": seconds}

            yield measure


@asynccontextmanager
async def history(records: int, engine: str) -> AsyncIterator[Measure]:
    """Compact the log after many overwrites of few keys; then a new client pulls."""
    keys = min(_OVERWRITTEN, -(-records // 10))

    async def measure() -> Figures:
        with new_level(engine, Level.SERVER) as server:
            async with server:
                overwrites = (Put(make_key(n % keys), value) for n, (_, value) in enumerate(make_records(records)))
                for batch in batches(overwrites):
                    await server.batch(batch)
                start = perf_counter()
                await server.compact_log()
                seconds = perf_counter() - start
                pulled, pull_seconds = await _pull(server, engine)
                return {"seconds": seconds, "pulled": pulled / keys, "pull_seconds": pull_seconds}

    yield measure


async def _pull(server: Level, engine: str) -> tuple[int, float]:
    """Sync a new client. Return the number of changes pulled, and the seconds."""
    with new_level(engine, Level.CLIENT) as client:
        async with client:
            start = perf_counter()
            report = await client.sync(server)
            return report.pulled, perf_counter() - start


WORKLOADS: dict[str, Workload] = {"pull": pull, "history": history}
