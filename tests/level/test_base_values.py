"""Base values: the value that the server had of each dirty key (``keep_base=True``)."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, Delete, Level, Put, StateError

pytestmark = pytest.mark.shared

BASE = b"!!base/"


@pytest.fixture
async def keeper(stores: Stores) -> Any:
    """A client that keeps base values."""
    return await stores.open("keeper", mode=Level.CLIENT, keep_base=True)


async def base_rows(stores: Stores, level: Any) -> dict[bytes, bytes]:
    """The stored base values, by key."""
    rows = await stores.bytes_of(level)
    return {key[len(BASE) :]: value for key, value in rows.items() if key.startswith(BASE)}


async def conflict_over(server: Any, client: Any, key: str, remote: Any) -> Any:
    """Write a key on the server, synchronise, and return the base in the newest conflict."""
    await server.put(key, remote)
    conflict = (await client.sync(server)).conflicts[-1]
    assert (conflict.key, conflict.remote.value) == (key, remote)
    assert (await client.conflicts())[-1] == conflict
    return conflict.base


async def test_a_conflict_has_the_value_that_the_server_had(server: Any, keeper: Any) -> None:
    await server.put("a", {"n": [1, "é"]})
    await keeper.sync(server)
    for value in (2, 3, None):
        await keeper.put("a", value)
    base = await conflict_over(server, keeper, "a", 4)
    assert base == Change("a", {"n": [1, "é"]})
    assert not base.deleted


async def test_an_absent_key_is_a_base_too(server: Any, keeper: Any) -> None:
    await keeper.put("a", 1)
    await server.put("b", 1)
    await keeper.sync(server, push=False)
    await server.delete("b")
    await keeper.sync(server, push=False)
    await keeper.put("b", 2)
    await server.batch([Put("a", 3), Put("b", 3)])
    conflicts = (await keeper.sync(server)).conflicts
    assert [conflict.base for conflict in conflicts] == [Change.deletion("a"), Change.deletion("b")]


async def test_the_base_is_unknown_of_a_key_that_the_client_has_not_filled_yet(
    stores: Stores, server: Any, keeper: Any
) -> None:
    await server.put("a", 1)
    await keeper.put("a", 2)
    assert await base_rows(stores, keeper) == {}
    (conflict,) = (await keeper.sync(server)).conflicts
    assert (conflict.local, conflict.remote, conflict.base) == (Change("a", 2), Change("a", 1), None)
    await keeper.put("a", 3)
    assert await conflict_over(server, keeper, "a", 4) == Change("a", 1)


async def test_a_stored_null_differs_from_an_absent_key(server: Any, keeper: Any) -> None:
    await server.put("a", None)
    await keeper.sync(server)
    await keeper.delete("a")
    assert await conflict_over(server, keeper, "a", 1) == Change("a", None)


async def test_without_keep_base_the_base_is_unknown_and_no_row_is_added(
    stores: Stores, server: Any, client: Any
) -> None:
    await server.put("a", 1)
    await client.sync(server)
    await client.put("a", 2)
    assert b"!!bases" not in await stores.bytes_of(client)
    assert await base_rows(stores, client) == {}
    assert await conflict_over(server, client, "a", 3) is None


async def test_the_base_of_a_key_that_is_twice_in_a_batch_is_the_value_before_the_batch(
    server: Any, keeper: Any
) -> None:
    await server.batch([Put("a", 1), Put("b", 1)])
    await keeper.sync(server)
    await keeper.batch([Put("a", 2), Delete("b"), Delete("a"), Put("b", 3), Put("a", 4)])
    await server.batch([Put("a", 5), Put("b", 5)])
    conflicts = (await keeper.sync(server)).conflicts
    assert [(conflict.local, conflict.base) for conflict in conflicts] == [
        (Change("a", 4), Change("a", 1)),
        (Change("b", 3), Change("b", 1)),
    ]


async def test_sublevels_loads_and_clear_keep_base_values(stores: Stores, server: Any, keeper: Any) -> None:
    await server.load((f"x/{n}", n) for n in range(5))
    await keeper.sync(server)
    await keeper.sublevel("x").load([("0", "loaded"), ("new", 1)], batch_size=1)
    await keeper.sublevel("x").put("1", "put")
    await keeper.clear(gte="x/2", lt="x/5")
    assert await base_rows(stores, keeper) == {
        b"x/0": b"[1,0]",
        b"x/1": b"[1,1]",
        b"x/2": b"[1,2]",
        b"x/3": b"[1,3]",
        b"x/4": b"[1,4]",
        b"x/new": b"[1]",
    }
    await keeper.sync(server)
    assert await base_rows(stores, keeper) == {}


async def test_a_clean_key_has_none(stores: Stores, server: Any, keeper: Any) -> None:
    await keeper.sync(server)
    for verb in ("push", "conflict", "apply", "clean"):
        await keeper.put("a", verb)
        assert list(await base_rows(stores, keeper)) == [b"a"]
        if verb == "conflict":
            await server.put("a", "theirs")
        if verb == "apply":
            await server.put("a", "theirs")
            await keeper.apply(await server.changes(keeper.cid))
        elif verb == "clean":
            dirty = await keeper.dirty()
            await keeper.clean(await server.change(keeper.cid, dirty), dirty)
        else:
            await keeper.sync(server)
        assert await base_rows(stores, keeper) == {}, verb


async def test_restoring_a_conflict_makes_the_servers_value_the_base(server: Any, keeper: Any) -> None:
    await keeper.put("a", "mine")
    await conflict_over(server, keeper, "a", "theirs")
    await keeper.restore((await keeper.conflicts())[0])
    assert await conflict_over(server, keeper, "a", "theirs again") == Change("a", "theirs")


async def test_the_base_becomes_the_accepted_value_of_a_key_that_was_rewritten_meanwhile(
    server: Any, keeper: Any
) -> None:
    await server.put("a", "before")
    await keeper.sync(server)
    await keeper.put("a", "pushed")
    dirty = await keeper.dirty()
    reached = await server.change(keeper.cid, dirty)
    await keeper.put("a", "rewritten")
    await keeper.clean(reached, dirty)
    assert await conflict_over(server, keeper, "a", "theirs") == Change("a", "pushed")
    assert (await keeper.conflicts())[0].local == Change("a", "rewritten")


async def test_keys_that_are_dirty_already_have_no_base(stores: Stores, server: Any) -> None:
    client = await stores.open("late", mode=Level.CLIENT)
    await server.batch([Put("a", 1), Put("b", 1)])
    await client.sync(server)
    await client.put("a", 2)
    await client.close()
    client = await stores.open("late", mode=Level.CLIENT, keep_base=True)
    await client.batch([Put("a", 3), Put("b", 3)])
    await server.batch([Put("a", 4), Put("b", 4)])
    conflicts = (await client.sync(server)).conflicts
    assert [conflict.base for conflict in conflicts] == [None, Change("b", 1)]


async def test_an_opening_without_keep_base_leaves_no_base_value_to_be_found_later(stores: Stores, server: Any) -> None:
    await server.batch([Put("a", "old"), Put("b", "old"), Put("c", "old")])
    client = await stores.open("c", mode=Level.CLIENT, keep_base=True)
    await client.sync(server)
    for key in ("a", "b", "c"):
        await client.put(key, 1)
    await client.close()

    client = await stores.open("c", mode=Level.CLIENT)
    assert await conflict_over(server, client, "a", "new") is None  # clean again
    await client.put("a", 2)
    await client.sync(server)
    await client.put("a", 3)  # and dirty again, with another value on the server
    await client.close()

    client = await stores.open("c", mode=Level.CLIENT, keep_base=True)
    assert await conflict_over(server, client, "a", "newer") is None
    assert (await client.conflicts())[-1].local == Change("a", 3)
    await client.sync(server)
    await client.put("a", 4)
    assert await conflict_over(server, client, "a", "newest") == Change("a", "newer")
    await client.sync(server)
    assert await base_rows(stores, client) == {}


async def test_keep_base_none_does_as_the_last_opening_did(stores: Stores, server: Any) -> None:
    await server.put("a", 1)
    for keep, base in ((None, None), (True, 1), (None, 1), (False, None), (None, None)):
        client = await stores.open("c", mode=Level.CLIENT, keep_base=keep)
        await client.sync(server)
        await client.put("a", "mine")
        found = await conflict_over(server, client, "a", 1)
        assert (found and found.value) == base, keep
        await client.close()


async def test_a_reset_voids_base_values_and_learns_them_again(stores: Stores, server: Any, keeper: Any) -> None:
    await server.batch([Put("a", "common"), Put("b", "common"), Put("gone", 1)])
    await keeper.sync(server)
    backup = await stores.bytes_of(server)
    await server.batch([Put("a", "lost"), Put("b", "lost")])
    await keeper.sync(server)
    await keeper.put("a", "mine")
    await keeper.put("b", "mine")
    await server.close()
    stores.seed("restored", backup.items())
    restored = await stores.open("restored", mode=Level.SERVER)
    await restored.put("b", "after the restore")
    conflicts = (await keeper.sync(restored, push=False)).conflicts
    assert [(conflict.key, conflict.base) for conflict in conflicts] == [("b", None)]
    assert await conflict_over(restored, keeper, "a", "later") == Change("a", "common")


async def test_rebind_voids_base_values(stores: Stores, server: Any, keeper: Any) -> None:
    other = await stores.open("other", mode=Level.SERVER)
    await server.put("a", 1)
    await keeper.sync(server)
    await keeper.put("a", 2)
    await other.put("a", 3)
    await keeper.rebind(other)
    assert [conflict.base for conflict in (await keeper.sync(other)).conflicts] == [None]
    await keeper.put("a", 4)
    assert await conflict_over(other, keeper, "a", 5) == Change("a", 3)


async def test_an_adopted_client_knows_no_base(stores: Stores, server: Any) -> None:
    level = await stores.open("plain", mode=Level.NORMAL)
    await level.put("a", 1)
    await level.close()
    client = await stores.adopt("plain", mode=Level.CLIENT, keep_base=True)
    await client.open()
    assert await conflict_over(server, client, "a", 2) is None


@pytest.mark.parametrize("mode", [Level.NORMAL, Level.SERVER])
async def test_keep_base_needs_client_mode(stores: Stores, mode: Any) -> None:
    with pytest.raises(ValueError, match="keep_base=True needs CLIENT mode"):
        stores.level("x", mode=mode, keep_base=True)
    await (await stores.open("x", mode=mode, keep_base=None)).put("a", 1)


async def test_keep_base_is_a_bool_or_none(stores: Stores) -> None:
    with pytest.raises(TypeError, match="keep_base is True, False or None"):
        stores.level("x", mode=Level.CLIENT, keep_base=1)


async def test_a_read_only_opening_voids_nothing(stores: Stores, server: Any, keeper: Any) -> None:
    await server.put("a", 1)
    await keeper.sync(server)
    await keeper.put("a", 2)
    await keeper.close()
    reader = await stores.open("keeper", mode=Level.CLIENT, read_only=True)
    assert await reader.get("a") == 2
    with pytest.raises(StateError):
        await reader.dismiss_all()
    await reader.close()
    await keeper.open()
    assert await conflict_over(server, keeper, "a", 3) == Change("a", 1)
