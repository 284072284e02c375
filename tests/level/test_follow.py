"""A client follows ranges of keys: ``follow=``, ``follow()``, ``unfollow()`` and ``followed()``."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Followed, InvalidKeyError, Level, ModeError, Put, StateError
from treehub_level.replication import client as client_half

pytestmark = pytest.mark.shared

NOTES = [Put("a/1", 1), Put("a/2", 2), Put("b/1", 3), Put("c", 4)]


async def test_a_new_client_fetches_the_state_instead_of_the_log(server: Any, client: Any) -> None:
    for n in range(50):
        await server.put("counter", n)
    assert await client.followed() == [Followed("", False, 0)]
    report = await client.sync(server)
    assert (report.filled, report.pulled, report.consistent, report.cid) == (1, 1, True, 50)
    assert await client.followed() == [Followed("", True, 50)]


async def test_a_client_has_the_keys_that_it_follows_and_no_others(stores: Stores, server: Any) -> None:
    await server.batch(NOTES)
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/", "c"])
    report = await client.sync(server)
    assert (report.filled, report.consistent) == (3, True)
    assert await client.query() == [("a/1", 1), ("a/2", 2), ("c", 4)]
    await server.batch([Put("a/2", 20), Put("b/1", 30), Put("b/2", 31)])
    assert (await client.sync(server)).pulled == 1
    assert await client.query() == [("a/1", 1), ("a/2", 20), ("c", 4)]
    assert client.cid == server.cid


async def test_following_another_range_fetches_only_that_one(stores: Stores, server: Any) -> None:
    await server.batch(NOTES)
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/"])
    await client.sync(server)
    await client.follow("b/")
    await client.follow("b/")
    assert await client.followed() == [Followed("a/", True, 4), Followed("b/", False, 4)]
    assert (await client.sync(server)).filled == 1
    await client.follow("")
    assert (await client.sync(server)).filled == 1  # all that was followed before is here
    assert await client.query() == await server.query()
    assert [followed.complete for followed in await client.followed()] == [True, True, True]


async def test_an_unfollowed_range_is_removed_here_and_nowhere_else(server: Any, client: Any) -> None:
    await server.batch([*NOTES, *(Put(f"b/{n:04}", n) for n in range(2500))])
    await client.sync(server)
    await client.follow("a/")
    await client.follow("c")
    await client.put("b/mine", "not pushed yet")
    await client.unfollow("")
    await client.unfollow("unknown")
    assert await client.query() == [("a/1", 1), ("a/2", 2), ("b/mine", "not pushed yet"), ("c", 4)]
    assert (await client.sync(server)).pushed == 1
    assert await client.query(prefix="b/") == []
    assert await server.count() == 2505
    assert await client.pending() == 0


async def test_a_key_outside_the_followed_ranges_may_be_written_and_conflicts_as_any_other(
    stores: Stores, server: Any
) -> None:
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/"])
    await client.sync(server)
    await client.put("log/1", "sent")
    await client.put("log/2", "loses")
    await server.put("log/2", "theirs")
    report = await client.sync(server)
    assert (report.pushed, report.rejected) == (1, ["log/2"])
    assert [(conflict.local.value, conflict.remote.value) for conflict in report.conflicts] == [("loses", "theirs")]
    assert await client.query() == []
    assert await server.query() == [("log/1", "sent"), ("log/2", "theirs")]


async def test_a_change_in_a_range_that_is_not_filled_yet_loses_to_the_servers_value(
    stores: Stores, server: Any
) -> None:
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/"])
    await server.batch([Put("b/1", "theirs"), Put("b/2", "same"), Put("b/4", "deleted here")])
    await client.sync(server)
    await client.follow("b/")
    await client.batch([Put("b/1", "mine"), Put("b/2", "same"), Put("b/3", "new")], together=False)
    await client.delete("b/4")
    report = await client.sync(server)
    assert [(conflict.key, conflict.remote.value) for conflict in report.conflicts] == [
        ("b/1", "theirs"),
        ("b/4", "deleted here"),
    ]
    assert (report.pushed, report.consistent) == (1, True)
    assert await client.query() == await server.query()


async def test_a_change_whose_range_is_unfollowed_before_it_is_pushed_loses_to_changes_made_meanwhile(
    stores: Stores, server: Any
) -> None:
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/", "b/"])
    await server.put("b/1", "first")
    await client.sync(server)
    await client.put("b/1", "mine")
    await client.put("b/2", "new")
    await client.unfollow("b/")
    await server.put("b/1", "theirs")
    assert (await client.sync(server, push=False)).consistent
    report = await client.sync(server)
    assert [conflict.local.value for conflict in await client.conflicts()] == ["mine"]
    assert (report.pushed, await client.pending(), await client.query()) == (1, 0, [])
    assert await server.query() == [("b/1", "theirs"), ("b/2", "new")]


async def test_unfollowing_a_range_that_is_not_followed_changes_nothing(stores: Stores, server: Any) -> None:
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/"])
    await client.sync(server)
    await client.put("b/1", "not followed")
    before = await stores.bytes_of(client)
    await client.unfollow("b/")
    assert await stores.bytes_of(client) == before


async def test_an_interrupted_fill_continues_where_it_was(
    stores: Stores, server: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 10)
    await server.batch([Put(f"k{n:02}", n) for n in range(35)])
    seen: list[int] = []

    def stop(report: Any) -> None:
        seen.append(report.filled)
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await client.sync(server, progress=stop)
    assert [followed.complete for followed in await client.followed()] == [False]
    await server.batch([Put("k00", "new"), Put("k34", "new")])
    await server.delete("k01")
    await client.close()
    client = await stores.open("client", mode=Level.CLIENT)
    report = await client.sync(server)
    assert report.filled == 15
    assert report.consistent
    assert await client.query() == await server.query()


async def test_local_changes_made_before_the_first_sync_conflict_with_the_servers_values(
    server: Any, client: Any
) -> None:
    await server.batch(NOTES)
    await client.batch([Put("a/1", "mine"), Put("a/2", 2), Put("new", 1)], together=False)
    report = await client.sync(server)
    assert [(conflict.key, conflict.remote.value) for conflict in report.conflicts] == [("a/1", 1)]
    assert (report.pushed, await client.query()) == (1, await server.query())


async def test_an_existing_store_follows_what_it_did(stores: Stores) -> None:
    client = await stores.open("c", mode=Level.CLIENT, follow=["b/", "a/", "a/"])
    await client.close()
    for follow in (None, ["a/", "b/"]):
        client = await stores.open("c", mode=Level.CLIENT, follow=follow)
        assert [followed.prefix for followed in await client.followed()] == ["a/", "b/"]
        await client.close()
    with pytest.raises(StateError, match=r"the store follows \['a/', 'b/'\], and the argument follow= names other"):
        await stores.open("c", mode=Level.CLIENT, follow=["a/"])


@pytest.mark.parametrize(
    ("prefix", "error"),
    [("!", InvalidKeyError), ("k" * 1025, InvalidKeyError), ("\ud800", InvalidKeyError), (b"a", TypeError)],
    ids=["metadata", "too long", "a surrogate", "bytes"],
)
async def test_a_prefix_that_begins_no_key_is_refused(
    stores: Stores, client: Any, prefix: Any, error: type[Exception]
) -> None:
    before = await stores.bytes_of(client)
    for call in (client.follow, client.unfollow):
        with pytest.raises(error):
            await call(prefix)
    assert await stores.bytes_of(client) == before
    with pytest.raises(error):
        stores.level("new", mode=Level.CLIENT, follow=[prefix])


async def test_too_many_prefixes_are_refused_and_nothing_is_written(stores: Stores) -> None:
    many = [f"{n:03}/" for n in range(256)]
    client = await stores.open("c", mode=Level.CLIENT, follow=many)
    before = await stores.bytes_of(client)
    with pytest.raises(ValueError, match="at most 256 prefixes"):
        await client.follow("one more")
    assert await stores.bytes_of(client) == before
    for follow in ([*many, "x"], [f"{n:02}{'k' * 1000}" for n in range(17)]):
        with pytest.raises(ValueError, match="at most 256 prefixes of 16384 bytes"):
            stores.level("x", mode=Level.CLIENT, follow=follow)


async def test_only_clients_follow(stores: Stores, server: Any) -> None:
    with pytest.raises(ModeError, match=r"follow\(\) needs CLIENT mode"):
        await server.follow("a")
    with pytest.raises(ValueError, match=r"follow= .* needs CLIENT mode"):
        stores.level("x", mode=Level.SERVER, follow=["a"])
    with pytest.raises(TypeError, match="put it in a list"):
        stores.level("x", mode=Level.CLIENT, follow="notes/")


async def test_an_unfollow_during_a_fill_does_not_hide_the_changes_of_others(server: Any, client: Any) -> None:
    """The reply in flight has no log for the range. It must not move the CID beyond its changes."""

    class Between:
        is_first = True

        async def exchange(self, request: Any) -> Any:
            reply = await server.exchange(request)
            if self.is_first:
                self.is_first = False
                await client.unfollow("")
            return reply

    await client.put("k", "mine")
    await server.put("k", "theirs")
    report = await client.sync(Between())
    assert await server.get("k") == "theirs"
    assert [(conflict.key, conflict.local.value) for conflict in report.conflicts] == [("k", "mine")]
    assert await client.pending() == 0
