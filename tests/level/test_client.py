"""Manual sync in CLIENT mode: cid, apply, dirty, clean, pending."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, Changes, CIDMismatchError, Put

pytestmark = pytest.mark.shared

# -------------------------------------------------------------------------------------------- dirty


async def test_dirty_returns_the_written_keys_in_key_order(client: Any) -> None:
    await client.put("b", 1)
    await client.put("a", {"x": 1})
    await client.put("b", 2)
    await client.delete("c")
    await client.put("😀", "emoji")

    assert await client.dirty() == [["a", {"x": 1}], ["b", 2], ["c"], ["😀", "emoji"]]
    assert await client.pending() == 4
    assert client.cid == client.CID == 0


async def test_dirty_returns_100_changes_by_default(client: Any) -> None:
    await client.batch([Put(f"k{n:03}", n) for n in range(250)])
    assert len(await client.dirty()) == 100
    assert await client.dirty(1) == [["k000", 0]]
    assert await client.dirty(0) == []
    assert len(await client.dirty(limit=1000)) == 250
    assert len(await client.dirty(limit=None)) == 250
    assert await client.pending() == 250


async def test_dirty_returns_change_objects(client: Any) -> None:
    await client.put("a", 1)
    await client.delete("b")
    put, delete = await client.dirty()
    assert (put.key, put.value, put.deleted) == ("a", 1, False)
    assert (delete.key, delete.value, delete.deleted) == ("b", None, True)


async def test_dirty_returns_keys_above_the_basic_multilingual_plane(client: Any) -> None:
    """`@treehub/level` ended its ranges at U+FFFF: it never sent keys above it."""
    keys = ["\uffff", "\U00010000", "😀", "\U0010ffff"]
    await client.batch([Put(key, 1) for key in keys])
    assert [change.key for change in await client.dirty()] == keys
    assert await client.keys() == keys


@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError), (1.0, TypeError)])
async def test_an_invalid_limit_is_refused(client: Any, limit: Any, error: Any) -> None:
    with pytest.raises(error):
        await client.dirty(limit)


# -------------------------------------------------------------------------------------------- apply


async def test_apply_as_in_the_tests_of_the_npm_package(client: Any) -> None:
    await client.put("a", "1")
    await client.put("b", "2")
    await client.delete("c")

    assert await client.apply(123, [["b"], ["c", True]]) == 123

    assert await client.dirty() == [["a", "1"]]
    assert await client.get("b") is None
    assert await client.get("c") is True
    assert await client.get("!") == 123
    assert client.cid == client.CID == 123


async def test_apply_takes_the_result_of_changes(server: Any, client: Any) -> None:
    await server.batch([Put("a", 1), Put("b", 2)])
    assert await client.apply(await server.changes(0)) == 2
    assert await client.query() == [("a", 1), ("b", 2)]
    assert await client.apply(Changes(5, [Change("c", 3), Change.deletion("a")], False)) == 5
    assert await client.query() == [("b", 2), ("c", 3)]


async def test_an_applied_change_is_not_dirty(client: Any) -> None:
    await client.apply(2, [["a", 1], ["b"]])
    assert await client.dirty() == []
    assert await client.pending() == 0


async def test_an_empty_page_moves_the_cid_only(client: Any) -> None:
    await client.put("a", 1)
    await client.apply(7, [])
    assert client.cid == 7
    assert await client.dirty() == [["a", 1]]


async def test_applying_a_page_twice_changes_nothing(stores: Stores, client: Any) -> None:
    await client.apply(3, [["a", 1], ["b", 2]])
    await client.put("a", "mine")
    before = await stores.bytes_of(client)

    assert await client.apply(3, [["a", 1], ["b", 2]]) == 3

    assert await stores.bytes_of(client) == before


async def test_a_late_page_is_refused_and_the_cid_does_not_decrease(stores: Stores, client: Any) -> None:
    """In `@treehub/level` the CID decreased and old values came back."""
    await client.apply(3, [["a", 3]])
    before = await stores.bytes_of(client)
    with pytest.raises(CIDMismatchError) as caught:
        await client.apply(2, [["a", 2]])
    assert (caught.value.expected, caught.value.got) == (3, 2)
    assert await stores.bytes_of(client) == before
    assert client.cid == 3


async def test_a_change_that_loses_to_a_page_is_journaled(client: Any) -> None:
    await client.put("a", "mine")
    await client.put("b", "the same")
    await client.delete("c")
    await client.apply(3, [["a", "theirs"], ["b", "the same"], ["c", "there"]])
    conflicts = await client.conflicts()
    assert [(c.key, c.local, c.remote) for c in conflicts] == [
        ("a", ["a", "mine"], ["a", "theirs"]),
        ("c", ["c"], ["c", "there"]),
    ]


async def test_the_cid_survives_a_reopening(stores: Stores, client: Any) -> None:
    await client.apply(123, [["a", 1]])
    await stores.bytes_of(client)
    assert client.cid == 123


# -------------------------------------------------------------------------------------------- clean


async def test_clean_as_in_the_tests_of_the_npm_package(client: Any) -> None:
    for key in "abc":
        await client.put(key, key)

    assert await client.clean(123, ["a", "b"]) == 123

    assert await client.get("!a") is None
    assert await client.get("!b") is None
    assert await client.get("!c") == ["c", "c"]
    assert await client.get("!") == 123
    assert client.CID == 123
    assert await client.query() == [("a", "a"), ("b", "b"), ("c", "c")]


async def test_clean_takes_the_changes_that_were_pushed(client: Any) -> None:
    await client.put("a", 1)
    await client.delete("b")
    await client.put("c", 1)
    pushed = (await client.dirty())[:2]
    await client.clean(2, pushed)
    assert await client.dirty() == [["c", 1]]


@pytest.mark.parametrize("what", ["keys", "changes", "lists"])
async def test_a_key_rewritten_between_dirty_and_clean_stays_dirty(client: Any, what: str) -> None:
    """`@treehub/level` lost such a write: it was never sent."""
    await client.put("a", 1)
    await client.put("b", 1)
    await client.delete("c")
    pushed = await client.dirty()
    await client.put("a", 2)
    await client.put("c", 3)
    await client.clean(3, {"keys": ["a", "b", "c"], "changes": pushed, "lists": [list(c) for c in pushed]}[what])
    assert await client.dirty() == [["a", 2], ["c", 3]]


async def test_a_key_deleted_between_dirty_and_clean_stays_dirty(client: Any) -> None:
    await client.put("a", 1)
    pushed = await client.dirty()
    await client.delete("a")
    await client.clean(1, pushed)
    assert await client.dirty() == [["a"]]


async def test_clean_of_a_key_that_is_not_dirty_changes_nothing(client: Any) -> None:
    await client.clean(5, ["a", "b"])
    assert client.cid == 5


async def test_a_late_acknowledgement_is_refused(stores: Stores, client: Any) -> None:
    await client.apply(5, [])
    await client.put("a", 1)
    before = await stores.bytes_of(client)
    with pytest.raises(CIDMismatchError) as caught:
        await client.clean(4, ["a"])
    assert (caught.value.expected, caught.value.got) == (5, 4)
    assert await stores.bytes_of(client) == before
