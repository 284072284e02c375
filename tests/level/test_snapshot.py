"""snapshot(): every reading method on the state of one point in time."""

import gc
import random
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from stores import Stores

from treehub_level import MISSING, Level, Mode, NotOpenError, blocking
from treehub_level.engine.store import Store

pytestmark = pytest.mark.shared


async def test_every_reading_method_of_a_snapshot_ignores_later_writes(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.load([("a", 1), ("b", 2), ("c", 3)])
    async with level.snapshot() as snapshot:
        await level.put("a", "changed")
        await level.delete("b")
        await level.put("d", "new")

        assert await snapshot.get("a") == 1
        assert await snapshot.get("d", MISSING) is MISSING
        assert await snapshot.has("b")
        assert not await snapshot.has("d")
        assert await snapshot.get_many(["d", "b", "a"]) == [None, 2, 1]
        assert await snapshot.query(gte="b") == [("b", 2), ("c", 3)]
        assert await snapshot.keys(reverse=True) == ["c", "b", "a"]
        assert await snapshot.values(limit=2) == [1, 2]
        assert await snapshot.count() == 3
        assert [pair async for pair in snapshot.scan()] == [("a", 1), ("b", 2), ("c", 3)]
    assert await level.query() == [("a", "changed"), ("c", 3), ("d", "new")]


async def test_two_snapshots_hold_two_states(level: Any) -> None:
    await level.put("a", 1)
    async with level.snapshot() as first:
        await level.put("a", 2)
        async with level.snapshot() as second:
            await level.put("a", 3)
            assert [await first.get("a"), await second.get("a"), await level.get("a")] == [1, 2, 3]
        assert await first.get("a") == 1


async def test_a_closed_snapshot_refuses_to_read(level: Any) -> None:
    await level.put("a", 1)
    async with level.snapshot() as snapshot:
        pass
    with pytest.raises(NotOpenError):
        await snapshot.get("a")
    with pytest.raises(NotOpenError):
        await snapshot.query()
    await snapshot.close()
    assert await level.get("a") == 1


async def test_a_snapshot_can_be_closed_without_a_context(level: Any) -> None:
    await level.put("a", 1)
    snapshot = level.snapshot()
    assert await snapshot.get("a") == 1
    await snapshot.close()
    await snapshot.close()
    with pytest.raises(NotOpenError):
        await snapshot.get("a")


async def test_a_scan_of_a_closed_snapshot_never_shows_later_writes(level: Any) -> None:
    pairs = [(f"{n:05}", n) for n in range(3000)]
    await level.load(pairs)
    seen: list[tuple[str, int]] = []
    with suppress(NotOpenError):
        async with level.snapshot() as snapshot:
            async for pair in snapshot.scan():
                if not seen:
                    await snapshot.close()
                    await level.clear()
                seen.append(pair)
    assert seen == pairs[: len(seen)]


async def test_closing_the_level_closes_its_snapshots(level: Any) -> None:
    await level.put("a", 1)
    async with level.snapshot() as snapshot:
        await level.close()
        with pytest.raises(NotOpenError):
            await snapshot.get("a")
    await level.open()
    with pytest.raises(NotOpenError):
        await snapshot.get("a")
    assert await level.get("a") == 1


async def test_a_snapshot_of_a_sublevel_stays_in_it(stores: Stores) -> None:
    level = await stores.open("store", mode=Level.CLIENT)
    sublevel = level.sublevel("sub")
    await sublevel.put("a", 1)
    await level.put("b", 2)
    async with sublevel.snapshot() as snapshot:
        await sublevel.put("c", 3)
        assert await snapshot.query() == [("a", 1)]


def collect(objects: list[object]) -> None:
    objects.clear()
    gc.collect()


async def test_a_forgotten_snapshot_is_released_with_a_warning(level: Any) -> None:
    await level.put("a", 1)
    forgotten = level.snapshot()
    assert await forgotten.get("a") == 1
    assert (await level.info())["snapshots"] == 1
    handles = [forgotten]
    del forgotten
    with pytest.warns(ResourceWarning, match="a snapshot of the level .* was not closed"):
        collect(handles)
    assert (await level.info())["snapshots"] == 0
    await level.put("a", 2)
    assert not level._store._opened


@pytest.mark.once
@pytest.mark.parametrize("forgets", [True, False], ids=["", "control"])
@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_forgotten_snapshots_keep_no_old_data_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, forgets: bool
) -> None:
    if not forgets:
        monkeypatch.setattr(Store, "forget", lambda store, opened, name: None)
    with blocking.Level(tmp_path / "store", backend=backend) as level:
        for _ in range(12):
            level.load((f"k{n}", random.randbytes(5000).hex()) for n in range(20))
            with pytest.warns(ResourceWarning) if forgets else nullcontext():
                collect([level.snapshot()])
            level.compact_range()
        size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert (size < 900_000) is forgets, size


async def test_info_counts_the_open_snapshots_and_scans(level: Any) -> None:
    await level.load((f"k{n:04}", n) for n in range(3000))
    async with level.snapshot() as first, level.snapshot():
        async for _ in first.scan():
            assert [(await level.info())[name] for name in ("snapshots", "cursors")] == [2, 1]
            break
        gc.collect()
    assert [(await level.info())[name] for name in ("snapshots", "cursors")] == [0, 0]


async def test_a_closed_snapshot_warns_of_nothing(level: Any, recwarn: pytest.WarningsRecorder) -> None:
    closed = level.snapshot()
    await closed.close()
    del closed
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]
