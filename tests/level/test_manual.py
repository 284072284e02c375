"""Manual sync, as in the README and the tests of ``@treehub/level``."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import CIDMismatchError, Level


async def sync_manually(server: Any, client: Any) -> None:
    cid, changes = (await server.changes(client.CID))[:2]
    await client.apply(cid, changes)
    client_changes = await client.dirty()
    server_cid = await server.change(client.CID, client_changes)
    await client.clean(server_cid, [change.key for change in client_changes])


async def assert_equal(*levels: Any) -> None:
    assert len({level.CID for level in levels}) == 1
    first, *others = [await level.query() for level in levels]
    assert all(other == first for other in others)


@pytest.fixture
async def clients(stores: Stores) -> Any:
    """Two clients of one server."""
    return [await stores.open(name, mode=Level.CLIENT) for name in ("client 1", "client 2")]


async def test_clients_sync_through_the_server(server: Any, clients: Any) -> None:
    client1, client2 = clients
    await server.put("s1", True)
    await client1.put("c1", "bar")
    await sync_manually(server, client1)
    await assert_equal(server, client1)
    await sync_manually(server, client2)
    await assert_equal(server, client1, client2)

    await server.del_("s1")
    await server.put("s2", "bar")
    await client2.put("c2", "foo")
    await sync_manually(server, client1)
    await assert_equal(server, client1)
    await sync_manually(server, client2)
    await assert_equal(server, client2)
    await sync_manually(server, client1)
    await assert_equal(server, client1, client2)
    assert await server.query() == [("c1", "bar"), ("c2", "foo"), ("s2", "bar")]


async def test_the_server_overwrites_what_a_client_changed(server: Any, clients: Any) -> None:
    client1, client2 = clients
    await server.put("s1", True)
    await sync_manually(server, client1)
    await sync_manually(server, client2)

    await client1.put("s1", "Client1")
    await client2.put("s1", "Client2")
    await sync_manually(server, client1)
    await sync_manually(server, client2)

    await assert_equal(server, client1, client2)
    assert await client1.get("s1") == "Client1"


async def test_manual_sync_works_beyond_cid_9_and_100_changes(server: Any, clients: Any) -> None:
    client1, client2 = clients
    for round in range(30):
        await client1.put(f"k{round % 7}", round)
        await client2.put(f"l{round}", round)
        await sync_manually(server, client1)
        await sync_manually(server, client2)
    await sync_manually(server, client1)
    await assert_equal(server, client1, client2)
    assert server.cid == 60


async def test_a_push_without_a_pull_before_it_is_refused(server: Any, clients: Any) -> None:
    client1, _ = clients
    await server.put("s1", True)
    await client1.put("c1", "bar")
    with pytest.raises(CIDMismatchError):
        await server.change(client1.CID, await client1.dirty())
    await sync_manually(server, client1)
    await assert_equal(server, client1)


async def test_sync_works_after_manual_sync(server: Any, clients: Any) -> None:
    client1, client2 = clients
    await server.put("s1", 1)
    await client1.put("c1", 1)
    await sync_manually(server, client1)
    await client1.put("c2", 2)
    await server.put("s2", 2)

    report = await client1.sync(server)

    assert (report.pulled, report.pushed, report.reset) == (1, 1, False)
    await client2.sync(server)
    await assert_equal(server, client1, client2)


async def test_manual_sync_works_after_sync(server: Any, clients: Any) -> None:
    client1, client2 = clients
    await server.put("s1", 1)
    await client1.put("c1", 1)
    await client1.sync(server)
    await client2.put("c2", 2)
    await sync_manually(server, client2)
    await sync_manually(server, client1)
    await assert_equal(server, client1, client2)
    await client1.put("c3", 3)
    await client1.sync(server)
    await client2.sync(server)
    await assert_equal(server, client1, client2)
