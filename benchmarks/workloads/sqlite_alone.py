"""The workload of sqlite3 alone, in a file created by the backend ``sqlite``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from treehub_level.backends.sqlite import SQLiteBackend

from .common import Figures, Measure, Workload, new_path
from .plyvel_alone import server_entries


@asynccontextmanager
async def _fillbatch(records: int, engine: str) -> AsyncIterator[Measure]:
    async def measure() -> Figures:
        prepared = list(server_entries(records))
        with new_path() as path:
            backend = SQLiteBackend(path)
            backend.open()
            writer = backend._file.writer
            assert writer is not None
            start = perf_counter()
            for batch in prepared:
                writer.execute("BEGIN IMMEDIATE")
                writer.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", iter(batch))
                writer.execute("COMMIT")
            seconds = perf_counter() - start
            backend.close()
        return {"seconds": seconds}

    yield measure


WORKLOADS: dict[str, Workload] = {"fillbatch_sqlite": _fillbatch}
