"""Responses of captive portals, gateways and proxies: the server is unreachable, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import httpx
import orjson
import pytest
from async_adapter import AsyncAdapter
from scripted_server import ScriptedHandler, running
from waiting import PATIENCE, until

from treehub_level import ForbiddenError, Level, TransportError, blocking
from treehub_level.http import RemoteServer
from treehub_level.http import blocking as http_blocking
from treehub_level.http.client import calls
from treehub_level.http.client.responses import ServerResponse
from treehub_level.replication import schedule

from .fake import FakeServer, foreign, json_error

Remote = Callable[..., Any]

#: The body of our own server's refusal: without the header it proves nothing.
UNAUTHORIZED = b'{"code":"LEVEL_UNAUTHORIZED","message":"no"}'
#: A status, headers and a body of another program.
ANSWERS: list[tuple[int, dict[str, str], bytes]] = [
    (200, {"Content-Type": "text/html"}, b"<html>"),
    (200, {"Content-Type": "application/json"}, b'{"login": "please"}'),
    (204, {}, b""),
    (302, {"Location": "http://login.example/"}, b""),
    (302, {"Location": "http://["}, b""),
    (401, {"WWW-Authenticate": 'Basic realm="guests"'}, b"<html>"),
    (401, {"Content-Type": "application/json"}, UNAUTHORIZED),
    (403, {"Content-Type": "text/html"}, b"<html>"),
    (403, {"Content-Type": "application/json"}, b'{"code":"LEVEL_FORBIDDEN","message":"no"}'),
    (404, {"Content-Type": "application/json"}, b'{"code":"LEVEL_NOT_FOUND","message":"no"}'),
    (407, {"Proxy-Authenticate": "Basic"}, b""),
    (409, {"Content-Type": "application/json"}, b'{"code":"LEVEL_STORE_MISMATCH","message":"no"}'),
    (429, {"Retry-After": "0"}, b""),
    (503, {"Retry-After": "0"}, b""),
    (511, {"Content-Type": "text/html"}, b"<html>"),
]
NAMES = [f"{status}-{number}" for number, (status, _, _) in enumerate(ANSWERS)]


@pytest.mark.parametrize("answer", ANSWERS, ids=NAMES)
async def test_an_answer_of_another_program_is_an_unreachable_server(
    remote: Remote, fake: FakeServer, answer: tuple[int, dict[str, str], bytes]
) -> None:
    status, headers, content = answer
    fake.always = lambda _: foreign(status, headers=headers, content=content)
    one = remote(token=lambda: "id.secret", retries=0)
    for call in (one.info(), one.get("a"), one.put("a", 1), one.delete("a"), one.changes(0), one.query()):
        with pytest.raises(TransportError) as raised:
            await call
        assert raised.value.status == (None if status == 401 else status)
        assert not isinstance(raised.value, ForbiddenError)
    with pytest.raises(TransportError):
        await anext(one.watch(since=0))
    assert len(fake.requests) == 7


async def test_an_exchange_proves_itself_by_its_nonce(remote: Remote, fake: FakeServer, client: Any) -> None:
    """A gateway may remove the header."""
    fake.level.put("yours", 1)
    fake.always = lambda request: foreign(200, json=orjson.loads(fake.answer(request).content))
    await client.put("mine", 2)
    report = await client.sync(remote().remote if isinstance(client, AsyncAdapter) else remote())
    assert (report.pulled, report.pushed) == (1, 1)


async def test_only_a_rejected_token_is_renewed(remote: Remote, fake: FakeServer) -> None:
    tokens = iter(["one", "two", "three", "four"])
    one = remote(token=lambda: next(tokens))
    fake.faults += [foreign(401, content=UNAUTHORIZED), foreign(401, headers={"www-authenticate": "Basic"})]
    for _ in range(2):
        with pytest.raises(TransportError, match="another program answered"):
            await one.info()
    fake.faults += [json_error(401)]
    await one.info()
    # A gateway that checks bearer tokens says so.
    fake.faults += [foreign(401, headers={"www-authenticate": 'Bearer error="invalid_token"'})]
    await one.info()
    seen = [request.headers["authorization"] for request in fake.requests]
    assert seen == ["Bearer one"] * 3 + ["Bearer two"] * 2 + ["Bearer three"]


async def test_another_program_cannot_delay_a_retry_for_long(remote: Remote, fake: FakeServer) -> None:
    fake.always = foreign(503, headers={"retry-after": "86400"})
    with pytest.raises(TransportError) as raised:
        await remote().info()
    assert raised.value.retry_after == 60


async def test_the_body_of_another_program_is_not_read(remote: Remote, fake: FakeServer) -> None:
    class Unreadable(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Any:
            raise AssertionError("it is read")

        __aiter__ = __iter__

    fake.always = lambda _: foreign(200, headers={"content-type": "application/json"}, stream=Unreadable())
    with pytest.raises(TransportError, match="another program answered"):
        await remote().info()


# ---------------------------------------------------------------------------------- a live session


@pytest.fixture
def portal() -> Iterator[Any]:
    """A server over a socket: a captive portal while `answer` is set, and then the server.

    Attributes:
        answer: The status, headers and body of the portal; ``None`` for the server.
        answered: The number of requests that the portal has answered.
    """
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as level:

        class Handler(ScriptedHandler):
            def answer(self) -> None:
                body = self.read_body()
                if server.answer is None:
                    self.respond(200, server.headers, orjson.dumps(level.exchange(orjson.loads(body))))
                else:
                    self.respond(*server.answer)
                    server.answered += 1

        with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
            server.headers = {"Content-Type": "application/json", "Treehub-Level": "1"}
            server.level, server.answer, server.answered = level, None, 0
            server.url += "/v1/notes"
            yield server


@pytest.fixture
async def connect(api: str, portal: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A factory of `RemoteServer` objects of this API, whose calls and sessions retry at once."""
    monkeypatch.setattr(schedule, "backoff", lambda *_: 0.01)
    monkeypatch.setattr(calls, "backoff", lambda *_: 0.0)
    made: list[Any] = []

    def create(token: str | None) -> Any:
        made.append((RemoteServer if api == "async" else http_blocking.RemoteServer)(portal.url, token=token))
        return made[-1]

    yield create
    for one in made:
        await one.close() if api == "async" else one.close()


@pytest.mark.parametrize("token", [None, "id.secret"])
async def test_a_live_session_survives_a_captive_portal(
    client: Any, portal: Any, connect: Remote, token: str | None
) -> None:
    async with client.live(connect(token), interval=0.05) as session:
        await session.in_sync(within=PATIENCE)
        for number, answer in enumerate(ANSWERS):
            portal.answered, portal.answer = 0, answer
            await client.put("mine", number)
            await until(lambda: portal.answered >= 2 and session.state == "offline")
            portal.answer = None
            await session.in_sync(within=PATIENCE)
            assert portal.level.get("mine") == number


async def test_control_without_the_servers_header_a_captive_portal_stops_a_live_session(
    client: Any, portal: Any, connect: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerResponse, "is_from_server", True)
    async with client.live(connect("id.secret"), interval=0.05) as session:
        await session.in_sync(within=PATIENCE)
        portal.answer = (401, {"Content-Type": "application/json"}, UNAUTHORIZED)
        await client.put("mine", 1)
        await until(lambda: session.state == "needs_auth")
        portal.answer = None
        with pytest.raises(TransportError):
            await session.in_sync(within=0.3)


async def test_a_live_session_waits_after_the_servers_own_refusal(client: Any, portal: Any, connect: Remote) -> None:
    async with client.live(connect("id.secret"), interval=0.05) as session:
        await session.in_sync(within=PATIENCE)
        portal.answer = (401, portal.headers, UNAUTHORIZED)
        await client.put("mine", 1)
        await until(lambda: session.state == "needs_auth")
        portal.answer = None
        session.resume()
        await session.in_sync(within=PATIENCE)
