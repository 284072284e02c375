"""Pages are bounded in bytes on every backend: also where long values follow many short ones."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from treehub_level.backends import create
from treehub_level.backends.base import Backend, Row
from treehub_level.engine.log import ROW_BYTES, read_rows

PAGE, VALUE = 8 << 20, (4 << 20) - 1000
SHORT = [(b"%06d" % number, b"v" * 40) for number in range(64_000)]
LONG = [(b"x%d" % number, b"v" * VALUE) for number in range(4)]


class CountingCursor:
    """A cursor that counts the bytes that it has returned."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.bytes = 0

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        return self._counted(self._cursor.fetch_within(limit, max_bytes))

    def _counted(self, rows: list[Row]) -> list[Row]:
        self.bytes += sum(len(value) for _, value in rows)
        return rows


class OldCursor(CountingCursor):
    """A cursor of a backend that has no `fetch_within`."""

    fetch_within: Any = property(lambda self: self._missing)  # raises AttributeError, like a missing method

    def fetch(self, limit: int) -> list[Row]:
        return self._counted(self._cursor.fetch(limit))


@pytest.fixture(params=["memory", "leveldb", "plyvel", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    backend = create(request.param, str(tmp_path / "store"), {})
    backend.open()
    for batch in (SHORT, LONG):
        with backend.write_lock.entry(), backend.exclusive() as transaction:
            transaction.write(batch)
    yield backend
    backend.close()


@pytest.mark.parametrize("kind", [CountingCursor, OldCursor])
def test_a_page_reads_at_most_8_mib_and_one_value(backend: Backend, kind: type[Any]) -> None:
    found: list[int] = []
    start: bytes | None = None
    while True:
        with closing(backend.scan(start, None)) as cursor:
            counting = kind(cursor)
            page = read_rows(counting, 65_536, PAGE)
        if not page:
            break
        assert counting.bytes <= PAGE + VALUE
        size = sum(len(key) + len(value) + ROW_BYTES for key, value in page)
        assert size <= PAGE or len(page) == 1
        found.append(len(page))
        start = page[-1][0] + b"\0"
    assert sum(found) == len(SHORT) + len(LONG)
    assert len(found) == 4  # short values; the rest of them with a long one; two long values, and not three


def test_a_fetch_of_many_long_values_ends_early(backend: Backend) -> None:
    with closing(backend.scan(b"x", None)) as cursor:
        fetched = cursor.fetch(1000)
        while fetched and (rows := cursor.fetch(1000)):
            fetched += rows
    assert fetched == LONG
    if type(backend).__name__ != "MemoryBackend":  # its values are in memory anyway
        with closing(backend.scan(b"x", None)) as cursor:
            assert cursor.fetch(1000) == LONG[:1]


class ShortRows:
    """A cursor over many rows, each a new object."""

    def __init__(self) -> None:
        self.count = 0

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        self.count += limit
        return [(b"k%06d" % number, b"v%06d" % number) for number in range(limit)]


def test_a_page_of_short_rows_takes_no_more_memory_than_its_bound() -> None:
    cursor: Any = ShortRows()
    tracemalloc.start()
    try:
        page = read_rows(cursor, 65_536, PAGE)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(page) > 50_000
    assert PAGE / 2 < size < PAGE * 1.25
