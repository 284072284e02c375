"""The look-ahead: a client sends its next request before it applies the current page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from treehub_level import Level, SyncReport, TransportError, blocking
from treehub_level.replication import client as client_half
from treehub_level.replication import server as server_half
from treehub_level.replication import session as session_half
from treehub_level.replication.messages import Request
from treehub_level.replication.session import LookAhead, sync_session
from treehub_level.replication.wire import Received, reply_pieces
from treehub_level.testing import CrashingDisk

from .helpers import Store, a_client, a_server


@pytest.fixture(autouse=True)
def pages_of_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 1000)


def a_server_with(changes: int = 3500) -> Store:
    server = a_server()
    server.load((f"k{n:05}", n) for n in range(changes))
    return server


def session_of(client: Store) -> Any:
    return sync_session(client._store.step, client._store.client("sync"), report=SyncReport(), look_ahead=True)


@pytest.mark.parametrize("in_lines", [False, True], ids=["in process", "in lines"])
def test_the_next_request_is_announced_before_a_page_is_applied(in_lines: bool) -> None:
    client, server = a_client(), a_server_with()
    session = session_of(client)
    request, early = next(session), []
    while True:
        answer: Any = server.exchange_encoded(request)
        if in_lines:
            answer = Received(b"".join(reply_pieces(answer, in_lines=True)), in_lines=True)
        try:
            message = session.send(answer)
            if isinstance(message, LookAhead):
                early.append((message.request.cid, client.cid))
                following = next(session)
                assert following is message.request
                message = following
            request = message
        except StopIteration:
            break
    assert early == [(1000, 0), (2000, 1000), (3000, 2000)]
    assert client.query() == server.query()


def test_a_client_with_a_push_looks_ahead_while_it_is_too_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the head a push may be accepted, so the dirty changes are read first."""
    for module in (session_half, server_half):
        monkeypatch.setattr(module, "MAX_DISTANCE", 1500)
    client, server = a_client(mine=1), a_server_with()
    session = session_of(client)
    message, early = next(session), []
    with pytest.raises(StopIteration):
        while True:
            if isinstance(message, LookAhead):
                early.append(message.request.cid)
                message = next(session)
            message = session.send(server.exchange_encoded(message))
    assert early == [1000]
    assert server.get("mine") == 1
    assert client.query() == server.query()


def test_changes_written_meanwhile_are_pushed_at_the_end() -> None:
    client, server = a_client(), a_server_with()
    session = session_of(client)
    ahead = session.send(server.exchange_encoded(next(session)))
    assert isinstance(ahead, LookAhead)
    client.put("k00000", "mine")
    client.put("mine", 1)
    request = next(session)
    with pytest.raises(StopIteration) as end:
        while True:
            message = session.send(server.exchange_encoded(request))
            request = next(session) if isinstance(message, LookAhead) else message
    assert (end.value.value.pushed, server.get("mine")) == (1, 1)
    assert [lost.key for lost in end.value.value.conflicts] == ["k00000"]
    assert client.query() == server.query()


def test_a_stale_reply_announces_no_request() -> None:
    client, server = a_client(), a_server_with()
    session = session_of(client)
    first = next(session)
    other = server.exchange_encoded(Request(None, "c" * 32, 0, 0, [], "f" * 32, 0, limit=1000))
    again = session.send(other)
    assert isinstance(again, Request)
    assert (again.cid, again.nonce != first.nonce, client.cid) == (0, True, 0)


def test_a_look_ahead_works_for_a_server_with_many_epochs() -> None:
    """A request lists the last epochs only; those of a page may lie between them."""
    disk = CrashingDisk()
    for opening in range(60):
        with blocking.Level("server", backend=disk, mode=Level.SERVER) as server:
            server.load((f"k{opening:02}{n:02}", n) for n in range(100))
    client = a_client()
    with blocking.Level("server", backend=disk, mode=Level.SERVER) as server:
        session = session_of(client)
        message, ahead = next(session), 0
        with pytest.raises(StopIteration):
            while True:
                if isinstance(message, LookAhead):
                    ahead += 1
                    message = next(session)
                starts = [epoch.start for epoch in message.epochs]
                assert starts == sorted({*starts})
                message = session.send(server.exchange_encoded(message))
        assert ahead > 2
        assert client.query() == server.query()


class UnreachableServer:
    """A server that becomes unreachable after a number of requests."""

    def __init__(self, server: Any, after: int) -> None:
        self._server = server
        self._left = after

    async def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> Any:
        raise AssertionError("requests must be passed as objects")

    async def exchange_encoded(self, request: Request, *, wait: float = 0) -> Any:
        await asyncio.sleep(0)
        self._left -= 1
        if self._left < 0:
            raise ConnectionResetError("gone")
        return await self._server.exchange_encoded(request)


async def test_a_request_that_was_sent_early_and_lost_is_sent_again_by_the_next_call() -> None:
    async with (
        Level("server", backend="memory", mode=Level.SERVER) as server,
        Level("client", backend="memory", mode=Level.CLIENT) as client,
    ):
        await client.sync(server)
        await server.load((f"k{n:05}", n) for n in range(5500))
        with pytest.raises(TransportError, match="could not be reached"):
            await client.sync(UnreachableServer(server, 2))
        assert client.cid == 2000
        report = await client.sync(server)
        assert (report.pulled, report.rounds) == (3500, 4)
        assert await client.query() == await server.query()


async def test_a_sync_that_fails_leaves_no_pending_request() -> None:
    async with (
        Level("server", backend="memory", mode=Level.SERVER) as server,
        Level("client", backend="memory", mode=Level.CLIENT) as client,
    ):
        await server.load((f"k{n:05}", n) for n in range(5500))

        def stop(report: SyncReport) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            await client.sync(server, progress=stop)
        assert len(asyncio.all_tasks()) == 1
