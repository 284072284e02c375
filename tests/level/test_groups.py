"""Groups: the changes of one batch of a client are pushed, accepted and lost together."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import InvalidValueError, Level, Put, TransportError

pytestmark = pytest.mark.shared


async def groups_of(stores: Stores, client: Any) -> list[bytes]:
    """The stored groups."""
    rows = await stores.bytes_of(client)
    return [value for key, value in sorted(rows.items()) if key.startswith(b"!!group/")]


@pytest.fixture
async def filled(server: Any, client: Any) -> Any:
    """A client that has synchronised."""
    await client.sync(server)
    return client


async def test_a_batch_is_one_commit_on_the_server(stores: Stores, server: Any, filled: Any) -> None:
    await filled.batch([Put("b", 2), Put("a", 1), Put("b", 3)])
    await filled.put("c", 4)
    assert await groups_of(stores, filled) == [b'["b","a"]']
    assert (await filled.sync(server)).pushed == 3
    assert await groups_of(stores, filled) == []
    page = await server.changes(0)
    assert [(change.key, change.value) for change in page.changes] == [("a", 1), ("b", 3), ("c", 4)]


async def test_a_batch_of_which_one_change_loses_loses_whole(stores: Stores, server: Any, filled: Any) -> None:
    await server.batch([Put("a", "old"), Put("b", "old")])
    await filled.sync(server)
    await filled.batch([Put("a", "mine"), Put("b", "mine"), Put("new", "mine")])
    await filled.put("single", "mine")
    await server.put("a", "theirs")
    report = await filled.sync(server)
    assert [(conflict.key, conflict.local.value) for conflict in report.conflicts] == [
        ("a", "mine"),
        ("b", "mine"),
        ("new", "mine"),
    ]
    assert [conflict.remote.value for conflict in report.conflicts] == ["theirs", "old", None]
    assert report.conflicts[2].remote.deleted
    assert (report.pushed, sorted(report.rejected)) == (1, ["a", "b", "new"])
    assert await filled.query() == await server.query() == [("a", "theirs"), ("b", "old"), ("single", "mine")]
    assert await groups_of(stores, filled) == []


async def test_batches_that_share_a_key_become_one_with_the_latest_values(server: Any, filled: Any) -> None:
    await filled.batch([Put("a", 1), Put("b", 1)])
    await filled.batch([Put("b", 2), Put("c", 2)])
    await filled.batch([Put("x", 3), Put("y", 3)])
    await server.put("c", "theirs")
    report = await filled.sync(server)
    assert sorted(conflict.key for conflict in report.conflicts) == ["a", "b", "c"]
    assert report.pushed == 2
    assert await filled.query() == await server.query() == [("c", "theirs"), ("x", 3), ("y", 3)]


async def test_a_key_written_again_is_pushed_with_its_batch(server: Any, filled: Any) -> None:
    await filled.batch([Put("a", 1), Put("b", 1)])
    await filled.put("a", 2)
    await server.put("b", "theirs")
    report = await filled.sync(server)
    assert [(conflict.key, conflict.local.value) for conflict in report.conflicts] == [("a", 2), ("b", 1)]
    assert await filled.query() == [("b", "theirs")]


@pytest.mark.parametrize("how", ["load", "together=False", "a large batch", "one key"])
async def test_other_writes_are_pushed_each_on_its_own(stores: Stores, server: Any, filled: Any, how: str) -> None:
    if how == "load":
        await filled.load([("a", 1), ("b", 1)])
    elif how == "together=False":
        await filled.batch([Put("a", 1), Put("b", 1)], together=False)
    elif how == "one key":
        await filled.batch([Put("b", 1), Put("b", 1)])
    else:
        await filled.batch([Put("a", 1), Put("b", 1), *(Put(f"k{n}", n) for n in range(999))])
    assert await groups_of(stores, filled) == []
    await server.put("a", "theirs")
    await filled.sync(server)
    assert await server.get("b") == 1


async def test_a_large_batch_stays_together_if_asked_to(server: Any, filled: Any) -> None:
    await filled.batch([Put(f"k{n:04}", n) for n in range(1500)], together=True)
    await server.put("k0700", "theirs")
    report = await filled.sync(server)
    assert (report.pushed, len(report.conflicts)) == (0, 1500)
    assert await filled.query() == [("k0700", "theirs")]


async def test_a_batch_that_no_push_can_hold_is_refused_before_anything_is_written(stores: Stores, filled: Any) -> None:
    before = await stores.bytes_of(filled)
    for ops in ([Put(f"k{n}", n) for n in range(16_385)], [Put(f"k{n}", "x" * (3 << 20)) for n in range(3)]):
        with pytest.raises(InvalidValueError, match="may have as many as one push: 16,384 changes of 8,388,608 bytes"):
            await filled.batch(ops, together=True)
    with pytest.raises(TypeError, match="together is True, False or None"):
        await filled.batch([Put("a", 1)], together="yes")
    assert await stores.bytes_of(filled) == before


async def test_groups_that_have_grown_larger_than_a_push_are_held_back_and_the_rest_goes_on(
    server: Any, filled: Any
) -> None:
    for n in range(3):
        await filled.batch([Put("shared", n), Put(f"k{n}", "x" * (3 << 20))])
    await filled.put("other", 1)
    with pytest.raises(TransportError, match=r"changes that were written together, are too large") as caught:
        await filled.sync(server)
    assert sorted(caught.value.keys) == ["k0", "k1", "k2", "shared"]
    assert await server.query() == [("other", 1)]
    await filled.put("k1", "small")
    assert (await filled.sync(server)).pushed == 4
    assert await filled.pending() == 0


async def test_groups_survive_a_restart(stores: Stores, server: Any, filled: Any) -> None:
    await filled.batch([Put("a", 1), Put("b", 1)])
    await filled.close()
    client = await stores.open("client", mode=Level.CLIENT)
    await client.batch([Put("c", 1), Put("d", 1)])
    assert await groups_of(stores, client) == [b'["a","b"]', b'["c","d"]']
    await server.batch([Put("a", "theirs"), Put("d", "theirs")])
    report = await client.sync(server)
    assert sorted(conflict.key for conflict in report.conflicts) == ["a", "b", "c", "d"]
    assert await client.query() == await server.query()


async def test_a_client_that_writes_the_same_keys_for_weeks_keeps_few_groups(stores: Stores, client: Any) -> None:
    for number in range(40):
        await client.batch([Put("a", number), Put("b", number)])
        await client.batch([Put("x", number), Put("y", number), Put("z", number)])
    assert sorted(await groups_of(stores, client)) == [b'["a","b"]', b'["x","y","z"]']
    await client.batch([Put("b", 0), Put("c", 0)])
    await client.close()
    await client.open()
    await client.batch([Put(key, 1) for key in "abc"])  # an earlier opening wrote the groups
    assert sorted(await groups_of(stores, client)) == [b'["a","b","c"]', b'["x","y","z"]']


async def test_a_group_that_replaces_one_of_a_push_under_way_stays_together(
    stores: Stores, server: Any, filled: Any
) -> None:
    class Late:
        """A server whose reply comes after another batch, which a change of others beats."""

        async def exchange(self, request: Any) -> Any:
            reply = await server.exchange(request)
            if request["changes"] and not late:
                late.append(1)
                await filled.batch([Put("a", "late"), Put("b", "late"), Put("c", "late")])
                await server.put("b", "other")
            return reply

    late: list[int] = []
    await filled.batch([Put("a", 1), Put("b", 1)])
    report = await filled.sync(Late())
    assert late
    assert [conflict.key for conflict in report.conflicts] == ["a", "b", "c"]
    assert await filled.query() == await server.query() == [("a", 1), ("b", "other")]
    assert await groups_of(stores, filled) == []
