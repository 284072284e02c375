"""Clients synchronise with a remote server as with one in this process, over either API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from threading import get_ident
from typing import Any

import httpx
import pytest
from async_adapter import AsyncAdapter
from waiting import PATIENCE, until

from treehub_level import Level, StoreMismatchError, TransportError, blocking
from treehub_level.http.client import blocking as http_blocking

from .fake import URL, Fake, json_error, portal

Remote = Callable[..., Any]


@pytest.fixture
async def client(api: str) -> AsyncIterator[Any]:
    """An open client of this API."""
    made: Any = Level if api == "async" else blocking.Level
    level = made("client", backend="memory", mode=Level.CLIENT)
    async with level if api == "async" else AsyncAdapter(level):
        yield level if api == "async" else AsyncAdapter(level)


@pytest.fixture
def plain(remote: Remote, api: str) -> Remote:
    """Makes a remote server, without the manners of the other API."""
    return lambda **options: remote(**options) if api == "async" else remote(**options).remote


def too_large_for(most: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """What stands before the server carries so many bytes."""
    return lambda request: httpx.Response(413, html="<h1>413</h1>") if len(request.content) > most else None


async def test_sync_over_http_drains_both_sides(client: Any, fake: Fake, plain: Remote) -> None:
    fake.level.load((f"yours {n:04}", n) for n in range(1500))
    await client.load([(f"mine {n:04}", {"🙂": n}) for n in range(1500)])
    report = await client.sync(plain())
    assert (report.pulled, report.pushed, report.cid) == (1500, 1500, 3000)
    assert await client.query() == fake.level.query()


async def test_a_lost_reply_to_a_push_pushes_nothing_twice(client: Any, fake: Fake, plain: Remote) -> None:
    await client.put("a", 1)

    def lose(request: httpx.Request) -> httpx.Response:
        fake.answer(request)
        raise httpx.ReadError("lost")

    fake.faults.append(lose)
    report = await client.sync(plain())
    assert (report.pushed, report.conflicts) == (1, [])
    assert fake.level.cid == 1


async def test_a_reset_travels_as_409_and_is_a_reply(client: Any, fake: Fake, plain: Remote) -> None:
    fake.level.put("a", 1)
    await client.sync(plain())
    fake.level.delete("a")
    fake.level.put("b", 1)
    fake.level.compact_log(drop_deletes_before=3)
    assert (await client.sync(plain())).reset
    assert await client.query() == [("b", 1)]


async def test_another_server_at_the_address_is_noticed(client: Any, fake: Fake, plain: Remote) -> None:
    await client.sync(plain())
    with blocking.Level("other", backend="memory", mode=Level.SERVER) as other:
        fake.level = other
        with pytest.raises(StoreMismatchError, match="rebind"):
            await client.sync(plain())
        await client.rebind(plain())
        await client.sync(plain())


async def test_413_halves_the_push_and_names_a_value_that_is_too_large(client: Any, fake: Fake, plain: Remote) -> None:
    await client.load([(f"k{n:03}", "x" * 100) for n in range(100)])
    await client.put("large", "x" * 5000)
    fake.always = too_large_for(4000)
    with pytest.raises(TransportError, match="'large'") as raised:
        await client.sync(plain())
    assert (raised.value.status, raised.value.keys) == (413, ["large"])
    assert fake.level.count() == 100
    fake.always = None
    assert (await client.sync(plain())).pushed == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (portal(), 200),
        (json_error(401), 401),
        (json_error(403), 403),
        (json_error(404), 404),
        (json_error(503, **{"retry-after": "1000"}), 503),
        (httpx.ReadTimeout("silence"), None),
    ],
)
async def test_an_interrupted_sync_goes_on_where_it_was(
    client: Any, fake: Fake, plain: Remote, fault: Any, status: int | None
) -> None:
    await client.put("a", 1)
    fake.always = fault
    with pytest.raises(TransportError) as raised:
        await client.sync(plain(token="t"))
    assert raised.value.status == status
    await client.put("a", 2)
    fake.always = None
    await client.sync(plain())
    assert fake.level.get("a") == 2
    assert await client.conflicts() == []


async def test_a_live_session_over_http_survives_what_may_happen(client: Any, fake: Fake, plain: Remote) -> None:
    tokens = iter(["old", "new", "newer"])
    async with client.live(plain(token=lambda: next(tokens)), interval=0.05) as session:
        for fault in (portal(), json_error(503), json_error(404), httpx.ConnectError("refused"), too_large_for(1)):
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
async def test_a_blocking_remote_server_does_not_hold_up_the_loop_of_an_asyncio_client(fake: Fake) -> None:
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
