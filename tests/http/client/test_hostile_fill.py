"""A server that sends other live entries than were asked for, or too many, or has no end of them.

A first pull takes the live entries of a range instead of the log that led to them.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from replication.helpers import ask

from treehub_level import ProtocolError, Refused, blocking
from treehub_level.http.client import body
from treehub_level.replication import client as replication_client
from treehub_level.replication import progress

from .fake import FakeServer

Remote = Callable[..., Any]
Message = dict[str, Any]


@pytest.fixture
def connect(remote: Remote, api: str) -> Remote:
    """A factory of `RemoteServer` objects of this API, without an adapter."""
    return lambda **options: remote(**options) if api == "async" else remote(**options).remote


@pytest.fixture(params=["JSON", "NDJSON"])
def encode(request: pytest.FixtureRequest) -> Callable[[Message], httpx.Response]:
    """Encodes a reply as one document, or as lines."""

    def as_document(reply: Message) -> httpx.Response:
        return httpx.Response(200, json=reply)

    def as_lines(reply: Message) -> httpx.Response:
        arrays = [reply.get(name, []) for name in ("page", "values", "entries")]
        header = {name: value for name, value in reply.items() if name not in ("page", "values", "entries")}
        content = b"".join(orjson.dumps(row) + b"\n" for row in (header, *(row for rows in arrays for row in rows)))
        return httpx.Response(200, content=content, headers={"content-type": "application/x-ndjson"})

    return as_document if request.param == "JSON" else as_lines


def part(*entries: list[Any], prefix: str = "", after: str = "", to: str = "c", end: bool = True) -> Message:
    """Return the fields of a part of a range."""
    fill = {"prefix": prefix, "after": after, "to": to, "end": end, "count": len(entries)}
    return {"fill": fill, "entries": [*entries]}


#: Parts of the range of all keys, after none, each wrong in one way.
WRONG_PARTS: dict[str, Message] = {
    "a key after the part": part(["a", 1], ["d", 2]),
    "a key of another range": part(["a", 1], prefix="c"),
    "keys that fall": part(["b", 1], ["a", 2]),
    "a key twice": part(["a", 1], ["a", 2]),
    "a delete": part(["a", 1], ["b"]),
    "metadata": part(["!cid", 1]),
    "another beginning": part(["b", 1], after="a"),
    "another range": part(["a", 1], prefix="a", to="a"),
    "nothing, and more": part(to="", end=False),
    "more than was asked for": part(*([f"a{number}", number] for number in range(6))),
    "fewer than announced": {**part(["a", 1], ["b", 2]), "entries": [["a", 1]]},
    "more than announced": {**part(["a", 1]), "entries": [["a", 1], ["b", 2]]},
    "entries of no range": {"fill": None, "entries": [["a", 1]]},
    "values that were not asked for": {"value_count": 1, "values": [["a", 1]]},
    "fewer values than announced": {"value_count": 2, "values": [["a", 1]]},
    "before the end": {**part(["a", 1]), "more": True, "cid": 1, "head": 2},
}


@pytest.mark.parametrize("fault", WRONG_PARTS)
async def test_a_wrong_part_of_a_range_is_refused_and_nothing_is_written(
    client: Any,
    fake: FakeServer,
    connect: Remote,
    encode: Callable[[Message], httpx.Response],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replication_client, "PAGE_CHANGES", 5)
    fake.level.put("c", 3)
    fake.always = lambda request: encode({**orjson.loads(fake.answer(request).content), **WRONG_PARTS[fault]})
    with pytest.raises(ProtocolError):
        await client.sync(connect())
    assert (await client.query(), client.cid) == ([], 0)
    fake.always = None
    assert (await client.sync(connect())).filled == 1
    assert await client.query() == [("c", 3)]


def empty_page(request: Message) -> Message:
    """Return the reply of a server that has nothing."""
    cid = request["cid"]
    return {
        "protocol": 2, "kind": "page", "server": "5" * 32, "nonce": request["nonce"], "base": cid, "cid": cid,
        "head": cid, "more": False, "epochs": [], "ack": None, "rejected": [], "count": 0, "page": [],
    }  # fmt: skip


def endless_part(request: Message) -> Message:
    """Return the next part of a range without end: one entry more each time."""
    after = request["fill"][1]
    key = f"k{int(after[1:] or 0) + 1:09}"
    return part([key, 1], after=after, to=key, end=False)


def endless_part_of_nothing(request: Message) -> Message:
    """Return a part that has no entries, and moves on."""
    after = request["fill"][1]
    return part(after=after, to=f"k{int(after[1:] or 0) + 1:09}", end=False)


def changes_for_ever(request: Message) -> Message:
    """Return a change, each time another one, and never a part of the range."""
    cid = request["cid"] + 1
    return {"cid": cid, "head": cid, "page": [[cid, ["k", cid]]], "count": 1}


def no_part(_: Message) -> Message:
    """Return no field of a requested part."""
    return {}


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (endless_part, 21),
        (endless_part_of_nothing, 21),
        (changes_for_ever, 21),
        (no_part, progress.MAX_FRUITLESS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_fill_without_an_end_is_an_error_and_what_came_stays(
    client: Any,
    fake: FakeServer,
    connect: Remote,
    encode: Callable[[Message], httpx.Response],
    answer: Callable[[Message], Message],
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "MAX_SHORT_PAGES", 20)
    await client.put("mine", 1)

    def respond(request: httpx.Request) -> httpx.Response:
        message = orjson.loads(request.content)
        return encode({**empty_page(message), **answer(message)})

    fake.always = respond
    with pytest.raises(ProtocolError, match=r"short pages|no part of a range"):
        await client.sync(connect())
    assert len(fake.requests) <= most
    assert await client.get("mine") == 1
    assert await client.pending() == 1
    assert await client.count(prefix="k0") == (len(fake.requests) if answer is endless_part else 0)


@pytest.mark.once
async def test_entries_that_are_larger_than_a_page_are_refused(
    client: Any, fake: FakeServer, connect: Remote, encode: Callable[[Message], httpx.Response]
) -> None:
    """A few kilobytes of gzip decode to them."""

    def respond(request: httpx.Request) -> httpx.Response:
        response = encode(
            {**empty_page(orjson.loads(request.content)), **part(*([key, "x" * (3 << 20)] for key in "abc"))}
        )
        headers = {"content-type": response.headers["content-type"], "content-encoding": "gzip"}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(gzip.compress(response.content, 1)))

    fake.always = respond
    with pytest.raises(ProtocolError, match=f"at most {8 << 20}"):
        await client.sync(connect())
    assert (await client.query(), client.cid) == ([], 0)


@pytest.mark.once
def test_the_largest_reply_to_a_refused_push_is_within_the_bound_of_a_body() -> None:
    """Each key is named as rejected, as refused, and beside its present value."""

    def refuse(*_: Any) -> None:
        raise Refused("no")

    keys = [f"{number:04}".ljust(1024, "k") for number in range(8150)]
    request = ask(push="1" * 32, changes=[[key, 1] for key in keys])
    with blocking.Level("strict", backend="memory", mode=blocking.Level.SERVER, check=refuse) as strict:
        reply = strict.exchange(request)
    assert (reply["rejected"], reply["refused"]) == (keys, [["no", keys]])
    assert len(reply["values"]) > 7000
    size = len(orjson.dumps(reply))
    assert size > 3 * len(orjson.dumps(reply["values"])) > 20 << 20
    assert size <= body.MAX_PAGE_BYTES
