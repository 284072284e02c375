"""scan(): streamed from one snapshot, in bounded memory, and closed with the level."""

import gc
import weakref
from contextlib import aclosing
from typing import Any

import pytest

from treehub_level import MemoryBackend, NotOpenError, Put, blocking

PAIRS = [(f"{n:05}", n) for n in range(4000)]


async def test_a_scan_yields_the_pairs_in_order(level: Any) -> None:
    await level.load(PAIRS)
    assert [pair async for pair in level.scan()] == PAIRS
    assert [pair async for pair in level.scan(reverse=True)] == PAIRS[::-1]


async def test_a_scan_does_not_see_later_writes(level: Any) -> None:
    await level.load(PAIRS)
    seen: list[tuple[str, int]] = []
    async for key, value in level.scan():
        if not seen:
            await level.clear(gte="00100")
            await level.batch([Put("00050", "changed"), Put("09999", "new")])
        seen.append((key, value))
    assert seen == PAIRS


async def test_several_scans_of_one_level_do_not_disturb_each_other(level: Any) -> None:
    await level.load(PAIRS[:10])
    pairs = []
    async for left, _ in level.scan(limit=3):
        async for right, _ in level.scan(limit=2, reverse=True):
            pairs.append((left, right))
    assert pairs == [(f"{n:05}", right) for n in range(3) for right in ("00009", "00008")]


async def test_a_scan_may_be_left_early(level: Any) -> None:
    await level.load(PAIRS)
    async with aclosing(aiter(level.scan())) as scan:
        async for key, _ in scan:
            if key == "00010":
                break
    assert await level.count() == 4000


async def test_a_scan_raises_after_its_level_is_closed(level: Any) -> None:
    await level.load(PAIRS)
    with pytest.raises(NotOpenError) as caught:
        async for _ in level.scan():
            if level.is_open:
                await level.close()
    assert caught.value.code == "LEVEL_DATABASE_NOT_OPEN"


async def test_a_scan_begun_before_a_reopening_raises(level: Any) -> None:
    await level.load(PAIRS)
    seen = 0
    with pytest.raises(NotOpenError):
        async for _ in level.scan():
            if not seen:
                await level.close()
                await level.open()
            seen += 1
    assert seen < 4000


async def test_a_scan_first_used_after_closing_raises(level: Any) -> None:
    scan = level.scan()
    await level.close()
    with pytest.raises(NotOpenError):
        async for _ in scan:
            pass


class Counting(MemoryBackend):
    """A backend that counts its open cursors and the rows that they have fetched."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cursors: weakref.WeakSet[CountingCursor] = weakref.WeakSet()
        self.rows = 0
        self.level: Any = None

    @property
    def open_cursors(self) -> Any:
        return sum(not cursor.closed for cursor in self.cursors)

    def scan(self, *args: Any, **options: Any) -> Any:
        cursor = CountingCursor(self, super().scan(*args, **options))
        self.cursors.add(cursor)
        return cursor


class CountingCursor:
    def __init__(self, backend: Counting, cursor: Any) -> None:
        self._backend = backend
        self._cursor = cursor
        self.closed = False

    def fetch(self, limit: Any) -> Any:
        rows = self._cursor.fetch(limit)
        self._backend.rows += len(rows)
        return rows

    def fetch_keys(self, limit: Any) -> Any:
        return self._cursor.fetch_keys(limit)

    def close(self) -> None:
        self.closed = True
        self._cursor.close()


@pytest.fixture
def counting() -> Any:
    """A backend under an open level of 4000 keys."""
    backend = Counting("x")
    with blocking.Level("x", backend=lambda name: backend) as level:
        level.load(PAIRS)
        backend.level = level
        yield backend


def test_a_scan_fetches_chunks_on_demand(counting: Any) -> None:
    scan = counting.level.scan()
    next(scan)
    assert 0 < counting.rows < 4000
    scan.close()


def test_a_scan_that_is_closed_or_dropped_closes_its_cursor(counting: Any) -> None:
    scan = counting.level.scan()
    next(scan)
    assert counting.open_cursors == 1
    scan.close()
    assert counting.open_cursors == 0

    for _ in counting.level.scan():
        break
    gc.collect()
    assert counting.open_cursors == 0


def test_a_call_whose_filter_raises_closes_its_cursor(counting: Any) -> None:
    level = counting.level
    for verb in (level.query, level.count, lambda **options: list(level.scan(**options))):
        with pytest.raises(ZeroDivisionError):
            verb(filter=lambda key, value: 1 / 0)
    for verb in (level.keys, level.values):
        with pytest.raises(ZeroDivisionError):
            verb(filter=lambda item: 1 / 0)
    assert counting.open_cursors == 0


def test_closing_the_level_closes_the_cursors_of_its_scans(counting: Any) -> None:
    scan = counting.level.scan()
    next(scan)
    counting.level.close()
    assert counting.open_cursors == 0
    counting.level.open()
