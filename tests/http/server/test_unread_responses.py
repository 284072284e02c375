"""Responses that clients read slowly, or not at all: they take little memory, and stay correct."""

from __future__ import annotations

import asyncio
import json
import shutil
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
from treehub_level.http.server.database import Database
from treehub_level.http.server.limits import Limits
from treehub_level.http.server.response_budget import PIECE_BYTES, ResponseBudget, ResponseHold

pytestmark = pytest.mark.once

#: No page stays in memory.
NO_ROOM = Limits(response_share=0)
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
    return StreamingRequest(
        served.app, method, path, headers=headers, body=chunks, ends=True, stop_after=stop_after
    ).open()


def budget(served: Served) -> ResponseBudget:
    found: ResponseBudget = served.app.state.dispatcher.responses
    return found


PAGES = ["changes?limit=1000", "entries?limit=1000", "exchange"]


async def page_of(served: Served, route: str, headers: dict[str, str]) -> bytes:
    if route == "exchange":
        return (await served.client.post("/v1/notes/exchange", json=request(), headers=headers)).content
    return (await served.client.get(f"/v1/notes/{route}", headers=headers)).content


@pytest.mark.parametrize("headers", [{}, LINES, {"accept-encoding": "zstd"}], ids=["json", "lines", "zstd"])
@pytest.mark.parametrize("route", PAGES)
async def test_a_page_in_pieces_is_the_page(filled: Served, route: str, headers: dict[str, str]) -> None:
    whole = await page_of(filled, route, headers)
    filled.rebuild(tokens=None, limits=NO_ROOM)
    assert await page_of(filled, route, headers) == whole
    assert len(whole) > 40 * (32 << 10)


@pytest.mark.parametrize("route", PAGES)
async def test_pages_that_are_not_read_hold_no_more_than_half_of_a_share(
    filled: Served, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    filled.rebuild(tokens=None, limits=Limits(response_share=6 << 20))
    held = await held_by_unread_pages(filled, route)
    assert 1 << 20 < held <= 3 << 20
    assert not budget(filled).held
    monkeypatch.setattr(ResponseHold, "keep", lambda hold, size: hold._try_take(size))  # the control
    assert await held_by_unread_pages(filled, route) > 3 << 20


async def held_by_unread_pages(served: Served, route: str) -> int:
    """Return the bytes in memory of ten pages of 1.25 MiB each, of which no byte is read."""
    async with AsyncExitStack() as stack:
        for _ in range(10):
            body = request() if route == "exchange" else None
            stream = await stack.enter_async_context(streaming(served, f"/v1/notes/{route}", body, stop_after=0))
            await stream.until(lambda stream=stream: stream.blocked)
        return budget(served).held.total()


@pytest.mark.parametrize("route", PAGES)
async def test_the_next_piece_is_read_once_the_client_has_taken_the_last(
    filled: Served, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    reads: list[str] = []
    for name in ("_read_piece", "_read_entries"):
        method = getattr(Database, name)

        async def counted(*args: Any, method: Any = method) -> Any:
            reads.append("piece")
            return await method(*args)

        monkeypatch.setattr(Database, name, counted)
    filled.rebuild(tokens=None, limits=NO_ROOM)
    body = request() if route == "exchange" else None
    async with streaming(filled, f"/v1/notes/{route}", body, stop_after=3) as stream:
        await stream.until(lambda: stream.blocked)
        await asyncio.sleep(0.05)
        assert len(reads) <= 3
        stream.reading.set()
        await stream.until(lambda: stream.task.done())
    assert len(reads) >= 10


async def test_a_page_of_a_log_compacted_meanwhile_ends_early(filled: Served) -> None:
    filled.rebuild(tokens=None, limits=NO_ROOM)
    level = filled.levels["notes"]
    async with streaming(filled, "/v1/notes/exchange", request(), stop_after=3) as stream:
        await stream.until(lambda: stream.blocked)
        await level.put("k39", "newer")
        await level.compact_log()
        stream.reading.set()
        await stream.until(lambda: stream.task.done())
        assert stream.sent[-1]["more_body"] is True
    assert len((await filled.client.get("/v1/notes/changes?limit=1000")).json()["changes"]) == 40


async def test_a_page_goes_on_while_others_write(filled: Served) -> None:
    filled.rebuild(tokens=None, limits=NO_ROOM)
    async with streaming(filled, "/v1/notes/exchange", request(), stop_after=3, **LINES) as stream:
        await stream.until(lambda: stream.blocked)
        await filled.levels["notes"].put("k00", "newer")
        stream.reading.set()
        await stream.until(lambda: stream.task.done())
        header, *rows = map(json.loads, stream.text.splitlines())
        assert header["count"] == len(rows) == 40
        assert [cid for cid, _ in rows] == [*range(1, 41)]


async def test_an_entry_that_is_sent_later_is_the_present_one(filled: Served) -> None:
    filled.rebuild(tokens=None, limits=NO_ROOM)
    level = filled.levels["notes"]
    async with streaming(filled, "/v1/notes/entries?limit=30", stop_after=3) as stream:
        await stream.until(lambda: stream.blocked)
        await level.delete("k20")
        await level.put("k21", "newer")
        await level.put("k22a", "inserted")
        await level.delete("k29")
        stream.reading.set()
        await stream.until(lambda: stream.task.done())
        page = json.loads(stream.text)
    assert page["has_more"] is True
    assert [key for key, _ in page["entries"]] == [f"k{number:02}" for number in range(29) if number != 20]
    assert dict(page["entries"])["k21"] == "newer"


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "control"])
async def test_a_page_of_a_store_that_was_replaced_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    if not checked:
        monkeypatch.setattr("treehub_level.http.server.database._OpenDatabase.history", lambda _: [])
    for name in ("notes", "other", "backup"):
        with blocking.Level(tmp_path / name, mode=Level.SERVER) as level:
            for number in range(40):
                level.put(f"k{number:02}", f"{number:04}" * (8 << 10))
    hub = Hub(tmp_path, max_open=1)
    app = create_app(hub, limits=NO_ROOM)
    async with hub, StreamingRequest(app, "GET", "/v1/notes/changes?limit=1000", stop_after=3).open() as stream:
        await stream.until(lambda: stream.blocked)
        async with hub.use("other"):
            shutil.rmtree(tmp_path / "notes")
            (tmp_path / "backup").rename(tmp_path / "notes")
        stream.reading.set()
        await stream.until(lambda: stream.task.done())
        assert stream.sent[-1]["more_body"] is checked


async def test_a_page_goes_on_after_its_database_was_closed_to_make_room(tmp_path: Path) -> None:
    for name in ("notes", "other"):
        with blocking.Level(tmp_path / name, mode=Level.SERVER) as level:
            for number in range(40):
                level.put(f"k{number:02}", f"{number:04}" * (8 << 10))
    hub = Hub(tmp_path, max_open=1)
    app = create_app(hub, limits=NO_ROOM)
    async with hub, StreamingRequest(app, "GET", "/v1/notes/changes?limit=1000", stop_after=3).open() as stream:
        await stream.until(lambda: stream.blocked)
        async with hub.use("other"):
            pass
        stream.reading.set()
        await stream.until(lambda: stream.task.done())
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
    whole = await page_of(filled, "entries?limit=1000", {"accept-encoding": "identity"})
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
