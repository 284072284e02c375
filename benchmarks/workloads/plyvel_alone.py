"""The same work by plyvel and orjson alone, with the options that our backend gives plyvel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import orjson

from treehub_level import _core
from treehub_level.backends.base import Batch

from ..records import make_records
from .common import BATCH, HOT_KEYS, Figures, Measure, Workload, asked_keys, batches, engine_class, filled, fresh


def server_entries(records: int, size: int = BATCH) -> Iterator[Batch]:
    """What a server writes for batches of that size: the values, the log, the CID."""
    space = _core.KeySpace("!")
    encoder = _core.Encoder(space)
    cid = 0
    for pairs in batches(make_records(records), size):
        yield _core.server_batch(space, cid, encoder.pairs(pairs))
        cid += len(pairs)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A database of plyvel's own."""
    backend: Any = engine_class("plyvel")(path)
    backend.open()
    try:
        yield backend._db
    finally:
        backend.close()


def _filling(size: int) -> Workload:
    """Entries that are given, so many records of them at a time."""

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        async def measure() -> Figures:
            prepared = list(server_entries(records, size))
            with fresh() as path, _opened(path) as db:
                start = perf_counter()
                for batch in prepared:
                    with db.write_batch() as changes:
                        for key, value in batch:
                            changes.put(key, value)
                return {"seconds": perf_counter() - start}

        engine_class("plyvel")
        yield measure

    return workload


def _reading(read: Callable[[Any, Iterable[bytes]], object], among: int | None = None) -> Workload:
    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        asked = [key.encode() for key in asked_keys(records, among=among or records)]
        with filled(records, engine_class("plyvel")) as path, _opened(path) as db:

            async def measure() -> Figures:
                start = perf_counter()
                result = read(db, asked)
                seconds = perf_counter() - start
                del result
                return {"seconds": seconds}

            await measure()
            yield measure

    return workload


def _get_each(db: Any, asked: Iterable[bytes]) -> None:
    for key in asked:
        orjson.loads(db.get(key))


def _list_all(db: Any, asked: Iterable[bytes]) -> list[tuple[str, Any]]:
    return [(key.decode(), orjson.loads(value)) for key, value in db.iterator(start=b'"')]


WORKLOADS: dict[str, Workload] = {
    "fillbatch_plyvel": _filling(BATCH),
    "fillawait_plyvel": _filling(1),
    "readhot_plyvel": _reading(_get_each, HOT_KEYS),
    "readrandom_plyvel": _reading(_get_each),
    "queryall_plyvel": _reading(_list_all),
}
