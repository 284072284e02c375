"""Pages whose values take much memory are decoded in parts, and nothing of them is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from async_adapter import AsyncAdapter

from treehub_level import ProtocolError, blocking
from treehub_level.http.client import body, rows
from treehub_level.http.client.responses import parse_changes
from treehub_level.replication.wire import Received

from .fake import JSON, FakeServer

Remote = Callable[..., Any]

VALUE: Any = [[1, 2], {"a": [3]}, '"[,{:']


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page have 50 values: some five of the rows below."""
    monkeypatch.setattr(rows, "MAX_PAGE_NODES", 50)


@pytest.fixture
def level(server: blocking.Level) -> blocking.Level:
    """A server with 40 entries, whose log was compacted."""
    server.load((f"k{n:02}", [n, VALUE]) for n in range(40))
    server.put("k07", "again")
    server.delete("k08")
    return server


@pytest.mark.parametrize(
    "bounds", [{}, {"reverse": True}, {"gt": "k05", "lte": "k30"}, {"limit": 17}, {"prefix": "k1"}]
)
async def test_a_large_range_is_read_in_parts(
    remote: Remote, fake: FakeServer, level: blocking.Level, bounds: dict[str, Any]
) -> None:
    assert await remote().query(**bounds) == level.query(**bounds)
    assert len(fake.requests) > 1


@pytest.mark.parametrize("limit", [None, 1, 7, 30, 42, 100])
async def test_large_changes_are_read_in_parts(
    remote: Remote, fake: FakeServer, level: blocking.Level, limit: int | None
) -> None:
    found, expected = await remote().changes(0, limit), level.changes(0, limit)
    assert (found.cid, found.changes, found.has_more) == (expected.cid, expected.changes, expected.has_more)
    assert len(fake.requests) > 5 or limit in (1, 7)


async def test_a_large_reply_to_an_exchange_keeps_its_rows_encoded(
    remote: Remote, fake: FakeServer, level: blocking.Level, client: Any
) -> None:
    one = remote()
    await client.sync(one.remote if isinstance(client, AsyncAdapter) else one)
    assert await client.query() == level.query()


def test_a_page_of_lines_is_cut_at_the_cid_of_a_change() -> None:
    lines = b"".join(b'[%d,["k%d",[[1,2],[3,4]]]]\n' % (cid, cid) for cid in range(3, 60, 3))
    commits = b"[[1,40,null,null,5,[]]]"
    text = b'{"cid":60,"has_more":false,"commits":%b,"count":19}\n' % commits + lines
    cids: list[int] = []
    since = pages = 0
    while True:
        page = parse_changes(Received(text, in_lines=True), since, 1000)
        pages, cids = pages + 1, [*cids, *(change.cid or 0 for change in page.changes)]
        assert [change.at for change in page.changes][:1] == [page.changes[0].at]
        if not page.has_more:
            break
        since = page.cid
        rest = lines[lines.index(b"[%d," % (since + 3)) :]
        head = b'{"cid":60,"has_more":false,"commits":[],"count":%d}\n' % rest.count(b"\n")
        text = head + rest
    assert cids == [*range(3, 60, 3)]
    assert pages > 3
    assert page.cid == 60


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"cid":9,"has_more":false,"changes":[' + b'["k",[[1,2],[3,4]]],' * 8 + b'["k"]]}', "fewer changes"),
        (b'{"cid":9,"has_more":false,"changes":[7 7,' + b'["k",[[1,2],[3,4]]],' * 8 + b"[]]}", "not JSON"),
        (b'{"cid":9,"has_more":false,"changes":[],"changes":[' + b"[[]]," * 30 + b"[[]]]}", "no page"),
        (b'{"cid":9,"cid":9,"has_more":false,"changes":[' + b"[[]]," * 30 + b"[[]]]}", "cid"),
        (b"[" + b"[]," * 100 + b"1]", "no page"),
        (
            b'{"cid":1,"has_more":false,"changes":[["k","'
            + b"x" * body.MAX_VALUE_BYTES
            + b'",['
            + b"1," * 60
            + b"1]]]}",
            "more",
        ),
    ],
    ids=range(6),
)
async def test_a_large_page_that_is_malformed_is_refused(
    remote: Remote, fake: FakeServer, content: bytes, fault: str
) -> None:
    fake.always = httpx.Response(200, content=content, headers=JSON)
    with pytest.raises(ProtocolError, match=fault):
        await remote().changes(0)
