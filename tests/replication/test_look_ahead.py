"""A client that is far behind says what it will ask next before it has taken what came: both sides work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from treehub_level import Level, SyncReport, TransportError, blocking
from treehub_level.replication.messages import Request
from treehub_level.replication.session import Ahead, sync_session
from treehub_level.replication.wire import Received, reply_pieces
from treehub_level.testing import CrashingDisk

from .helpers import Store, a_client, a_server


def far_ahead(changes: int = 3500) -> Store:
    server = a_server()
    server.load((f"k{n:05}", n) for n in range(changes))
    return server


def talk_of(client: Store) -> Any:
    return sync_session(client._store.step, client._store.client("sync"), report=SyncReport(), look_ahead=True)


@pytest.mark.parametrize("in_lines", [False, True], ids=["in process", "in lines"])
def test_the_next_request_is_known_before_a_page_is_taken(in_lines: bool) -> None:
    client, server = a_client(), far_ahead()
    talk = talk_of(client)
    request, early = next(talk), []
    while True:
        answer: Any = server.exchange_encoded(request)
        if in_lines:
            answer = Received(b"".join(reply_pieces(answer, in_lines=True)), in_lines=True)
        try:
            said = talk.send(answer)
            if isinstance(said, Ahead):
                early.append((said.request.cid, client.cid))
                following = next(talk)
                assert following is said.request
                said = following
            request = said
        except StopIteration:
            break
    # Near the head a push may be taken, so what is dirty is looked at first.
    assert early == [(1000, 0), (2000, 1000)]
    assert client.query() == server.query()


def test_what_is_written_meanwhile_is_pushed_in_the_end() -> None:
    client, server = a_client(), far_ahead()
    talk = talk_of(client)
    ahead = talk.send(server.exchange_encoded(next(talk)))
    assert isinstance(ahead, Ahead)
    client.put("k00000", "mine")
    client.put("mine", 1)
    request = next(talk)
    with pytest.raises(StopIteration) as end:
        while True:
            said = talk.send(server.exchange_encoded(request))
            request = next(talk) if isinstance(said, Ahead) else said
    assert (end.value.value.pushed, server.get("mine")) == (1, 1)
    assert [lost.key for lost in end.value.value.conflicts] == ["k00000"]
    assert client.query() == server.query()


def test_a_reply_to_something_else_says_nothing_of_what_comes_next() -> None:
    client, server = a_client(), far_ahead()
    talk = talk_of(client)
    first = next(talk)
    other = server.exchange_encoded(Request(None, "c" * 32, 0, 0, [], 0, "f" * 32, limit=1000))
    again = talk.send(other)
    assert isinstance(again, Request)
    assert (again.cid, again.nonce != first.nonce, client.cid) == (0, True, 0)


def test_a_client_asks_ahead_however_often_its_server_was_opened() -> None:
    """A request shows the last epochs only: those that a page names may lie between them."""
    disk = CrashingDisk()
    for opening in range(60):
        with blocking.Level("server", backend=disk, mode=Level.SERVER) as server:
            server.load((f"k{opening:02}{n:02}", n) for n in range(100))
    client = a_client()
    with blocking.Level("server", backend=disk, mode=Level.SERVER) as server:
        talk = talk_of(client)
        said, ahead = next(talk), 0
        with pytest.raises(StopIteration):
            while True:
                if isinstance(said, Ahead):
                    ahead += 1
                    said = next(talk)
                starts = [epoch.start for epoch in said.epochs]
                assert starts == sorted({*starts})
                said = talk.send(server.exchange_encoded(said))
        assert ahead > 2
        assert client.query() == server.query()


class Breaking:
    """A server that cannot be reached from some request on."""

    def __init__(self, server: Any, after: int) -> None:
        self._server = server
        self._left = after

    async def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> Any:
        raise AssertionError("messages are carried as they are")

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
        await server.load((f"k{n:05}", n) for n in range(5500))
        with pytest.raises(TransportError, match="could not be reached"):
            await client.sync(Breaking(server, 2))
        assert client.cid == 2000
        report = await client.sync(server)
        assert (report.pulled, report.rounds) == (3500, 4)
        assert await client.query() == await server.query()


async def test_a_synchronisation_that_fails_leaves_no_request_behind() -> None:
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
