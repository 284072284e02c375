"""Reading a store that was filled, compacted and opened anew. Each contender reads everything once before it counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from treehub_level import Level

from .common import HOT_KEYS, Figures, Measure, Workload, asked_keys, engine_class, filled

#: How often a scan looks at its memory: every so many rows.
_LOOK_EVERY = 10_000
_STATUS = Path("/proc/self/status")


@asynccontextmanager
async def _open(records: int, engine: str) -> AsyncIterator[Level]:
    backend = engine_class(engine)
    with filled(records, backend) as path:
        async with Level(path, backend=backend) as level:
            yield level


def _getting(among: int | None) -> Workload:
    """Awaited gets, as many as there are records."""

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        asked = asked_keys(records, among=among or records)
        async with _open(records, engine) as level:

            async def measure() -> Figures:
                start = perf_counter()
                for key in asked:
                    await level.get(key)
                return {"seconds": perf_counter() - start}

            await measure()
            yield measure

    return workload


@asynccontextmanager
async def queryall(records: int, engine: str) -> AsyncIterator[Measure]:
    """``query()`` of everything, decoded."""
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
    """``async for`` over everything."""
    async with _open(records, engine) as level:

        async def measure() -> Figures:
            count = 0
            memory = []
            start = perf_counter()
            async for _ in level.scan():
                if count % _LOOK_EVERY == 0:
                    memory.append(_memory())
                count += 1
            seconds = perf_counter() - start
            assert count == records
            return {"seconds": seconds, "grown": max(memory) - memory[0]} if memory[0] else {"seconds": seconds}

        await measure()
        yield measure


def _memory() -> float:
    """Megabytes that this process has now, without files that are mapped; 0 where the system does not tell."""
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
