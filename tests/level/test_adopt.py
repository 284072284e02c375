"""``Level.adopt``: convert a NORMAL store to a server or a client."""

from pathlib import Path
from typing import Any

import pytest
from stores import Stores

from treehub_level import (
    InvalidKeyError,
    InvalidValueError,
    Level,
    LockedError,
    MemoryBackend,
    Mode,
    ModeMismatchError,
    StateError,
    StorageError,
    blocking,
)


async def create_normal_store(stores: Stores, pairs: Any) -> None:
    level = await stores.open("store")
    for key, value in pairs:
        await level.put(key, value)
    await level.close()


PAIRS = [("a", 1), ("b", {"x": [1, "é"]}), ("é", None), ("😀", "emoji"), ("z", False)]


async def test_a_server_that_adopts_a_plain_store_logs_its_keys(stores: Stores) -> None:
    await create_normal_store(stores, PAIRS)

    level = await stores.adopt("store", mode=Level.SERVER)
    await level.open()

    assert await level.query() == sorted(PAIRS)
    assert level.cid == len(PAIRS)
    assert (await level.changes(0))[:2] == (len(PAIRS), [[key, value] for key, value in sorted(PAIRS)])


async def test_a_client_that_adopts_a_plain_store_marks_its_keys_dirty(stores: Stores) -> None:
    await create_normal_store(stores, PAIRS)

    level = await stores.adopt("store", mode=Level.CLIENT)
    await level.open()

    assert await level.query() == sorted(PAIRS)
    assert level.cid == 0
    assert await level.dirty() == [[key, value] for key, value in sorted(PAIRS)]


async def test_an_adopted_client_syncs(stores: Stores, server: Any) -> None:
    await create_normal_store(stores, PAIRS)
    client = await stores.adopt("store", mode=Level.CLIENT)
    await client.open()

    report = await client.sync(server)

    assert report.pushed == len(PAIRS)
    assert await server.query() == sorted(PAIRS)


async def test_adopting_more_than_one_batch_loses_nothing(stores: Stores) -> None:
    level = await stores.open("store")
    pairs = [(f"k{n:05}", n) for n in range(3500)]
    await level.load(pairs)
    await level.close()

    level = await stores.adopt("store", mode=Level.SERVER)
    await level.open()

    assert level.cid == 3500
    assert await level.query() == pairs
    assert (await level.changes(3498)).changes == [["k03498", 3498], ["k03499", 3499]]


@pytest.mark.parametrize("mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
@pytest.mark.parametrize("key", ["", "!", "!a", "!!adopting", " ", "\t", "k" * 1025])
async def test_a_key_that_the_mode_cannot_hold_stops_adoption_before_it_begins(
    stores: Stores, mode: Mode, key: Any
) -> None:
    await create_normal_store(stores, [("a", 1), (key, 2)])
    before = stores.raw("store")

    with pytest.raises(InvalidKeyError):
        await stores.adopt("store", mode=mode)

    assert stores.raw("store") == before


async def test_a_value_that_the_mode_cannot_hold_stops_adoption_before_it_begins(stores: Stores) -> None:
    await create_normal_store(stores, [("a", 1), ("big", "x" * (4 * 1024 * 1024))])
    before = stores.raw("store")

    with pytest.raises(InvalidValueError):
        await stores.adopt("store", mode=Level.SERVER)

    assert stores.raw("store") == before


@pytest.mark.parametrize("value", [b'{"a":1,"a":2}', b"[18446744073709551616]", b"{"])
async def test_a_value_that_json_cannot_round_trip_stops_adoption(stores: Stores, value: bytes) -> None:
    level = await stores.open("store", value_encoding="bytes")
    await level.put("a", value)
    await level.close()

    with pytest.raises(InvalidValueError, match="the value of 'a' is not allowed"):
        await stores.adopt("store", mode=Level.SERVER)


async def test_a_store_of_another_mode_is_not_adopted(stores: Stores, server: Any) -> None:
    await server.put("a", 1)
    before = await stores.bytes_of(server)
    await server.close()

    with pytest.raises(ModeMismatchError):
        await stores.adopt("server", mode=Level.CLIENT)

    assert stores.raw("server") == before


async def test_adopting_into_normal_mode_is_an_error(stores: Stores) -> None:
    await create_normal_store(stores, PAIRS)
    with pytest.raises(ValueError, match="adopted as"):
        await stores.adopt("store", mode=Level.NORMAL)


async def test_an_empty_store_may_be_adopted(stores: Stores) -> None:
    await create_normal_store(stores, [])
    level = await stores.adopt("store", mode=Level.SERVER)
    await level.open()
    assert level.cid == 0
    assert await level.put("a", 1) is None


def test_a_missing_store_is_not_adopted(tmp_path: Path, engine: str) -> None:
    with pytest.raises(StateError, match="no store"):
        blocking.Level.adopt(tmp_path / "nothing", backend=engine, mode=Level.SERVER)
    assert not (tmp_path / "nothing").exists()


def test_an_open_store_is_not_adopted(tmp_path: Path, engine: str) -> None:
    with blocking.Level(tmp_path / "store", backend=engine) as level:
        level.put("a", 1)
        with pytest.raises(LockedError):
            blocking.Level.adopt(tmp_path / "store", backend=engine, mode=Level.SERVER)
        assert level.get("a") == 1


async def test_adopting_reports_progress(stores: Stores) -> None:
    level = await stores.open("store")
    await level.load((f"k{n:05}", n) for n in range(2500))
    await level.close()
    seen: list[int] = []
    await stores.adopt("store", mode=Level.CLIENT, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 2500


async def test_adopting_twice_is_harmless(stores: Stores) -> None:
    await create_normal_store(stores, PAIRS)
    await stores.adopt("store", mode=Level.SERVER)
    before = stores.raw("store")
    await stores.adopt("store", mode=Level.SERVER)
    assert stores.raw("store") == before


class FailingBackend(MemoryBackend):
    """A backend whose writes fail after ``writes_left`` writes."""

    writes_left: int | None = None

    def write(self, batch: Any, *, durable: Any = False) -> None:
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise StorageError("no space left on device")
            self.writes_left -= 1
        super().write(batch, durable=durable)


@pytest.mark.parametrize("mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
@pytest.mark.parametrize("writes", range(5))
def test_an_interrupted_adoption_is_completed_by_the_next_call(mode: Mode, writes: int) -> None:
    backend = FailingBackend("x")
    pairs = [(f"k{n:05}", n) for n in range(2500)]
    with blocking.Level("x", backend=lambda name: backend) as level:
        level.load(pairs)

    backend.writes_left = writes
    with pytest.raises(StorageError):
        blocking.Level.adopt("x", backend=lambda name: backend, mode=mode)
    backend.writes_left = None

    if writes:
        other = Level.CLIENT if mode is Level.SERVER else Level.SERVER
        for any_mode in Level.NORMAL, mode:
            with pytest.raises(StateError, match="interrupted"):
                blocking.Level("x", backend=lambda name: backend, mode=any_mode).open()
        with pytest.raises(ModeMismatchError):
            blocking.Level.adopt("x", backend=lambda name: backend, mode=other)
    with blocking.Level.adopt("x", backend=lambda name: backend, mode=mode) as level:
        assert level.query() == pairs
        changes = level.changes(0, limit=None).changes if mode is Level.SERVER else level.dirty(limit=None)
        assert changes == [[key, value] for key, value in pairs]
