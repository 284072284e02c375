"""sublevel(): a part of a level's keys with the same methods."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Delete, InvalidKeyError, Level, Mode, Put


@pytest.fixture
async def store(stores: Stores, mode: Mode) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=mode)


async def test_keys_of_a_sublevel_are_keys_of_the_level(store: Any) -> None:
    books = store.sublevel("books")
    await books.put("moby", 1)
    await store.put("books/emma", 2)

    assert await store.query() == [("books/emma", 2), ("books/moby", 1)]
    assert await books.query() == [("emma", 2), ("moby", 1)]


async def test_every_writing_method_stays_within_the_sublevel(store: Any) -> None:
    await store.load([("a", 0), ("sub", 0), ("sub0", 0), ("subs/x", 0), ("sub.", 0), ("z", 0)])
    outside = await store.query()
    sub = store.sublevel("sub")

    await sub.put("a", 1)
    await sub.batch([Put("b", 2), Delete("a"), {"type": "put", "key": "c", "value": 3}])
    async with sub.write_batch() as batch:
        batch.put("d", 4)
        batch.delete("b")
    assert await sub.load([("e", 5), ("f", 6)]) == 2
    await sub.delete("f")
    await sub.del_("nothing")

    assert await sub.query() == [("c", 3), ("d", 4), ("e", 5)]
    assert await sub.clear() == 3
    assert await store.query() == outside


async def test_every_reading_method_stays_within_the_sublevel(store: Any) -> None:
    await store.load([("a", 0), ("sub", 0), ("sub0", 0), ("subs/x", 0), ("sub.", 0), ("z", 0)])
    sub = store.sublevel("sub")
    await sub.load([("a", 1), ("b", 2), ("c", 3)])

    assert await sub.get("a") == 1
    assert await sub.get("z") is None
    assert await sub.get_many(["b", "a", "sub"]) == [2, 1, None]
    assert await sub.has("c")
    assert not await sub.has("z")
    assert await sub.keys(gte="", reverse=True) == ["c", "b", "a"]
    assert await sub.values(gt="a") == [2, 3]
    assert await sub.keys(lt="") == []
    assert await sub.count(prefix="b") == 1
    assert await sub.keys(gte="0", lt="\U0010ffff", limit=2) == ["a", "b"]
    assert await sub.query(filter=lambda key, value: key == "b") == [("b", 2)]
    assert [pair async for pair in sub.scan(gte="b")] == [("b", 2), ("c", 3)]


async def test_sublevels_nest(store: Any) -> None:
    inner = store.sublevel("a").sublevel("b").sublevel("ç")
    await inner.put("key", 1)
    await store.sublevel("a").put("b", "beside")

    assert await store.keys() == ["a/b", "a/b/ç/key"]
    assert await inner.query() == [("key", 1)]
    assert await store.sublevel("a").keys() == ["b", "b/ç/key"]


async def test_the_separator_may_be_chosen(store: Any) -> None:
    sub = store.sublevel("a/b", separator="::")
    await sub.put("k", 1)
    assert await store.keys() == ["a/b::k"]
    assert await sub.keys() == ["k"]


@pytest.mark.parametrize("name", ["a/b", "/", "", "\ud800"])
async def test_a_name_that_is_empty_or_contains_the_separator_is_refused(store: Any, name: str) -> None:
    with pytest.raises(InvalidKeyError):
        store.sublevel(name)


@pytest.mark.parametrize("name", ["!", "!a", " a", "\x00"])
@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_a_name_with_which_no_key_can_begin_is_refused(stores: Stores, sync_mode: Mode, name: str) -> None:
    level = await stores.open("store", mode=sync_mode)
    with pytest.raises(InvalidKeyError):
        level.sublevel(name)


@pytest.mark.parametrize("name", [None, 1, b"a"], ids=repr)
async def test_a_name_that_is_not_a_str_is_refused(store: Any, name: str) -> None:
    with pytest.raises(TypeError):
        store.sublevel(name)


async def test_a_key_is_checked_together_with_the_name_of_its_sublevel(client: Any) -> None:
    sub = client.sublevel("sub")
    await sub.put("!inside", 1)
    await sub.put("", 2)
    assert await client.keys() == ["sub/", "sub/!inside"]
    assert await sub.query() == [("", 2), ("!inside", 1)]
    with pytest.raises(InvalidKeyError):
        await sub.put("k" * 1021, 1)
    await sub.put("k" * 1020, 1)


async def test_metadata_cannot_be_read_through_a_sublevel(server: Any) -> None:
    sub = server.sublevel("sub")
    await sub.put("a", 1)
    assert await sub.get("!") is None
    assert await sub.get("!1") is None


async def test_a_sublevel_of_a_server_is_part_of_its_log(server: Any) -> None:
    sub = server.sublevel("sub")
    await sub.put("a", 1)
    await sub.clear()
    assert server.cid == 2
    assert (await server.changes(0)).changes == [["sub/a", 1], ["sub/a"]]


async def test_a_sublevel_of_a_client_synchronises(server: Any, client: Any) -> None:
    await client.sublevel("sub").put("a", 1)
    await server.sublevel("sub").put("b", 2)
    await client.sync(server)
    assert await client.sublevel("sub").query() == await server.sublevel("sub").query() == [("a", 1), ("b", 2)]


async def test_a_sublevel_keeps_the_durability_of_its_level(stores: Stores) -> None:
    level = await stores.open("store", durable=True)
    sub = level.sublevel("sub")
    await sub.put("a", 1, durable=False)
    await sub.put("b", 2)
    assert await sub.count() == 2


async def test_a_sublevel_of_bytes_keys_is_refused(stores: Stores) -> None:
    level = await stores.open("store", key_encoding="bytes")
    with pytest.raises(TypeError):
        level.sublevel("sub")
