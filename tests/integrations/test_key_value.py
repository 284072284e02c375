"""The store for py-key-value-aio, against the contract of that library.

The tests of the library itself are not in its distribution; `docs/key-value.md` says how to run
them.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from key_value.aio import protocols
from key_value.aio.errors import (
    DeserializationError,
    InvalidTTLError,
    KeyValueOperationError,
    SerializationError,
)
from key_value.aio.protocols import key_value as contract
from key_value.aio.wrappers.prefix_collections import PrefixCollectionsWrapper

from treehub_level import Level, NotOpenError
from treehub_level.integrations.key_value import LevelStore

NOW = datetime(2026, 11, 30, tzinfo=timezone.utc)
VALUE = {"text": "é😀\0", "number": 10**18, "list": [1.5, None, True], "object": {"a": {"b": {}}}}


@pytest.fixture(params=["memory", "leveldb", "sqlite"])
async def level(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Level]:
    """An open level, with an entry of its own."""
    async with Level(tmp_path / "store", backend=request.param, mode=Level.CLIENT) as level:
        await level.put("settings", 1)
        yield level
        assert await level.get("settings") == 1


@pytest.fixture
def store(level: Level) -> LevelStore:
    return LevelStore(level)


async def expire(store: LevelStore, level: Level, key: str, collection: str) -> None:
    """Set the end of an entry to a time that has passed."""
    await store.put(key, {"n": 1}, collection=collection, ttl=100)
    [(stored, document)] = [
        pair for pair in await level.query(prefix="key-value/") if pair[1]["key"] == key and "expires_at" in pair[1]
    ]
    assert isinstance(document, dict)
    await level.put(stored, document | {"expires_at": (NOW - timedelta(days=500)).isoformat()})


def test_the_store_has_every_protocol_of_the_library(store: LevelStore) -> None:
    found = [getattr(contract, name) for name in dir(contract) if name.startswith("Async")]
    assert len(found) >= 7
    for protocol in found:
        if "PutIfAbsent" not in protocol.__name__:
            assert isinstance(store, protocol), protocol
    assert isinstance(store, protocols.AsyncKeyValue)


async def test_an_entry_is_put_got_and_deleted(store: LevelStore) -> None:
    assert await store.get("a", collection="c") is None
    await store.put("a", VALUE, collection="c")
    await store.put("a", {"tuple": (1, 2)}, collection="d")
    assert await store.get("a", collection="c") == VALUE
    assert await store.get("a", collection="d") == {"tuple": [1, 2]}
    assert await store.get("a") is None
    await store.put("a", {}, collection="c")
    assert await store.get("a", collection="c") == {}
    assert await store.delete("a", collection="c")
    assert not await store.delete("a", collection="c")
    assert await store.get("a", collection="c") is None
    assert await store.get("a", collection="d") is not None


async def test_many_entries_are_written_in_one_batch(store: LevelStore, level: Level) -> None:
    keys = [f"k{n}" for n in range(10)]
    before = await level.pending()
    await store.put_many(keys, [{"n": n} for n in range(10)], collection="c")
    assert await level.pending() == before + 10
    assert await store.get_many([*keys, "x", "k0"], collection="c") == [*({"n": n} for n in range(10)), None, {"n": 0}]
    assert await store.delete_many(["k0", "k0", "x", "k1"], collection="c") == 2
    assert await store.delete_many([], collection="c") == 0
    with pytest.raises(SerializationError):
        await store.put_many(["a", "b"], [{"n": 1}, {"n": object()}], collection="c")
    assert await store.get("a", collection="c") is None
    with pytest.raises(ValueError):
        await store.put_many(["a"], [{}, {}], collection="c")


async def test_an_entry_ends_with_its_time_to_live(store: LevelStore, level: Level) -> None:
    await store.put("a", {"n": 1}, collection="c", ttl=100)
    value, ttl = await store.ttl("a", collection="c")
    assert value == {"n": 1}
    assert ttl is not None
    assert 0 < ttl <= 100
    await store.put("b", {"n": 2}, collection="c")
    assert await store.ttl_many(["b", "x"], collection="c") == [({"n": 2}, None), (None, None)]

    await expire(store, level, "old", "c")
    assert await store.get("old", collection="c") is None
    assert await store.get_many(["old", "b"], collection="c") == [None, {"n": 2}]
    assert await store.ttl("old", collection="c") == (None, None)
    assert await store.keys("c") == ["a", "b"]
    assert await level.count(prefix="key-value/") == 3
    await store.cull()
    assert await level.count(prefix="key-value/") == 2

    for wrong in (-1, 0, True, "x"):
        with pytest.raises((InvalidTTLError, TypeError)):
            await store.put("a", {}, collection="c", ttl=wrong)


async def test_keys_and_collections_are_listed_and_destroyed(store: LevelStore, level: Level) -> None:
    for collection in ("b", "a", "ab", "a!", ""):
        for key in ("2", "1", "", "x\0y"):
            await store.put(key, {"n": 1}, collection=collection)
    assert await store.collections() == ["a", "a!", "ab", "b", "default_collection"]
    assert await store.collections(limit=2) == ["a", "a!"]
    assert await store.keys("a") == ["", "1", "2", "x\0y"]
    assert await store.keys("a", limit=2) == ["", "1"]
    assert await store.keys() == ["", "1", "2", "x\0y"]
    assert await store.destroy_collection("a")
    assert not await store.destroy_collection("a")
    assert await store.keys("a") == []
    assert len(await store.keys("ab")) == 4
    assert await store.destroy()
    assert await store.collections() == []
    assert await level.keys() == ["settings"]


@pytest.mark.parametrize(
    "name", ["x" * 400, "x" * 401, "long name " * 500, "é" * 300, "😀" * 200, "\0" * 300, "%" * 1000, "!@#$%^&*()/"]
)
async def test_names_of_any_length_and_characters_are_kept(store: LevelStore, name: str) -> None:
    await store.put(name, {"n": 1}, collection=name)
    await store.put(name + "y", {"n": 2}, collection=name)
    assert await store.get(name, collection=name) == {"n": 1}
    assert await store.get(name + "y", collection=name) == {"n": 2}
    assert sorted(await store.keys(name)) == sorted([name, name + "y"])
    assert await store.collections() == [name]
    assert await store.delete(name, collection=name)


@pytest.mark.parametrize("value", [NOW, NOW.date(), UUID(int=5), {1, 2}, b"x", object(), float("nan"), 2**64])
async def test_a_value_that_json_cannot_hold_is_a_serialization_error(store: LevelStore, value: Any) -> None:
    with pytest.raises(SerializationError):
        await store.put("a", {"x": value}, collection="c")
    assert await store.get("a", collection="c") is None


async def test_another_value_in_the_sublevel_is_a_deserialization_error(store: LevelStore, level: Level) -> None:
    await store.put("a", {"n": 1}, collection="c")
    [(stored, document)] = await level.query(prefix="key-value/")
    for wrong in (5, {}, {"value": 5}, document | {"expires_at": "tomorrow"}):
        await level.put(stored, wrong)
        with pytest.raises((DeserializationError, TypeError)) as caught:
            await store.get("a", collection="c")
        assert isinstance(caught.value, (KeyValueOperationError, TypeError))


async def test_concurrent_calls_do_not_disturb_each_other(store: LevelStore) -> None:
    async def work(worker: int) -> None:
        for n in range(5):
            key = f"{worker}/{n}"
            await store.put(key, {"n": n}, collection="c")
            assert await store.get(key, collection="c") == {"n": n}
            assert await store.delete(key, collection="c")

    await asyncio.gather(*map(work, range(5)))
    assert await store.keys("c") == []


async def test_a_wrapper_of_the_library_works(store: LevelStore) -> None:
    wrapped = PrefixCollectionsWrapper(store, prefix="tenant")
    await wrapped.put("a", {"n": 1}, collection="c")
    assert await wrapped.get("a", collection="c") == {"n": 1}
    assert await store.get("a", collection="c") is None


async def test_a_store_opens_and_closes_its_own_level_and_no_other(level: Level, tmp_path: Path) -> None:
    async with LevelStore(tmp_path / "own", backend="sqlite", durable=True) as store:
        await store.put("a", {"n": 1})
    async with LevelStore(str(tmp_path / "own"), backend="sqlite") as store:
        assert await store.get("a") == {"n": 1}
    assert await store.get("a") == {"n": 1}  # a closed store opens again
    await store.close()

    closed = Level(tmp_path / "closed", backend="memory")
    async with LevelStore(closed) as store:
        assert closed.is_open
    assert not closed.is_open

    async with LevelStore(level.sublevel("mine")) as store:
        await store.put("a", {"n": 1})
    assert level.is_open
    assert await level.keys(prefix="mine/") == ["mine/sdefault_collection!sa!"]
    store = LevelStore(Level("x", backend="memory").sublevel("y"))
    with pytest.raises(NotOpenError):
        await store.get("a")


def test_a_store_works_in_several_event_loops(tmp_path: Path) -> None:
    store = LevelStore(tmp_path / "store")
    asyncio.run(store.put("a", {"n": 1}))
    assert asyncio.run(store.get("a")) == {"n": 1}
    asyncio.run(store.close())


@pytest.mark.parametrize("argument", [5, None, object()])
def test_another_argument_is_a_type_error(argument: Any) -> None:
    with pytest.raises(TypeError):
        LevelStore(argument)


def test_options_are_for_new_levels() -> None:
    with pytest.raises(TypeError, match="durable"):
        LevelStore(Level("x", backend="memory"), durable=True)


async def test_entries_synchronise_like_others(level: Level, store: LevelStore) -> None:
    await store.put("a", VALUE, collection="c")
    async with Level("server", backend="memory", mode=Level.SERVER) as server:
        await level.sync(server)
        assert await LevelStore(server).get("a", collection="c") == VALUE


WITHOUT_THE_LIBRARY = """
import sys

sys.modules["key_value"] = None
try:
    import treehub_level.integrations.key_value
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_the_extra_one_sentence_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_LIBRARY], capture_output=True, text=True, check=True)
    assert "needs key_value" in done.stdout
    assert "pip install '.[key-value]'" in done.stdout
