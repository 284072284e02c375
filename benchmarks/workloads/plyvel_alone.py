"""The workloads of plyvel and orjson alone, with the options of the backend ``plyvel``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import orjson

from treehub_level import _core
from treehub_level.backends.base import Batch

from ..records import make_records
from .common import BATCH, HOT_KEYS, Figures, Measure, Workload, batches, engine_class, filled, keys_to_read, new_path


def server_entries(records: int, size: int = BATCH) -> Iterator[Batch]:
    """Yield the entries that a server writes for each batch: values, log and CID."""
    space = _core.KeySpace("!")
    encoder = _core.Encoder(space)
    cid = 0
    for pairs in batches(make_records(records), size):
        yield _core.server_batch(space, cid, encoder.pairs(pairs))
        cid += len(pairs)


@contextmanager
def _open_db(path: str) -> Iterator[Any]:
    """Open a store, and yield the ``plyvel.DB``."""
    backend: Any = engine_class("plyvel")(path)
    backend.open()
    try:
        yield backend._db
    finally:
        backend.close()


def _filling(size: int) -> Workload:
    """Return a workload that writes prepared entries, in batches of ``size`` records."""

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        async def measure() -> Figures:
            prepared = list(server_entries(records, size))
            with new_path() as path, _open_db(path) as db:
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
        wanted = [key.encode() for key in keys_to_read(records, among=among or records)]
        with filled(records, engine_class("plyvel")) as path, _open_db(path) as db:

            async def measure() -> Figures:
                start = perf_counter()
                result = read(db, wanted)
                seconds = perf_counter() - start
                del result
                return {"seconds": seconds}

            await measure()
            yield measure

    return workload


def _get_each(db: Any, wanted: Iterable[bytes]) -> None:
    for key in wanted:
        orjson.loads(db.get(key))


def _list_all(db: Any, wanted: Iterable[bytes]) -> list[tuple[str, Any]]:
    return [(key.decode(), orjson.loads(value)) for key, value in db.iterator(start=b'"')]


WORKLOADS: dict[str, Workload] = {
    "fillbatch_plyvel": _filling(BATCH),
    "fillawait_plyvel": _filling(1),
    "readhot_plyvel": _reading(_get_each, HOT_KEYS),
    "readrandom_plyvel": _reading(_get_each),
    "queryall_plyvel": _reading(_list_all),
}
