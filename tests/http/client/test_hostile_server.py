"""A server that sends too much, or other data than was asked for, or that never comes to an end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from treehub_level import ProtocolError, TransportError
from treehub_level.http.client import body, pages, responses, verbs
from treehub_level.http.client.events import EventReader

from .fake import STREAM, FakeServer

Remote = Callable[..., Any]

# -------------------------------------------------------------------- other data than was asked for


@pytest.mark.parametrize(
    ("bounds", "keys"),
    [
        ({"gt": "b"}, ["b"]),
        ({"gte": "b"}, ["a"]),
        ({"lt": "b"}, ["b"]),
        ({"lte": "b"}, ["bb"]),
        ({"prefix": "b"}, ["a"]),
        ({"prefix": "b"}, ["b", "c"]),
        ({"prefix": "b", "lt": "bx"}, ["by"]),
        ({"gt": ""}, [""]),
        ({}, ["b", "a"]),
        ({}, ["a", "a"]),
        ({}, [""]),
        ({}, ["\U0001f600", "\uff5e"]),  # in the order of UTF-16
        ({"limit": 1}, ["a", "b"]),
    ],
)
@pytest.mark.parametrize("has_more", [False, True])
async def test_a_query_delivers_no_key_that_was_not_asked_for(
    remote: Remote, fake: FakeServer, bounds: Any, keys: list[str], has_more: bool
) -> None:
    fake.always = httpx.Response(200, json={"entries": [[key, 1] for key in keys], "has_more": has_more})
    with pytest.raises(ProtocolError, match=r"of the server|do not belong"):
        await remote().query(**bounds)
    with pytest.raises(ProtocolError, match=r"of the server|do not belong"):
        await anext(remote().scan(**bounds))
    assert len(fake.requests) == 2


async def test_a_document_that_names_a_member_twice_is_refused(remote: Remote, fake: FakeServer) -> None:
    content = b'{"entries":[["k",{"a":1,"a":2}]],"has_more":false}'
    fake.always = httpx.Response(200, content=content, headers={"content-type": "application/json"})
    with pytest.raises(ProtocolError, match="names the member 'a' twice"):
        await remote().query()


def test_separators_in_strings_are_no_values() -> None:
    text = ",:[{" * 2_000_000
    response = responses.ServerResponse(200, {"content-type": "application/json"}, b'["%b"]' % text.encode())
    assert responses.read_document(response, "http://localhost/v1/notes", None) == [text]


async def test_a_second_page_must_continue_the_first(remote: Remote, fake: FakeServer) -> None:
    fake.faults += [
        httpx.Response(200, json={"entries": [["b", 1], ["c", 2]], "has_more": True}),
        httpx.Response(200, json={"entries": [["c", 3]], "has_more": False}),
    ]
    scan = remote().scan(gte="b")
    assert [await anext(scan), await anext(scan)] == [("b", 1), ("c", 2)]
    with pytest.raises(ProtocolError, match="do not belong"):
        await anext(scan)
    assert [dict(request.url.params).get("gt") for request in fake.requests] == [None, "c"]


@pytest.mark.parametrize(
    "page",
    [
        {"cid": 5, "changes": [["a", 1]], "has_more": True},  # a change without a CID of its own
        {"cid": 6, "changes": [["a", 1], ["b", 1]], "has_more": False},
        {"cid": 5, "changes": [], "has_more": True},
        {"cid": 4, "changes": [], "has_more": False},
        {"cid": 2**53, "changes": [], "has_more": False},
        {"cid": 2000, "changes": [["a", 1]] * 101, "has_more": False},
    ],
)
async def test_a_page_of_changes_must_follow_the_requested_cid(remote: Remote, fake: FakeServer, page: Any) -> None:
    fake.always = httpx.Response(200, json=page)
    with pytest.raises(ProtocolError, match="do not belong to this request"):
        await remote().changes(5)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("info", [{}, {"cid": "7"}, {"cid": -1}, {"cid": 2**53}, {"cid": True}])
async def test_a_description_without_a_cid_is_a_protocol_error(remote: Remote, fake: FakeServer, info: Any) -> None:
    fake.always = httpx.Response(200, json=info)
    with pytest.raises(ProtocolError, match="has no CID"):
        await anext(remote().watch())


@pytest.mark.parametrize("cids", [[1, 1], [2, 1], [0]])
async def test_a_watch_delivers_each_change_once_and_in_order(
    remote: Remote, fake: FakeServer, cids: list[int]
) -> None:
    events = "".join(f'id: {cid}\ndata: ["k{number}"]\n\n' for number, cid in enumerate(cids))
    fake.always = httpx.Response(200, headers=STREAM, content=events)
    watching = remote().watch(since=0)
    with pytest.raises(ProtocolError, match="after the CID"):
        for _ in cids:
            await anext(watching)


# ------------------------------------------------------------------------------------ pages, no end


class Endless:
    """Answers with the same kind of page for ever."""

    def __init__(self, page_at: Callable[[int], Any]) -> None:
        self._pages = map(page_at, count(1))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        page = {"cid": 2**53 - 1} if request.url.path.endswith("/notes") else next(self._pages)
        return httpx.Response(200, json=page)


@pytest.fixture
def few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_SPARSE_PAGES", 20)


@pytest.mark.usefixtures("few_pages")
@pytest.mark.parametrize("limit", [None, 10**6])
async def test_entries_without_end_are_an_error(remote: Remote, fake: FakeServer, limit: int | None) -> None:
    fake.always = Endless(lambda number: {"entries": [[f"k{number:09}", number]], "has_more": True})
    with pytest.raises(ProtocolError, match="does not come to an end"):
        await remote().query(limit=limit)
    assert len(fake.requests) == 21


@pytest.mark.usefixtures("few_pages")
@pytest.mark.parametrize("limit", [None, 10**6])
@pytest.mark.parametrize("changes", [[], [["a", 1]]])
async def test_changes_without_end_are_an_error(
    remote: Remote, fake: FakeServer, limit: int | None, changes: list[Any]
) -> None:
    fake.always = Endless(lambda number: {"cid": number, "changes": changes, "has_more": True})
    with pytest.raises(ProtocolError, match="does not come to an end"):
        await remote().changes(0, limit=limit)
    assert len(fake.requests) <= 22


@pytest.mark.usefixtures("few_pages")
async def test_small_pages_of_large_values_come_to_their_end(remote: Remote, fake: FakeServer) -> None:
    value = "x" * pages.SPARSE_BYTES
    numbers = range(1, 31)
    fake.faults += [
        httpx.Response(200, json={"entries": [[f"k{number:02}", value]], "has_more": number < 30}) for number in numbers
    ]
    assert [key for key, _ in await remote().query()] == [f"k{number:02}" for number in numbers]
    fake.faults += [
        httpx.Response(200, json={"cid": number, "changes": [["k", value]], "has_more": number < 30})
        for number in numbers
        if number != 9
    ]
    fake.faults.insert(8, httpx.Response(200, json={"cid": 30}))
    fake.faults.insert(9, httpx.Response(200, json={"cid": 9, "changes": [["k", value]], "has_more": True}))
    assert len((await remote().changes(0, limit=None)).changes) == 30


async def test_changes_end_with_a_log_that_grows_faster_than_it_is_read(
    remote: Remote, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "_ENDLESS_PAGES", 2)
    fake.level.load((f"k{number}", number) for number in range(2500))

    def answer_and_grow(request: httpx.Request) -> httpx.Response:
        response = fake.answer(request)
        fake.level.load((f"k{number}", 0) for number in range(1500))
        return response

    fake.always = answer_and_grow
    page = await remote().changes(0, limit=None)
    assert len(page.changes) == page.cid >= 2500
    assert page.has_more


# ------------------------------------------------------------------------------------------- bodies


@pytest.mark.once
@pytest.mark.parametrize(
    "content", [b"{}\n" * (responses.MAX_LINES + 1), b"[" + b"1," * responses.MAX_HEADER_ITEMS + b"1]\n"]
)
def test_an_exchange_reply_with_too_many_rows_or_values_is_not_parsed(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="than a page can have"):
        responses.read_lines(responses.ServerResponse(200, {}, content))


@pytest.mark.parametrize("call", ["info", "put", "delete", "change", "get"])
async def test_a_response_has_the_size_of_its_route(remote: Remote, fake: FakeServer, call: str) -> None:
    one = remote()
    limit = body.MAX_VALUE_BYTES if call == "get" else body.MAX_DOCUMENT_BYTES
    fake.always = httpx.Response(200, content=b" " * (limit + 1), headers={"content-type": "application/json"})
    arguments: dict[str, tuple[Any, ...]] = {"put": ("a", 1), "delete": ("a",), "get": ("a",), "change": (0, [])}
    with pytest.raises(TransportError, match=f"more than {limit:,} bytes"):
        await getattr(one, call)(*arguments.get(call, ()))


async def test_a_refusal_is_small_on_every_route(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(400, content=b" " * 100_000, headers={"content-type": "application/json"})
    for call in (remote().query(), remote().changes(0), remote().exchange({})):
        with pytest.raises(TransportError, match=f"more than {body.MAX_DOCUMENT_BYTES:,} bytes"):
            await call


@pytest.mark.once
def test_an_event_is_read_in_linear_time() -> None:
    """Each byte of an event is looked at once, not once for each chunk that follows it."""
    copied = 0

    class Chunk(bytes):
        def split(self, separator: Any = None, maxsplit: Any = -1) -> list[bytes]:
            nonlocal copied
            copied += len(self)
            return super().split(separator, maxsplit)

    reader = EventReader()
    size = 4000
    for _ in range(size):
        assert reader.feed(Chunk(b"data: " + b"x" * 100)) == []
    assert copied == size * 106
    with pytest.raises(ProtocolError, match="more than"):
        for _ in range(100):
            reader.feed(b"x" * 100_000)


@pytest.fixture
def peak_of() -> Callable[..., dict[str, float]]:
    """Run ``bombs.py`` in a process of its own. Return the growth of memory for each call."""

    def run(*arguments: str) -> dict[str, float]:
        command = [sys.executable, str(Path(__file__).parent / "bombs.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return {name: float(growth) for name, growth in (line.split() for line in done.stdout.splitlines())}

    return run


@pytest.mark.once
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is measured with /proc")
def test_a_few_kilobytes_of_gzip_cost_a_client_little_memory(peak_of: Callable[..., dict[str, float]]) -> None:
    growth = peak_of()
    assert max(growth.values()) < 150, growth
    # Control: without the limits one of the same responses costs some 450 MiB.
    assert max(peak_of("--control").values()) > 300
