"""client.sync(server): pull, push, report."""

import asyncio
from typing import Any, cast

import pytest
from stores import Stores

from treehub_level import Level, ModeError, Put, SyncReport, blocking

pytestmark = pytest.mark.shared


@pytest.fixture
async def other(stores: Stores) -> Any:
    """A second client."""
    return await stores.open("other", mode=Level.CLIENT)


async def assert_drained(server: Any, *clients: Any) -> None:
    data = await server.query()
    for client in clients:
        assert await client.query() == data
        assert client.cid == server.cid
        assert await client.pending() == 0


async def test_a_sync_pulls_and_pushes(server: Any, client: Any, other: Any) -> None:
    await server.put("s1", True)
    await client.put("c1", "bar")
    await client.put("c2", "baz")

    report = await client.sync(server)

    assert isinstance(report, SyncReport)
    assert (report.pulled, report.pushed, report.cid) == (1, 2, 3)
    assert (report.conflicts, report.rejected, report.reset) == ([], [], False)
    assert report.rounds >= 1
    await other.sync(server)
    await assert_drained(server, client, other)
    assert await server.query() == [("c1", "bar"), ("c2", "baz"), ("s1", True)]


async def test_syncing_two_empty_stores_does_nothing(server: Any, client: Any) -> None:
    report = await client.sync(server)
    assert (report.pulled, report.pushed, report.cid) == (0, 0, 0)
    assert server.cid == 0


async def test_a_sync_with_nothing_to_do_changes_nothing(stores: Stores, server: Any, client: Any) -> None:
    await server.put("a", 1)
    await client.put("b", 2)
    await client.sync(server)
    before = await stores.bytes_of(server)
    mine = await stores.bytes_of(client)

    report = await client.sync(server)

    assert (report.pulled, report.pushed, report.cid) == (0, 0, 2)
    assert await stores.bytes_of(server) == before
    assert await stores.bytes_of(client) == mine


async def test_deletes_are_pulled_and_pushed(server: Any, client: Any, other: Any) -> None:
    await server.batch([Put("a", 1), Put("b", 2), Put("c", 3)])
    await client.sync(server)
    await other.sync(server)
    await server.delete("a")
    await client.delete("b")

    report = await client.sync(server)

    assert (report.pulled, report.pushed) == (1, 1)
    await other.sync(server)
    await assert_drained(server, client, other)
    assert await server.query() == [("c", 3)]


async def test_keys_and_values_in_all_scripts_are_pulled_and_pushed(server: Any, client: Any, other: Any) -> None:
    keys = ["é", "ключ", "键", "\uffff", "😀", "👩‍👩‍👧", "\U0010ffff", '"', "a b", "k" * 1024]
    await client.load((key, {key: [key]}) for key in keys[::2])
    await server.load((key, {key: [key]}) for key in keys[1::2])
    await client.delete("😀😀")

    await client.sync(server)
    await other.sync(server)

    await assert_drained(server, client, other)
    assert await other.query() == [(key, {key: [key]}) for key in sorted(keys)]


async def test_values_arrive_byte_for_byte(stores: Stores, server: Any, client: Any) -> None:
    for n, value in enumerate([1.0, -0.0, 1e300, 2**64 - 1, {"z": 1, "a": [None, "é\u2028"]}, ""]):
        await client.put(f"c{n}", value)
        await server.put(f"s{n}", value)
    await client.sync(server)

    mine, theirs = await stores.bytes_of(client), await stores.bytes_of(server)
    assert {k: v for k, v in mine.items() if k > b'"'} == {k: v for k, v in theirs.items() if k > b'"'}


@pytest.mark.parametrize("count", [1, 99, 100, 101, 999, 1000, 1001, 2500])
async def test_any_number_of_changes_is_pulled(server: Any, client: Any, count: int) -> None:
    await server.load((f"k{n:05}", n) for n in range(count))
    report = await client.sync(server)
    assert (report.pulled, report.pushed, report.cid) == (count, 0, count)
    await assert_drained(server, client)


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
async def test_any_number_of_changes_is_pushed(server: Any, client: Any, other: Any, count: int) -> None:
    await client.load((f"k{n:05}", n) for n in range(count))
    report = await client.sync(server)
    assert (report.pulled, report.pushed, report.cid) == (0, count, count)
    await other.sync(server)
    await assert_drained(server, client, other)


async def test_large_values_are_sent_in_several_messages(server: Any, client: Any, other: Any) -> None:
    value = "x" * (3 * 1024 * 1024)
    await client.load((f"c{n}", value) for n in range(5))
    await server.load((f"s{n}", value) for n in range(5))
    await client.sync(server)
    await other.sync(server)
    await assert_drained(server, client, other)
    assert await server.count() == 10


async def test_intermediate_values_of_a_client_may_be_skipped(server: Any, client: Any) -> None:
    for n in range(20):
        await client.put("a", n)
    await client.put("b", 1)
    await client.delete("b")
    report = await client.sync(server)
    assert report.pushed == 2
    assert (await server.changes(0)).changes == [["a", 19], ["b"]]


async def test_a_client_follows_a_server_through_thousands_of_writes_of_one_key(server: Any, client: Any) -> None:
    """`@treehub/level` returned to older values after CID 9."""
    for n in range(1, 31):
        await server.batch([Put("a", n * 100 + i) for i in range(50)])
        await client.sync(server)
        assert await client.get("a") == n * 100 + 49
        assert client.cid == n * 50


async def test_clients_receive_each_others_changes_through_the_server(server: Any, client: Any, other: Any) -> None:
    for round in range(5):
        await client.put(f"c{round}", round)
        await other.put(f"o{round}", round)
        await client.sync(server)
        await other.sync(server)
    await client.sync(server)
    await assert_drained(server, client, other)
    assert server.cid == 10


async def test_a_client_does_not_pull_its_own_push(server: Any, client: Any) -> None:
    for round in range(10):
        await client.put("a", round)
        report = await client.sync(server)
        assert (report.pulled, report.pushed, report.conflicts) == (0, 1, [])


async def test_concurrent_syncs_of_one_client_wait_for_each_other(server: Any, client: Any) -> None:
    await client.load((f"c{n}", n) for n in range(50))
    await server.load((f"s{n}", n) for n in range(50))
    reports = await asyncio.gather(*(client.sync(server) for _ in range(5)))
    assert sum(report.pushed for report in reports) == 50
    assert sum(report.pulled for report in reports) == 50
    await assert_drained(server, client)


async def test_clients_sync_concurrently_while_all_stores_are_written(stores: Stores, server: Any) -> None:
    clients = [await stores.open(f"client {n}", mode=Level.CLIENT) for n in range(4)]

    async def work(name: str, level: Any) -> None:
        for n in range(15):
            await level.put(f"{name}{n}", n)
            await level.put("shared", f"{name}{n}")
            if level is not server:
                await level.sync(server)

    await asyncio.gather(work("s", server), *(work(f"c{n}-", level) for n, level in enumerate(clients)))
    for client in clients * 2:
        await client.sync(server)

    await assert_drained(server, *clients)
    assert await server.count() == 5 * 15 + 1


async def test_a_write_during_a_sync_is_not_lost(server: Any, client: Any) -> None:
    async def write() -> None:
        for n in range(200):
            await client.put("a", n)

    async def sync() -> None:
        for _ in range(20):
            await client.sync(server)

    await asyncio.gather(write(), sync())
    await client.sync(server)
    assert await server.get("a") == await client.get("a") == 199
    assert await client.conflicts() == []


async def test_progress_is_called_after_each_exchange(server: Any, client: Any) -> None:
    await server.load((f"k{n}", n) for n in range(2500))
    seen = []
    report = await client.sync(server, progress=lambda report: seen.append((report.rounds, report.pulled)))
    assert [rounds for rounds, _ in seen] == list(range(1, report.rounds + 1))
    assert seen[-1] == (report.rounds, 2500)
    assert [pulled for _, pulled in seen] == sorted(pulled for _, pulled in seen)


# ------------------------------------------------------------------------------------- one way only


async def test_a_sync_that_only_pulls_pushes_nothing(server: Any, client: Any) -> None:
    await server.put("s", 1)
    await client.put("c", 2)
    report = await client.sync(server, push=False)
    assert (report.pulled, report.pushed) == (1, 0)
    assert await client.dirty() == [["c", 2]]
    assert await server.query() == [("s", 1)]
    await client.sync(server)
    await assert_drained(server, client)


async def test_a_sync_that_only_pushes_pushes_everything(server: Any, client: Any) -> None:
    await client.load((f"c{n}", n) for n in range(1500))
    report = await client.sync(server, pull=False)
    assert report.pushed == 1500
    assert await server.count() == 1500
    assert await client.pending() == 0


async def test_a_sync_that_only_pushes_succeeds_while_far_behind(server: Any, client: Any) -> None:
    await server.load((f"s{n}", n) for n in range(2500))
    await client.put("c", 1)
    report = await client.sync(server, pull=False)
    assert report.pushed == 1
    assert await server.get("c") == 1
    await client.sync(server)
    await assert_drained(server, client)


async def test_a_sync_without_pull_and_push_is_refused(server: Any, client: Any) -> None:
    with pytest.raises(ValueError):
        await client.sync(server, pull=False, push=False)


@pytest.mark.parametrize("on_reset", ["", "ignore", None, True], ids=repr)
async def test_an_unknown_value_of_on_reset_is_refused(server: Any, client: Any, on_reset: Any) -> None:
    with pytest.raises(ValueError, match="on_reset"):
        await client.sync(server, on_reset=on_reset)


async def test_a_client_cannot_be_used_as_a_server(client: Any, other: Any) -> None:
    await client.put("a", 1)
    with pytest.raises(ModeError):
        await client.sync(other)
    assert await client.dirty() == [["a", 1]]


@pytest.mark.parametrize("server", [None, 5, "server", object], ids=repr)
async def test_an_object_without_exchange_is_refused(client: Any, server: Any) -> None:
    with pytest.raises((TypeError, AttributeError), match="exchange"):
        await client.sync(server)


# ------------------------------------------------------------------------------ across the two APIs


async def test_an_asyncio_client_synchronises_with_a_blocking_server() -> None:
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as server:
        server.put("s", 1)
        async with Level("client", backend="memory", mode=Level.CLIENT) as client:
            await client.put("c", 2)
            assert (await client.sync(server)).pulled == 1
            assert await client.query() == server.query() == [("c", 2), ("s", 1)]


async def test_a_blocking_client_cannot_await_an_asyncio_server() -> None:
    async with Level("server", backend="memory", mode=Level.SERVER) as server:
        with blocking.Level("client", backend="memory", mode=Level.CLIENT) as client:
            with pytest.raises(TypeError, match="asyncio"):
                client.sync(cast(Any, server))
            with pytest.raises(TypeError, match="asyncio"):
                client.rebind(cast(Any, server))


async def test_an_asyncio_client_accepts_a_forwarder_that_is_not_awaited() -> None:
    class Forwarder:
        def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
            return server.exchange(request)

    with blocking.Level("server", backend="memory", mode=Level.SERVER) as server:
        server.put("s", 1)
        async with Level("client", backend="memory", mode=Level.CLIENT) as client:
            assert (await client.sync(Forwarder())).pulled == 1
