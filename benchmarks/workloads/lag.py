"""How late the event loop is while something long runs.

A callback is due every millisecond. Those that fell due while the loop was held up waited too, and
count: else one stall of a second would be one late callback among thousands (Gil Tene's
"coordinated omission").
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from statistics import quantiles
from time import perf_counter

from treehub_level import Level

from ..records import make_records
from .common import Figures, Measure, Workload, engine_class, filled, new_level

_PERIOD = 0.001


@asynccontextmanager
async def lag_load(records: int, engine: str) -> AsyncIterator[Measure]:
    """While ``load()`` fills a server."""

    async def measure() -> Figures:
        prepared = list(make_records(records))
        gc.collect()  # see `writing`
        with new_level(engine, Level.SERVER) as level:
            async with level:
                return await watched(level.load(prepared))

    yield measure


@asynccontextmanager
async def lag_query(records: int, engine: str) -> AsyncIterator[Measure]:
    """While ``query()`` returns everything."""
    backend = engine_class(engine)
    with filled(records, backend) as path:
        async with Level(path, backend=backend) as level:

            async def measure() -> Figures:
                return await watched(level.query())

            yield measure


async def watched(work: Awaitable[object]) -> Figures:
    """How long the work takes, and how late callbacks come meanwhile."""
    waited: list[float] = []
    watching = asyncio.ensure_future(_watch(waited))
    await asyncio.sleep(0)  # it has begun
    start = perf_counter()
    result = await work
    seconds = perf_counter() - start
    await asyncio.sleep(4 * _PERIOD)  # what fell due during the work is counted
    watching.cancel()
    del result
    percentiles = quantiles(waited, n=100, method="inclusive")
    return {
        "seconds": seconds,
        "lag_p50": percentiles[49] * 1000,
        "lag_p99": percentiles[98] * 1000,
        "lag_max": max(waited) * 1000,
    }


async def _watch(waited: list[float]) -> None:
    due = perf_counter() + _PERIOD
    while True:
        await asyncio.sleep(due - perf_counter())
        now = perf_counter()
        while due <= now:
            waited.append(now - due)
            due += _PERIOD


WORKLOADS: dict[str, Workload] = {"lag_load": lag_load, "lag_query": lag_query}
