"""Synchronisation with a remote server works as with a level in this process, with either API."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

import httpx
import pytest
from waiting import PATIENCE, until

from treehub_level import Level, StoreMismatchError, TransportError, blocking
from treehub_level.http import blocking as http_blocking

from .fake import URL, FakeServer, captive_portal, json_error

Remote = Callable[..., Any]


@pytest.fixture
def connect(remote: Remote, api: str) -> Remote:
    """A factory of `RemoteServer` objects of this API, without an adapter."""
    return lambda **options: remote(**options) if api == "async" else remote(**options).remote


def body_limit(maximum: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """Return the fault of a proxy that limits the size of request bodies."""
    return lambda request: httpx.Response(413, html="<h1>413</h1>") if len(request.content) > maximum else None


async def test_sync_over_http_drains_both_sides(client: Any, fake: FakeServer, connect: Remote) -> None:
    fake.level.load((f"yours {n:04}", n) for n in range(1500))
    await client.load([(f"mine {n:04}", {"🙂": n}) for n in range(1500)])
    report = await client.sync(connect())
    assert (report.pulled, report.pushed, report.cid) == (1500, 1500, 3000)
    assert await client.query() == fake.level.query()


async def test_a_lost_reply_to_a_push_pushes_nothing_twice(client: Any, fake: FakeServer, connect: Remote) -> None:
    await client.put("a", 1)

    def lose(request: httpx.Request) -> httpx.Response:
        fake.answer(request)
        raise httpx.ReadError("lost")

    fake.faults.append(lose)
    report = await client.sync(connect())
    assert (report.pushed, report.conflicts) == (1, [])
    assert fake.level.cid == 1


async def test_a_reset_has_status_409_and_is_a_reply(client: Any, fake: FakeServer, connect: Remote) -> None:
    fake.level.put("a", 1)
    await client.sync(connect())
    fake.level.delete("a")
    fake.level.put("b", 1)
    fake.level.compact_log(drop_deletes_before=3)
    assert (await client.sync(connect())).reset
    assert await client.query() == [("b", 1)]


async def test_another_server_at_the_same_url_is_detected(client: Any, fake: FakeServer, connect: Remote) -> None:
    await client.sync(connect())
    with blocking.Level("other", backend="memory", mode=Level.SERVER) as other:
        fake.level = other
        with pytest.raises(StoreMismatchError, match="rebind"):
            await client.sync(connect())
        await client.rebind(connect())
        await client.sync(connect())


async def test_413_halves_the_push_and_names_a_value_that_is_too_large(
    client: Any, fake: FakeServer, connect: Remote
) -> None:
    await client.load([(f"k{n:03}", "x" * 100) for n in range(100)])
    await client.put("large", "x" * 5000)
    fake.always = body_limit(4000)
    with pytest.raises(TransportError, match="'large'") as raised:
        await client.sync(connect())
    assert (raised.value.status, raised.value.keys) == (413, ["large"])
    assert fake.level.count() == 100
    fake.always = None
    assert (await client.sync(connect())).pushed == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (captive_portal(), 200),
        (json_error(401), 401),
        (json_error(403), 403),
        (json_error(404), 404),
        (json_error(503, **{"retry-after": "1000"}), 503),
        (httpx.ReadTimeout("timeout"), None),
    ],
)
async def test_an_interrupted_sync_resumes(
    client: Any, fake: FakeServer, connect: Remote, fault: Any, status: int | None
) -> None:
    await client.put("a", 1)
    fake.always = fault
    with pytest.raises(TransportError) as raised:
        await client.sync(connect(token="t"))
    assert raised.value.status == status
    await client.put("a", 2)
    fake.always = None
    await client.sync(connect())
    assert fake.level.get("a") == 2
    assert await client.conflicts() == []


async def test_a_live_session_over_http_survives_failures(client: Any, fake: FakeServer, connect: Remote) -> None:
    tokens = iter(["old", "new", "newer"])
    async with client.live(connect(token=lambda: next(tokens)), interval=0.05) as session:
        for fault in (captive_portal(), json_error(503), json_error(404), httpx.ConnectError("refused"), body_limit(1)):
            await session.in_sync(within=PATIENCE)
            fake.always = fault
            await client.put("a", fake.level.cid)
            await until(lambda: session.state == "offline")
            assert isinstance(session.last_error, TransportError)
            fake.always = None
            session.resume()
        await session.in_sync(within=PATIENCE)
        fake.always = lambda request: json_error(401) if request.headers["authorization"] != "Bearer newer" else None
        await client.put("a", "after two renewals")
        await until(lambda: session.state == "needs_auth")
        session.resume()
        await session.in_sync(within=PATIENCE)
    assert fake.level.get("a") == "after two renewals"


@pytest.mark.once
async def test_a_blocking_remote_server_does_not_block_the_event_loop_of_an_asyncio_client(fake: FakeServer) -> None:
    threads: set[int] = set()

    def answer(request: httpx.Request) -> httpx.Response:
        threads.add(get_ident())
        return fake(request)

    fake.level.put("s", 1)
    with http_blocking.RemoteServer(URL, transport=httpx.MockTransport(answer)) as remote:
        async with Level("client", backend="memory", mode=Level.CLIENT) as client:
            assert (await client.sync(remote)).pulled == 1
    assert threads
    assert get_ident() not in threads
