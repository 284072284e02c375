"""Reads of a store that was filled, compacted and reopened, after one unmeasured run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from treehub_level import Level

from .common import HOT_KEYS, Figures, Measure, Workload, engine_class, filled, keys_to_read

#: Rows between two samples of the memory.
_SAMPLE_EVERY = 10_000
_STATUS = Path("/proc/self/status")


@asynccontextmanager
async def _open(records: int, engine: str) -> AsyncIterator[Level]:
    backend = engine_class(engine)
    with filled(records, backend) as path:
        async with Level(path, backend=backend) as level:
            yield level


def _getting(among: int | None) -> Workload:
    """Return a workload of awaited gets, one per record.

    Args:
        among: The number of keys to choose from; ``None`` for all keys.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        wanted = keys_to_read(records, among=among or records)
        async with _open(records, engine) as level:

            async def measure() -> Figures:
                start = perf_counter()
                for key in wanted:
                    await level.get(key)
                return {"seconds": perf_counter() - start}

            await measure()
            yield measure

    return workload


@asynccontextmanager
async def queryall(records: int, engine: str) -> AsyncIterator[Measure]:
    """Read all records with ``query()``."""
    async with _open(records, engine) as level:

        async def measure() -> Figures:
            start = perf_counter()
            rows = await level.query()
            seconds = perf_counter() - start
            assert len(rows) == records
            return {"seconds": seconds}

        await measure()
        yield measure


@asynccontextmanager
async def scan(records: int, engine: str) -> AsyncIterator[Measure]:
    """Read all records with ``async for``."""
    async with _open(records, engine) as level:

        async def measure() -> Figures:
            count = 0
            memory = []
            start = perf_counter()
            async for _ in level.scan():
                if count % _SAMPLE_EVERY == 0:
                    memory.append(_memory())
                count += 1
            seconds = perf_counter() - start
            assert count == records
            return {"seconds": seconds, "grown": max(memory) - memory[0]} if memory[0] else {"seconds": seconds}

        await measure()
        yield measure


def _memory() -> float:
    """Return the memory of the process in MB, without mapped files; 0 if it is unknown."""
    if not _STATUS.exists():
        return 0
    fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024 / 1e6


WORKLOADS: dict[str, Workload] = {
    "readhot": _getting(HOT_KEYS),
    "readrandom": _getting(None),
    "queryall": queryall,
    "scan": scan,
}
