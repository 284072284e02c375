"""The workloads of psycopg alone, with the table of the backend ``postgres``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from time import perf_counter

from .common import Figures, Measure, NotInstalledError, Workload, database, embedded_postgres
from .plyvel_alone import server_entries

try:
    import psycopg
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

_TABLE = "CREATE TABLE entries (store text, key bytea, value bytea, PRIMARY KEY (store, key))"
_COPY = "COPY entries (store, key, value) FROM STDIN"

_Rows = list[tuple[str, bytes, bytes | None]]


def _filling(*, at_once: bool) -> Workload:
    """Return a workload that copies the rows of each batch, or all rows at once.

    The row of the CID is left out: COPY cannot write a key twice.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        async def measure() -> Figures:
            prepared: list[_Rows] = [
                [("store", key, value) for key, value in batch if key != b"!"] for batch in server_entries(records)
            ]
            if at_once:
                prepared = [[row for rows in prepared for row in rows]]
            with database() as url, psycopg.connect(url, autocommit=True) as connection:
                connection.execute(_TABLE)
                start = perf_counter()
                for rows in prepared:
                    _copy(connection, rows)
                return {"seconds": perf_counter() - start}

        embedded_postgres()
        if _missing:
            raise NotInstalledError(_missing)
        yield measure

    return workload


def _copy(connection: psycopg.Connection, rows: Iterable[tuple[str, bytes, bytes | None]]) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)


WORKLOADS: dict[str, Workload] = {
    "fillbatch_copy": _filling(at_once=False),
    "fillbatch_copy_at_once": _filling(at_once=True),
}
