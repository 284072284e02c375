"""Reading and writing entries of a remote server, without a local store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from treehub_level import MISSING, InvalidKeyError, InvalidValueError, ProtocolError, TransportError

from .fake import FakeServer, json_error

Remote = Callable[..., Any]

#: Keys that must be percent-encoded in a URL.
KEYS = [
    "a/b",
    "a//b/",
    "a/../b",
    "..a",
    "?q=1&r",
    "#x",
    "100%",
    "%2e",
    "%2F",
    "a b+c",
    "\n",
    "\x00a",
    "ä",
    "🙂",
    "a;b=,",
]


@pytest.mark.parametrize("key", [key for key in KEYS if key >= '"'])
async def test_a_value_round_trips_under_any_key(remote: Remote, fake: FakeServer, key: str) -> None:
    one = remote()
    await one.put(key, {"under": [key, None, 1.5]})
    assert fake.level.query() == [(key, {"under": [key, None, 1.5]})]
    assert await one.get(key) == {"under": [key, None, 1.5]}
    assert await one.query() == [(key, {"under": [key, None, 1.5]})]
    await one.delete(key)
    assert fake.level.query() == []


async def test_a_missing_key_has_the_default(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("null", None)
    assert await remote().get("absent") is None
    assert await remote().get("absent", 1) == 1
    assert await remote().get("null", MISSING) is None
    await remote().delete("absent")


async def test_a_missing_database_is_not_a_missing_key(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(404, json={"code": "LEVEL_DATABASE_NOT_FOUND", "message": "no such database"})
    with pytest.raises(TransportError, match="no such database"):
        await remote().get("a", 1)


async def test_a_query_fetches_page_after_page(remote: Remote, fake: FakeServer) -> None:
    fake.level.load((f"k{n:04}", n) for n in range(2345))
    rows = fake.level.query()
    assert await remote().query() == rows
    assert len(fake.requests) == 3
    assert await remote().query(gte="k0010", lt="k2000", limit=1500) == rows[10:1510]
    assert await remote().query(prefix="k23", gt="k2301", lte="k2303") == rows[2302:2304]
    assert await remote().query(gt="z") == []


async def test_a_scan_fetches_only_the_pages_that_are_read(remote: Remote, fake: FakeServer) -> None:
    fake.level.load((f"k{n:04}", n) for n in range(2345))
    scan = remote().scan(limit=1200)
    assert [await anext(scan) for _ in range(3)] == fake.level.query(limit=3)
    await scan.aclose()
    assert len(fake.requests) == 1
    assert [row async for row in remote().scan(limit=0)] == []
    assert len(fake.requests) == 1


@pytest.mark.parametrize("key", ["", "!", "!a", " ", ".", "..", "\ud800", "k" * 1025, 1, None])
async def test_an_invalid_key_is_rejected_before_sending(remote: Remote, fake: FakeServer, key: Any) -> None:
    for call in (remote().get, remote().delete, lambda key: remote().put(key, 1)):
        with pytest.raises(TypeError if not isinstance(key, str) else InvalidKeyError):
            await call(key)
    assert fake.requests == []


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, 2**70, {1, 2}])
async def test_an_invalid_value_is_rejected_before_sending(remote: Remote, fake: FakeServer, value: Any) -> None:
    with pytest.raises(InvalidValueError):
        await remote().put("a", value)
    assert fake.requests == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"gt": "a", "gte": "a"}, ValueError),
        ({"lt": "a", "lte": "a"}, ValueError),
        ({"limit": -1}, ValueError),
        ({"limit": True}, TypeError),
        ({"prefix": 1}, TypeError),
        ({"gt": "\ud800"}, InvalidKeyError),
    ],
)
async def test_an_invalid_range_is_rejected_before_sending(
    remote: Remote, fake: FakeServer, options: Any, error: Any
) -> None:
    with pytest.raises(error):
        await remote().query(**options)
    assert fake.requests == []


async def test_reads_are_retried_and_writes_are_not_once_they_may_have_been_received(
    remote: Remote, fake: FakeServer
) -> None:
    fake.level.put("a", 1)
    fake.faults += [httpx.ReadTimeout("no response"), json_error(503)]
    assert await remote().get("a") == 1
    for write in (remote().put("a", 2), remote().delete("a")):
        fake.faults += [httpx.ReadTimeout("no response")]
        with pytest.raises(TransportError, match="could not be reached"):
            await write
    assert fake.level.query() == [("a", 1)]
    fake.faults += [httpx.ConnectError("refused")]
    await remote().put("a", 2)
    assert fake.level.get("a") == 2


@pytest.mark.parametrize(
    "page",
    [
        [],
        {"entries": [["a", 1]]},
        {"entries": [], "has_more": True},
        {"entries": [["a"]], "has_more": False},
        {"entries": [[1, 1]], "has_more": False},
        {"entries": [["a", 1], ["b", 1]], "has_more": True},
        {"entries": [["", 1]], "has_more": True},
    ],
)
async def test_an_invalid_page_is_a_protocol_error(remote: Remote, fake: FakeServer, page: Any) -> None:
    fake.always = httpx.Response(200, json=page)
    with pytest.raises(ProtocolError, match=r"of the server|the server's"):
        await remote().query(limit=1)


async def test_a_page_in_the_wrong_direction_is_refused(remote: Remote, fake: FakeServer) -> None:
    fake.level.load([("a", 1), ("b", 2)])
    assert await remote().query(reverse=True) == [("b", 2), ("a", 1)]
    fake.always = httpx.Response(200, json={"entries": [["a", 1], ["b", 2]], "has_more": False})
    with pytest.raises(ProtocolError, match="do not belong to this request"):
        await remote().query(reverse=True)
    fake.always = json_error(412)
    with pytest.raises(TransportError, match="412"):  # another code than that of a condition
        await remote().put("a", 1, if_absent=True)


async def test_a_conditional_write_sends_its_condition_and_is_not_repeated(remote: Remote, fake: FakeServer) -> None:
    await remote().put("a", 1, if_absent=True)
    await remote().put("a", 1, if_match='"x"')
    await remote().delete("a", if_match='"y"')
    sent = [(request.headers.get("if-none-match"), request.headers.get("if-match")) for request in fake.requests]
    assert sent == [("*", None), (None, '"x"'), (None, '"y"')]
    fake.always = httpx.ReadError("lost")
    with pytest.raises(TransportError):
        await remote().put("a", 1, if_match='"x"')
    assert len(fake.requests) == 4
