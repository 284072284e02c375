"""Encoding of batches, without a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import orjson

from treehub_level import Put, _core

from ..records import make_records
from .common import Figures, Measure, Workload, batches, puts


@asynccontextmanager
async def build(records: int, engine: str) -> AsyncIterator[Measure]:
    """Encode the batches of a server from values as objects."""
    yield _building(puts(records))


@asynccontextmanager
async def build_json(records: int, engine: str) -> AsyncIterator[Measure]:
    """Encode the batches of a server from values that are JSON bytes."""
    ops = (Put(key, _core.JSONBytes(orjson.dumps(value))) for key, value in make_records(records))
    yield _building(list(batches(ops)))


def _building(prepared: list[list[Put]]) -> Measure:
    space = _core.KeySpace("!")
    encoder = _core.Encoder(space)

    async def measure() -> Figures:
        cid = 0
        start = perf_counter()
        for batch in prepared:
            _core.server_batch(space, cid, encoder.ops(batch))
            cid += len(batch)
        return {"seconds": perf_counter() - start}

    return measure


WORKLOADS: dict[str, Workload] = {"build": build, "build_json": build_json}
