"""``session.consistent`` and ``SyncReport.consistent``: the client has the data of a CID."""

from __future__ import annotations

from typing import Any

import pytest
from stores import Stores
from waiting import PATIENCE

from treehub_level import Level, NotOpenError, Put, Refused, TransportError
from treehub_level.replication import client as client_half


class Between:
    """A server that forwards messages to another one, with faults.

    Attributes:
        fails: True if no request arrives.
        hides_values: True if the replies lack the present values of lost changes.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.fails = False
        self.hides_values = False

    async def exchange(self, request: Any) -> Any:
        if self.fails:
            raise TransportError("the network is down")
        reply = await self._server.exchange(request)
        if self.hides_values:
            reply = {name: value for name, value in reply.items() if name not in ("values", "value_count")}
        return reply


async def interrupted_sync(client: Any, server: Any, after: int = 1) -> Any:
    """Synchronise until the end of an exchange, and return the report so far.

    Args:
        client: The client.
        server: The server.
        after: The number of the exchange.
    """
    reports: list[Any] = []

    def stop(report: Any) -> None:
        reports.append(report)
        if len(reports) == after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await client.sync(server, progress=stop)
    return reports[-1]


async def test_a_session_is_consistent_from_the_first_fill_on_and_tells_so_at_the_next_opening(
    stores: Stores, server: Any
) -> None:
    client = await stores.open("c", mode=Level.CLIENT)
    await server.batch([Put("a", 1), Put("b", 2)])
    async with client.live(server) as session:
        await session.in_sync(within=PATIENCE)
        assert session.consistent
        session.pause()
        await client.put("a", "not pushed")  # a local change is left out
        await client.batch([Put("a", "mine"), Put("c", "mine")])
        assert session.consistent
    await client.close()
    client = await stores.open("c", mode=Level.CLIENT)
    assert client.live(server).consistent


async def test_a_client_that_has_never_synchronised_is_not_consistent(server: Any, client: Any) -> None:
    await client.put("a", 1)
    assert not client.live(server).consistent


async def test_a_newly_followed_range_is_not_consistent_before_it_is_filled(stores: Stores, server: Any) -> None:
    await server.batch([Put("a/1", 1), Put("b/1", 1)])
    client = await stores.open("c", mode=Level.CLIENT, follow=["a/"])
    session = client.live(server)
    assert (await client.sync(server)).consistent
    await client.follow("b/")
    assert not session.consistent
    await client.unfollow("b/")
    assert session.consistent  # nothing is followed that is not here
    await client.follow("a/x")  # a part of a range that is here
    assert session.consistent
    await client.follow("b/")
    assert (await client.sync(server)).consistent
    assert session.consistent
    await client.unfollow("a/")
    assert session.consistent


async def test_a_client_that_has_not_pulled_all_is_not_consistent(
    server: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 10)
    session = client.live(server)
    for n in range(15):
        await server.put(f"k{n:02}", n)
    report = await interrupted_sync(client, server)
    assert (report.consistent, session.consistent) == (False, False)  # a part of the fill
    assert (await client.sync(server)).consistent
    for n in range(15):
        await server.put(f"k{n:02}", -n)
    assert session.consistent  # of the CID that it has
    report = await interrupted_sync(client, server)
    assert (report.consistent, session.consistent) == (False, False)  # a page of the log
    assert (await client.sync(server)).consistent
    assert session.consistent


async def test_a_failed_round_changes_nothing(server: Any, client: Any) -> None:
    between = Between(server)
    session = client.live(between)
    await client.sync(between)
    await client.put("a", 1)
    between.fails = True
    with pytest.raises(TransportError):
        await client.sync(between)
    assert session.consistent
    await client.follow("b/")
    await client.unfollow("")
    await client.follow("c/")
    with pytest.raises(TransportError):
        await client.sync(between)
    assert not session.consistent


async def test_a_reset_is_not_consistent_from_its_beginning_to_its_end(stores: Stores, server: Any) -> None:
    client = await stores.open("c", mode=Level.CLIENT)
    await server.batch([Put("a", 1), Put("b", 1)])
    await client.sync(server)
    session = client.live(server)
    await server.delete("a")
    await server.put("c", 1)
    await server.compact_log(drop_deletes_before=server.cid)
    assert session.consistent  # it does not know yet
    report = await interrupted_sync(client, server)
    assert (report.reset, report.consistent, session.consistent) == (True, False, False)
    report = await client.sync(server)
    assert (report.consistent, session.consistent) == (True, True)


async def test_a_client_that_follows_another_server_is_not_consistent(stores: Stores, server: Any, client: Any) -> None:
    await client.sync(server)
    other = await stores.open("other", mode=Level.SERVER)
    await client.rebind(other)
    assert not client.live(other).consistent
    assert (await client.sync(other)).consistent
    assert client.live(other).consistent


async def test_lost_changes_that_wait_for_the_servers_values_are_not_consistent(server: Any, client: Any) -> None:
    between = Between(server)
    session = client.live(between)
    await client.sync(between)
    await client.batch([Put("a", "mine"), Put("b", "mine")])
    await server.put("a", "theirs")
    between.hides_values = True
    report = await interrupted_sync(client, between)
    assert (client.cid, report.consistent, session.consistent) == (server.cid, False, False)
    await client.put("b", "mine again")  # the group has lost, and its other members wait
    assert not session.consistent
    between.hides_values = False
    assert (await client.sync(between)).consistent
    assert session.consistent


def refuse(call: Any, changes: Any, read: Any) -> None:
    raise Refused("closed")


async def test_a_refused_change_that_is_written_again_is_a_local_change(stores: Stores, client: Any) -> None:
    server = await stores.open("strict", mode=Level.SERVER, check=refuse)
    between = Between(server)
    session = client.live(between)
    await client.sync(between)
    await client.put("a", "mine")
    between.hides_values = True
    report = await interrupted_sync(client, between)
    assert (report.refused, report.consistent, session.consistent) == (["a"], False, False)
    await client.put("a", "mine again")
    assert session.consistent


async def test_a_manual_pull_is_not_consistent_until_the_next_exchange(server: Any, client: Any) -> None:
    await client.sync(server)
    session = client.live(server)
    await server.batch([Put("a", 1), Put("b", 1)])
    await client.apply(await server.changes(client.cid, limit=1))
    assert not session.consistent
    report = await client.sync(server)
    assert (report.consistent, session.consistent) == (True, True)


async def test_a_call_without_an_exchange_reports_the_stored_state(server: Any, client: Any) -> None:
    report = await client.sync(server, pull=False)
    assert (report.rounds, report.consistent) == (0, False)
    await client.sync(server)
    report = await client.sync(server, pull=False)
    assert (report.rounds, report.consistent) == (0, True)


async def test_a_closed_level_tells_nothing(server: Any, client: Any) -> None:
    session = client.live(server)
    await client.close()
    with pytest.raises(NotOpenError):
        _ = session.consistent
