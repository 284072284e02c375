"""Responses that clients read slowly, or not at all: they take little memory, and stay correct."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import zstandard
from replication.helpers import ask as request
from served import Served, StreamingRequest

from treehub_level import Level, blocking
from treehub_level.http import Hub, create_app
from treehub_level.http.server.limits import Limits
from treehub_level.http.server.response_budget import PIECE_BYTES, ResponseBudget

pytestmark = pytest.mark.once

LINES = {"accept": "application/x-ndjson"}


@pytest.fixture
async def filled(served: Served) -> Served:
    """A server of 40 values of 32 KiB, without tokens."""
    served.rebuild(tokens=None)
    for number in range(40):
        await served.levels["notes"].put(f"k{number:02}", f"{number:04}" * (8 << 10))
    return served


def streaming(served: Served, path: str, body: Any = None, *, stop_after: int | None = None, **headers: str) -> Any:
    """Send a request. The client stops reading after so many messages of the response."""
    method = "GET" if body is None else "POST"
    chunks = None if body is None else [json.dumps(body).encode()]
    headers["content-type"] = "application/json"
    options: dict[str, Any] = {"body": chunks, "ends": True, "stop_after": stop_after}
    return StreamingRequest(served.app, method, path, headers=headers, **options).open()


def budget(served: Served) -> ResponseBudget:
    found: ResponseBudget = served.app.state.dispatcher.responses
    return found


PAGES = ["changes?limit=1000", "entries?limit=1000", "exchange"]


async def page_of(served: Served, route: str, **headers: str) -> bytes:
    if route == "exchange":
        return (await served.client.post("/v1/notes/exchange", json=request(), headers=headers)).content
    return (await served.client.get(f"/v1/notes/{route}", headers=headers)).content


async def unread_pages(served: Served, route: str, stack: AsyncExitStack) -> list[StreamingRequest]:
    """Request ten pages of 1.25 MiB each, and read no byte of them."""
    streams = []
    for _ in range(10):
        body = request() if route == "exchange" else None
        stream = await stack.enter_async_context(streaming(served, f"/v1/notes/{route}", body, stop_after=0))
        await stream.until(lambda stream=stream: stream.blocked)
        streams.append(stream)
    return streams


@pytest.mark.parametrize("route", PAGES)
async def test_pages_that_are_not_read_take_no_more_than_half_of_a_share(
    filled: Served, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    filled.rebuild(tokens=None, limits=Limits(response_share=6 << 20))
    whole = await page_of(filled, route)
    async with AsyncExitStack() as stack:
        streams = await unread_pages(filled, route, stack)
        assert 2 << 20 < budget(filled).held.total() <= 3 << 20
        for stream in streams:
            stream.reading.set()
            await stream.until(stream.task.done)
    sizes = [len(stream.text) for stream in streams]
    assert sizes[0] == len(whole) > 40 * (32 << 10)
    assert sizes[-1] <= PIECE_BYTES + 1000
    assert not budget(filled).held
    monkeypatch.setattr(ResponseBudget, "take_for_page", lambda _, __, most: most)  # the control
    async with AsyncExitStack() as stack:
        streams = await unread_pages(filled, route, stack)
        for stream in streams:
            stream.reading.set()
            await stream.until(stream.task.done)
        assert [len(stream.text) for stream in streams] == [len(whole)] * 10


@pytest.mark.parametrize("headers", [{}, LINES, {"accept-encoding": "zstd"}], ids=["json", "lines", "zstd"])
@pytest.mark.parametrize("route", PAGES)
async def test_a_page_without_room_is_short_and_says_that_there_is_more(
    filled: Served, headers: dict[str, str], route: str
) -> None:
    filled.rebuild(tokens=None, limits=Limits(response_bytes=0))
    text = await page_of(filled, route, **headers)
    assert len(text) <= PIECE_BYTES + 1000
    page = json.loads(text.partition(b"\n")[0])
    assert page.get("more") or page.get("has_more")
    if headers is LINES:
        rows = [*map(json.loads, text.splitlines()[1:])]
        assert len(rows) == 1 or page["cid"] == rows[-1][0] == page["count"]


async def test_clients_without_room_for_pages_are_equal_in_the_end(filled: Served) -> None:
    filled.rebuild(tokens=None, limits=Limits(response_bytes=0))
    server, remote = filled.levels["notes"], Forwarder(filled.client)
    await server.delete("k03")
    async with Level("one", backend="memory", mode=Level.CLIENT) as client:
        for number in range(0, 60, 2):
            await client.put(f"k{number:02}", f"{number:05}" * (8 << 10))
        await client.sync(remote)
        assert await client.query() == await server.query()
        assert client.cid == server.cid
        assert len(await client.conflicts()) == 20


class Forwarder:
    """A server for ``Level.sync`` that sends each exchange to the application."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def exchange(self, message: Any) -> Any:
        return (await self._client.post("/v1/notes/exchange", json=message)).json()


async def test_what_a_client_has_taken_is_no_longer_in_memory(filled: Served) -> None:
    held = []
    for taken in (4, 12, 20):
        async with streaming(filled, "/v1/notes/changes?limit=1000", stop_after=taken) as stream:
            await stream.until(lambda stream=stream: stream.blocked)
            held.append(budget(filled).held.total())
    assert held[0] > held[1] > held[2] > 0
    assert not budget(filled).held


async def test_a_page_goes_on_after_its_database_was_closed_to_make_room(tmp_path: Path) -> None:
    for name in ("notes", "other"):
        with blocking.Level(tmp_path / name, mode=Level.SERVER) as level:
            for number in range(40):
                level.put(f"k{number:02}", f"{number:04}" * (8 << 10))
    hub = Hub(tmp_path, max_open=1)
    app = create_app(hub)
    async with hub, StreamingRequest(app, "GET", "/v1/notes/changes?limit=1000", stop_after=3).open() as stream:
        await stream.until(lambda: stream.blocked)
        async with hub.use("other"):
            pass
        stream.reading.set()
        await stream.until(stream.task.done)
        assert len(json.loads(stream.text)["changes"]) == 40


# ------------------------------------------------------------------------------------ large values


@pytest.fixture
async def large(served: Served) -> AsyncIterator[Served]:
    """A server of one value of 1 MiB, with room for one such value of each token."""
    served.rebuild(limits=Limits(response_share=1 << 20, response_seconds=0.05))
    await served.levels["notes"].put("large", "x" * ((1 << 20) - 2))
    yield served
    assert not budget(served).held


@pytest.mark.parametrize("path", ["/v1/notes/entries/large", "/v1/notes/changes", "/v1/notes/entries"])
async def test_a_large_value_waits_for_room_in_the_share_of_its_token(large: Served, path: str) -> None:
    token = large.tokens.add(databases=["notes"])
    other = await large.client_with(large.tokens.add(databases=["notes"]))
    async with streaming(large, path, stop_after=3, authorization=f"Bearer {token}") as stream:
        await stream.until(lambda: stream.blocked)
        async with streaming(large, "/v1/notes/entries/large", authorization=f"Bearer {token}") as second:
            await second.until(lambda: second.task.done())
            assert (second.status, json.loads(second.text)["code"]) == (503, "LEVEL_BUSY")
        assert (await other.get("/v1/notes/entries/large")).status_code == 200
        async with streaming(large, "/v1/notes", authorization=f"Bearer {token}") as small:
            await small.until(lambda: small.task.done())
            assert small.status == 200


async def test_large_values_take_turns(large: Served) -> None:
    large.rebuild(tokens=None, limits=Limits(response_share=1 << 20))
    paths = ["/v1/notes/entries/large", "/v1/notes/changes", "/v1/notes/entries"] * 5
    answers = await asyncio.gather(*(large.client.get(path) for path in paths))
    assert [answer.status_code for answer in answers] == [200] * 15
    assert len({len(answer.content) for answer in answers}) == 3


async def test_a_cancelled_wait_for_room_gives_the_room_back() -> None:
    responses = ResponseBudget(Limits(response_share=100))
    for turns in range(6):
        assert responses.try_take("t", 100)
        waiting = asyncio.ensure_future(responses.take("t", 100))
        for _ in range(3):
            await asyncio.sleep(0)
        responses.give("t", 100)
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        if not (await asyncio.gather(waiting, return_exceptions=True))[0]:
            responses.give("t", 100)
        assert not responses.held, turns


async def test_waiting_responses_of_one_token_do_not_stop_those_of_others() -> None:
    responses = ResponseBudget(Limits(response_bytes=100, response_share=60))
    assert responses.try_take("a", 60)
    first, second = (asyncio.ensure_future(responses.take("a", size)) for size in (50, 10))
    await asyncio.sleep(0)
    assert responses.try_take("b", 40)
    responses.give("b", 40)
    assert not responses.try_take("a", 0), "a later response of the same token went first"
    responses.give("a", 60)
    await asyncio.gather(first, second)
    assert responses.held == {"a": 60}


# ------------------------------------------------------------------------------------- compression


async def test_compressors_are_limited_and_further_responses_are_not_compressed(filled: Served) -> None:
    filled.rebuild(tokens=None, limits=Limits(compressors=2))
    whole = await page_of(filled, "entries?limit=1000", **{"accept-encoding": "identity"})
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(3):
            path = "/v1/notes/entries?limit=1000"
            request_ = streaming(filled, path, stop_after=0, **{"accept-encoding": "zstd"})
            stream = await stack.enter_async_context(request_)
            await stream.until(lambda stream=stream: stream.blocked)
            streams.append(stream)
        assert budget(filled).compressors == 2
        for stream in streams:
            stream.reading.set()
            await stream.until(lambda stream=stream: stream.task.done())
        codings = [dict(stream.sent[0]["headers"]).get(b"content-encoding") for stream in streams]
        bodies = [zstandard.ZstdDecompressor().decompressobj().decompress(stream.text) for stream in streams[:2]]
    assert codings == [b"zstd", b"zstd", None]
    assert [*bodies, streams[2].text] == [whole] * 3
    assert budget(filled).compressors == 0


async def test_a_small_page_is_one_message(served: Served) -> None:
    await served.levels["notes"].put("a", 1)
    served.rebuild(tokens=None)
    for path in ("changes", "entries", "entries/a"):
        async with streaming(served, f"/v1/notes/{path}") as stream:
            await stream.until(lambda stream=stream: stream.task.done())
            assert [message["type"] for message in stream.sent] == ["http.response.start", "http.response.body"]
            assert int(dict(stream.sent[0]["headers"])[b"content-length"]) == len(stream.text) < PIECE_BYTES
