"""Facts about a level, and about a store that is not open."""

from pathlib import Path
from typing import Any

import pytest
from stores import Stores

from treehub_level import Level, MemoryBackend, Mode, blocking
from treehub_level.backends.base import Supports


async def test_a_level_knows_its_name_and_mode_whether_open_or_not(stores: Stores, mode: Mode) -> None:
    level = stores.level("store", mode=mode)
    assert (level.name, level.mode, level.is_open) == (stores.path("store"), mode, False)
    async with level:
        assert (level.name, level.mode, level.is_open) == (stores.path("store"), mode, True)


async def test_info_returns_the_facts(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode, prefix="#")
    await level.put("a", 1)
    info = await level.info()
    assert set(info) == {"name", "backend", "mode", "prefix", "format", "store", "cid", "bytes", "snapshots", "cursors"}
    assert (info["name"], info["mode"], info["prefix"], info["format"]) == (level.name, mode.value, "#", 1)
    assert info["cid"] == {Mode.NORMAL: None, Mode.SERVER: 1, Mode.CLIENT: 0}[mode]
    assert (info["store"] is None) == (mode is Mode.NORMAL)
    assert info["bytes"] is None or info["bytes"] > 0


async def test_compact_range_can_be_called(level: Any) -> None:
    await level.load((f"k{n}", "x" * 1000) for n in range(1000))
    await level.clear()
    assert await level.compact_range() is None
    assert await level.count() == 0


async def test_the_repr_of_either_level_says_whether_it_is_open(stores: Stores, api: str) -> None:
    level = stores.level("store", mode=Level.SERVER)
    shown = level if api == "async" else level.blocking
    assert "SERVER closed" in repr(shown)
    await level.open()
    assert "SERVER open" in repr(shown)


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: f"mode={mode.value}")
def test_the_mode_of_a_store_can_be_asked_without_opening_it(tmp_path: Path, mode: Mode) -> None:
    path = tmp_path / "store"
    assert blocking.stored_mode(path) is None
    assert not path.exists()
    with blocking.Level(path, mode=mode) as level:
        level.put("a", 1)
    assert blocking.stored_mode(path) is mode


@pytest.mark.parametrize(
    ("rows", "mode"),
    [
        ([], Mode.NORMAL),
        ([(b"a", b"1")], Mode.NORMAL),
        ([(b"!", b"1"), (b"!1", b'["a",1]'), (b"a", b"1")], Mode.SERVER),
        ([(b"!", b"7"), (b"!b", b'["b",1]'), (b"b", b"1")], Mode.CLIENT),
        ([(b"!", b"7"), (b"b", b"1")], Mode.CLIENT),
    ],
    ids=repr,
)
async def test_the_mode_of_a_store_of_the_npm_package_is_derived_from_its_keys(
    stores: Stores, rows: Any, mode: Mode
) -> None:
    stores.seed("store", rows)
    assert stores.stored_mode("store") is mode


class SlowReads(MemoryBackend):
    """A backend whose reads are too slow for an event loop."""

    supports = Supports(persistent=False, inline_reads=False)


async def test_a_backend_that_is_slow_to_read_is_read_in_threads() -> None:
    async with Level("x", backend=SlowReads, mode=Level.SERVER) as level:
        await level.put("a", 1)
        assert await level.get("a") == 1
        assert await level.has("a")
        assert await level.get_many(["a", "b"]) == [1, None]
        async with level.snapshot() as snapshot:
            assert await snapshot.get("a") == 1
