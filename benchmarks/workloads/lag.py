"""The lag of the event loop during a long operation.

A callback is due every millisecond, and its delay is recorded. During a stall, each millisecond
counts as a late callback of its own. Otherwise a stall of one second would be a single sample among
thousands ("coordinated omission", Gil Tene).
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

#: Seconds between two callbacks.
_PERIOD = 0.001


@asynccontextmanager
async def lag_load(records: int, engine: str) -> AsyncIterator[Measure]:
    """Measure the lag while ``load()`` fills a server."""

    async def measure() -> Figures:
        prepared = list(make_records(records))
        gc.collect()  # see `writing`
        with new_level(engine, Level.SERVER) as level:
            async with level:
                return await measure_lag(level.load(prepared))

    yield measure


@asynccontextmanager
async def lag_query(records: int, engine: str) -> AsyncIterator[Measure]:
    """Measure the lag while ``query()`` returns all records."""
    backend = engine_class(engine)
    with filled(records, backend) as path:
        async with Level(path, backend=backend) as level:

            async def measure() -> Figures:
                return await measure_lag(level.query())

            yield measure


async def measure_lag(work: Awaitable[object]) -> Figures:
    """Return the duration of ``work`` in seconds, and the loop lag meanwhile in milliseconds."""
    delays: list[float] = []
    sampler = asyncio.ensure_future(_sample(delays))
    await asyncio.sleep(0)  # let the sampler start
    start = perf_counter()
    result = await work
    seconds = perf_counter() - start
    await asyncio.sleep(4 * _PERIOD)  # let the sampler record the end of the work
    sampler.cancel()
    del result
    percentiles = quantiles(delays, n=100, method="inclusive")
    return {
        "seconds": seconds,
        "lag_p50": percentiles[49] * 1000,
        "lag_p99": percentiles[98] * 1000,
        "lag_max": max(delays) * 1000,
    }


async def _sample(delays: list[float]) -> None:
    due = perf_counter() + _PERIOD
    while True:
        await asyncio.sleep(due - perf_counter())
        now = perf_counter()
        while due <= now:
            delays.append(now - due)
            due += _PERIOD


WORKLOADS: dict[str, Workload] = {"lag_load": lag_load, "lag_query": lag_query}
