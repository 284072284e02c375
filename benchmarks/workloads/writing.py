"""Writes to an empty server. Each write adds a change to its log."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from treehub_level import Level

from ..records import make_records
from .common import Figures, Measure, Workload, engine_class, new_level, puts, puts_in_order

#: The number of tasks that put concurrently.
TASKS = 256

#: Writes prepared records to an open level.
Fill = Callable[[Level, Any], Awaitable[object]]


def _filling(fill: Fill, prepare: Callable[[int], Any]) -> Workload:
    """Return a workload that fills an empty server.

    The records are created in each run, so that idle contenders hold no memory.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        async def measure() -> Figures:
            prepared = prepare(records)
            gc.collect()  # a collection during the run would traverse the prepared records
            with new_level(engine, Level.SERVER) as level:
                async with level:
                    start = perf_counter()
                    await fill(level, prepared)
                    return {"seconds": perf_counter() - start}

        engine_class(engine)
        yield measure

    return workload


def _pairs(records: int) -> list[tuple[str, Any]]:
    return list(make_records(records))


async def _in_batches(level: Level, prepared: Any) -> None:
    for batch in prepared:
        await level.batch(batch)


async def _one_by_one(level: Level, prepared: Any) -> None:
    for key, value in prepared:
        await level.put(key, value)


async def _durably_one_by_one(level: Level, prepared: Any) -> None:
    for key, value in prepared:
        await level.put(key, value, durable=True)


async def _durably_from_many_tasks(level: Level, prepared: Any) -> None:
    pending = iter(prepared)
    await asyncio.gather(*(_durably_one_by_one(level, pending) for _ in range(TASKS)))


@asynccontextmanager
async def load10m(records: int, engine: str) -> AsyncIterator[Measure]:
    """Load the records from a generator. The process has allocated nothing else before."""

    async def measure() -> Figures:
        at_tenth = 0.0

        def progress(done: int) -> None:
            nonlocal at_tenth
            if not at_tenth and done * 10 >= records:
                at_tenth = perf_counter() - start
                figures["of_first"] = done / at_tenth

        figures: Figures = {}
        with new_level(engine, Level.SERVER) as level:
            async with level:
                start = perf_counter()
                await level.load(make_records(records), progress=progress)
                figures["seconds"] = perf_counter() - start
        figures["of_first"] = records / figures["seconds"] / figures["of_first"]
        return {**figures, **_peak_memory()}

    yield measure


def _peak_memory() -> Figures:
    """Return the peak resident memory in MB, with mapped files; nothing on Windows."""
    if sys.platform == "win32":
        return {}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)}


WORKLOADS: dict[str, Workload] = {
    "fillbatch": _filling(_in_batches, puts),
    "fillbatch_in_order": _filling(_in_batches, puts_in_order),
    "fillawait": _filling(_one_by_one, _pairs),
    "fillsync": _filling(_durably_from_many_tasks, _pairs),
    "fillsync_alone": _filling(_durably_one_by_one, _pairs),
    "load10m": load10m,
}
