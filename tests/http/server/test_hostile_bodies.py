"""Hostile request bodies: too large, too deep, ambiguous, of wrong types.

A refused body must write nothing, and must never cause a status 500.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import zstandard
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replication.helpers import ask as request
from served import Served, StreamingRequest, asyncio_timeout

from treehub_level import Level, _core
from treehub_level.errors import ForbiddenError, InvalidValueError, ProtocolError
from treehub_level.http import RemoteServer
from treehub_level.http.server import bodies
from treehub_level.http.server.body_memory import Turns
from treehub_level.http.server.limits import Limits

JSON = {"content-type": "application/json"}
fewer_examples = settings(max_examples=examples(75), suppress_health_check=[HealthCheck.function_scoped_fixture])

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([-1, 2**53, 2**64, 10**400, "", "\0", "!", "x" * 2000, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PUSH = request(changes=[["a", 1], ["b"]], epochs=[["e", 0]], hi=0)


async def refused(served: Served, method: str, path: str, body: bytes, **headers: str) -> httpx.Response:
    """Send a body, and assert a refusal in JSON that wrote nothing."""
    before = served.raw()
    response = await served.client.request(method, path, content=body, headers={**JSON, **headers})
    assert 400 <= response.status_code < 500, response.text
    assert response.json().keys() >= {"code", "message"}
    assert len(response.content) < 2000
    assert served.raw() == before
    return response


def mutated(message: dict[str, Any], place: int, value: Any) -> Any:
    """Return a copy of a message with one field or nested item, or the whole, replaced."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    copied = json.loads(json.dumps(message))
    walk(copied)
    if place >= len(places):
        return value
    node, key = places[place]
    node[key] = value
    return copied


@fewer_examples
@given(place=st.integers(0, 24), value=anything)
async def test_a_mutated_exchange_is_answered_or_refused(served: Served, place: int, value: Any) -> None:
    await answered_or_refused(served, "/v1/notes/exchange", mutated(PUSH, place, value))


@fewer_examples
@given(place=st.integers(0, 8), value=anything)
async def test_a_mutated_push_of_manual_sync_is_answered_or_refused(served: Served, place: int, value: Any) -> None:
    message = {"cid": served.levels["notes"].cid, "changes": [["a", 1], ["b"]]}
    await answered_or_refused(served, "/v1/notes/change", mutated(message, place, value))


async def answered_or_refused(served: Served, path: str, message: Any) -> None:
    before = served.raw()
    # The standard library also encodes NaN, large integers and lone surrogates; orjson does not.
    response = await served.client.post(path, content=json.dumps(message).encode(), headers=JSON)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert served.raw() == before
        assert response.json().keys() >= {"code", "message"} or response.json()["kind"] in ("reset", "forked")


async def test_an_unexpected_error_is_a_500_without_its_message(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise TypeError("'int' object is not subscriptable: secret")

    monkeypatch.setattr(bodies.BodyReader, "read_json", broken)
    response = await served.client.post("/v1/notes/exchange", json=PUSH)
    assert response.status_code == 500
    assert "secret" not in response.text


@fewer_examples
# URL parsers remove the path segments "." and "..".
@given(key=st.text(max_size=12).filter(lambda key: key not in (".", "..")), value=anything)
async def test_an_entry_of_any_key_and_value_is_stored_or_refused(served: Served, key: str, value: Any) -> None:
    before = served.raw()
    path = "/v1/notes/entries/" + quote(key.encode("utf-8", "surrogatepass"), safe="")
    response = await served.client.put(path, content=json.dumps(value).encode(), headers=JSON)
    assert response.status_code in (204, 400), response.text
    if response.status_code == 204:
        assert (await served.client.get(path)).json() == value
    else:
        assert served.raw() == before


@pytest.mark.parametrize("path", ["/v1/notes/exchange", "/v1/notes/change", "/v1/notes/entries/a"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"1 2",
        b"[" * 100_000,
        b"[" * 300 + b"]" * 300,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'{"a":1,"a":2}',
        b'[{"a":{"b":1,"b":1}}]',
        b'{"a":1,"\\u0061":2,"c":"\\u003a"}',
        b'{"a":1,"a":":","b":"\\u003A"}',
        b"18446744073709551616",
        b'{"a":[-9223372036854775809]}',
        b"[" + b"1" * 300 + b"]",
    ],
    ids=lambda body: repr(body[:24]) if isinstance(body, bytes) else body,
)
async def test_malformed_or_ambiguous_json_is_refused(served: Served, path: str, body: bytes) -> None:
    response = await refused(served, "PUT" if "entries" in path else "POST", path, body)
    assert response.json()["code"] == ProtocolError.code


@pytest.mark.parametrize("body", [b'{"a":1,"a":2}', b'{"a":1,"a":":","b":"\\u003A"}'])
async def test_a_parser_that_accepts_duplicate_members_is_detected(
    served: Served, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(_core, "json_value", lambda text: _core.JSONBytes(orjson.dumps(orjson.loads(text))))
    with pytest.raises(AssertionError):
        await refused(served, "PUT", "/v1/notes/entries/a", body)


async def test_a_push_of_an_integer_that_would_be_rounded_is_refused(served: Served) -> None:
    push = orjson.dumps(request(changes=[["a", "here"]])).replace(b'"here"', b"18446744073709551616")
    response = await refused(served, "POST", "/v1/notes/exchange", push)
    assert "an int lies between -2**63 and 2**64 - 1" in response.json()["message"]


@pytest.mark.parametrize("value", ["18446744073709551615", "-9223372036854775808", "0.1234567890123456789", '"%s"'])
async def test_an_integer_of_64_bits_is_stored_exactly(served: Served, value: str) -> None:
    value = value.replace("%s", "1" * 40)  # a string of digits, not a number
    response = await served.client.put("/v1/notes/entries/a", content=value, headers=JSON)
    assert response.status_code == 204
    assert (await served.client.get("/v1/notes/entries/a")).json() == json.loads(value)


@pytest.mark.parametrize("value", ['{"a":1,"b":{"a":":::"}}', '[":",":"]', '{"\\u003a":":"}', '{":":{"\\u003a":1}}'])
async def test_json_without_duplicate_members_is_accepted(served: Served, value: str) -> None:
    response = await served.client.put("/v1/notes/entries/a", content=value, headers=JSON)
    assert response.status_code == 204
    assert (await served.client.get("/v1/notes/entries/a")).json() == json.loads(value)


async def test_a_value_nested_too_deep_for_a_store_is_refused(served: Served) -> None:
    deep = b"[" * 65 + b"]" * 65
    response = await refused(served, "PUT", "/v1/notes/entries/a", deep)
    assert response.json()["code"] == InvalidValueError.code
    push = orjson.dumps(request(changes=[["a", "here"]])).replace(b'"here"', deep)
    assert (await refused(served, "POST", "/v1/notes/exchange", push)).json()["code"] == ProtocolError.code


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_of_another_content_type_is_refused(served: Served, kind: str) -> None:
    for method, path in (("POST", "/v1/notes/exchange"), ("POST", "/v1/notes/change"), ("PUT", "/v1/notes/entries/a")):
        response = await refused(served, method, path, orjson.dumps(PUSH), **{"content-type": kind})
        assert (response.status_code, response.json()["code"]) == (415, "LEVEL_CONTENT_TYPE")


async def test_a_content_type_with_a_charset_is_accepted(served: Served) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await served.client.put("/v1/notes/entries/a", content=b"1", headers=headers)).status_code == 204


# ------------------------------------------------------------------------------------------- size


async def test_a_chunked_body_over_the_limit_is_refused(served: Served) -> None:
    served.rebuild(limits=Limits(body_bytes=1000))
    sent = 0

    async def pieces() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 100
            yield b"x" * 100

    before = served.raw()
    response = await served.client.put("/v1/notes/entries/a", content=pieces(), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "LEVEL_TOO_LARGE")
    assert sent <= 1200, "the server read on after the limit"
    assert served.raw() == before


async def test_a_missing_body_limit_is_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild = served.rebuild
    monkeypatch.setattr(served, "rebuild", lambda **_: rebuild())
    with pytest.raises(AssertionError):
        await test_a_chunked_body_over_the_limit_is_refused(served)


async def test_a_content_length_over_the_limit_is_refused(served: Served) -> None:
    response = await refused(served, "PUT", "/v1/notes/entries/a", b"1", **{"content-length": str((16 << 20) + 1)})
    assert response.status_code == 413


async def test_a_large_push_within_the_limits_is_accepted(served: Served) -> None:
    changes = [[f"k{number}", "x" * (2 << 20)] for number in range(3)]
    assert (await served.client.post("/v1/notes/exchange", json=request(changes=changes))).status_code == 200


async def test_a_push_over_the_protocols_limits_is_refused(served: Served) -> None:
    many = orjson.dumps(request(changes=[[f"k{number}", 1] for number in range(16_385)]))
    large = orjson.dumps(request(changes=[[f"k{number}", "x" * (3 << 20)] for number in range(3)]))
    for body in (many, large):
        await refused(served, "POST", "/v1/notes/exchange", body)
    for message in (many, large):
        body = orjson.dumps({"cid": 0, "changes": orjson.loads(message)["changes"]})
        await refused(served, "POST", "/v1/notes/change", body)


# ------------------------------------------------------------------------------------ compression


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(data)


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "gzip, gzip", "x"])
async def test_a_compressed_body_is_refused_by_default(served: Served, coding: str) -> None:
    body = gzip.compress(b"1") if "gzip" in coding else zstd(b"1")
    response = await refused(served, "PUT", "/v1/notes/entries/a", body, **{"content-encoding": coding})
    assert (response.status_code, response.json()["code"]) == (415, "LEVEL_CONTENT_ENCODING")


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("zstd", zstd)])
async def test_a_compressed_body_is_decoded_if_enabled(served: Served, coding: str, pack: Any) -> None:
    served.rebuild(compressed_requests=True)
    value = {"text": "x" * 100_000}
    headers = {**JSON, "content-encoding": coding}
    response = await served.client.put("/v1/notes/entries/a", content=pack(orjson.dumps(value)), headers=headers)
    assert response.status_code == 204
    assert (await served.client.get("/v1/notes/entries/a")).json() == value


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("zstd", zstd)])
@pytest.mark.parametrize(
    "damage", [lambda packed: packed[:-3], lambda packed: packed + b"more", lambda _: b"junk", lambda _: b""]
)
async def test_a_damaged_compressed_body_is_refused(served: Served, coding: str, pack: Any, damage: Any) -> None:
    served.rebuild(compressed_requests=True)
    body = damage(pack(b'"' + b"x" * 1000 + b'"'))
    await refused(served, "PUT", "/v1/notes/entries/a", body, **{"content-encoding": coding})


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("zstd", zstd)])
async def test_a_decompression_bomb_is_refused_after_the_limit(
    served: Served, monkeypatch: pytest.MonkeyPatch, coding: str, pack: Any
) -> None:
    served.rebuild(compressed_requests=True)
    sizes: list[int] = []

    def measured(data: bytes, limit: int) -> bytes:
        plain = decode(data, limit)
        sizes.append(len(plain))
        return plain

    decode = bodies.CONTENT_DECODERS[coding]
    monkeypatch.setitem(bodies.CONTENT_DECODERS, coding, measured)
    bomb = pack(b"[" + b" " * (256 << 20) + b"]")
    assert len(bomb) < 1 << 20
    response = await refused(served, "PUT", "/v1/notes/entries/a", bomb, **{"content-encoding": coding})
    assert (response.status_code, response.json()["code"]) == (413, "LEVEL_TOO_LARGE")
    assert sizes[0] <= 21 << 20, "more was decoded than the limit and one step"


async def test_an_unbounded_decoder_is_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bodies.CONTENT_DECODERS, "gzip", lambda data, _: gzip.decompress(data))
    with pytest.raises(AssertionError, match="more was decoded"):
        await test_a_decompression_bomb_is_refused_after_the_limit(served, monkeypatch, "gzip", gzip.compress)


# ------------------------------------------------------------------------------------------- time


async def test_a_slow_body_is_refused(served: Served) -> None:
    served.rebuild(tokens=None, limits=Limits(body_seconds=0.1))
    async with StreamingRequest(
        served.app, "PUT", "/v1/notes/entries/a", headers=JSON, body=[b'"x', b"y"]
    ).open() as stream:
        await stream.until(lambda: stream.task.done())
    assert (stream.status, json.loads(stream.text)["code"]) == (408, "LEVEL_TIMEOUT")


async def test_a_disconnect_during_a_body_releases_its_memory(served: Served) -> None:
    served.rebuild(tokens=None)
    before = served.raw()
    async with StreamingRequest(served.app, "PUT", "/v1/notes/entries/a", headers=JSON, body=[b'"x']).open() as stream:
        pass
    assert stream.sent == []
    assert served.raw() == before
    assert served.app.state.dispatcher.body_reader.memory.buffered_bytes == 0


async def stalled(served: Served, limits: Limits, *chunks: bytes) -> StreamingRequest:
    """Send the beginning of a body, and wait until the server has given it up."""
    served.rebuild(tokens=None, limits=limits)
    path = "/v1/notes/entries/a"
    async with StreamingRequest(served.app, "PUT", path, headers=JSON, body=[*chunks]).open() as stream:
        await stream.until(lambda: stream.task.done())
    assert served.app.state.dispatcher.body_reader.memory.buffered_bytes == 0
    return stream


async def test_a_body_that_stalls_is_refused_after_the_idle_limit(served: Served) -> None:
    stream = await stalled(served, Limits(body_idle_seconds=0.1, body_seconds=3600), b'"x')
    assert (stream.status, json.loads(stream.text)["code"]) == (408, "LEVEL_TIMEOUT")


async def test_bytes_that_arrive_fast_buy_no_time_to_stall(served: Served) -> None:
    limits = Limits(body_idle_seconds=3600, body_seconds=0.1, body_rate=1)
    stream = await stalled(served, limits, b'"', b"x" * 100_000)  # at this rate, a day's worth of bytes
    assert (stream.status, json.loads(stream.text)["code"]) == (408, "LEVEL_TIMEOUT")


async def test_a_body_at_the_least_rate_is_read_to_its_end(served: Served) -> None:
    served.rebuild(limits=Limits(body_idle_seconds=1, body_seconds=1, body_rate=10))

    async def pieces() -> Any:
        yield b'"'
        for _ in range(8):
            await asyncio.sleep(0.2)
            yield b"xxxx"
        yield b'"'

    assert (await served.client.put("/v1/notes/entries/a", content=pieces(), headers=JSON)).status_code == 204


# ------------------------------------------------------------------------------------------ rights


class UnreadBody:
    """A request body of 64 KiB chunks that counts the bytes which the server has read."""

    def __init__(self, chunks: int = 64) -> None:
        self.read = 0
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._chunks):
            self.read += 64 << 10
            yield b"x" * (64 << 10)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v1/notes/entries/a", 403),
        ("POST", "/v1/notes/change", 403),
        ("PUT", "/v1/absent/entries/a", 404),
        ("PUT", "/v1/other/entries/a", 404),
    ],
)
async def test_rights_are_checked_before_a_body_is_read(served: Served, method: str, path: str, status: int) -> None:
    reader = await served.client_with(served.tokens.add(databases=["notes"], write=False))
    body = UnreadBody()
    response = await reader.request(method, path, content=body, headers=JSON)
    assert (response.status_code, body.read) == (status, 0)


@pytest.mark.parametrize(("key", "status"), [("b", 403), ("!a", 400)])
async def test_a_key_that_may_not_be_written_is_refused_before_the_body_is_read(
    served: Served, key: str, status: int
) -> None:
    writer = await served.client_with(served.tokens.add(databases=["notes"], write=True, prefix="a"))
    body = UnreadBody()
    response = await writer.put(f"/v1/notes/entries/{key}", content=body, headers=JSON)
    assert (response.status_code, body.read) == (status, 0)


@pytest.mark.parametrize("length", [None, 4 << 20])
async def test_a_body_of_a_token_that_may_only_read_is_small(served: Served, length: int | None) -> None:
    reader = await served.client_with(served.tokens.add(databases=["notes"], write=False))
    body = UnreadBody()
    headers = {**JSON, **({} if length is None else {"content-length": str(length)})}
    response = await reader.post("/v1/notes/exchange", content=body, headers=headers)
    # 403, as for a small push: status 413 would make the client push again, in smaller parts.
    assert (response.status_code, response.json()["code"]) == (403, "LEVEL_FORBIDDEN")
    assert body.read == (128 << 10 if length is None else 0)
    pull = await reader.post("/v1/notes/exchange", json=request(epochs=[[f"e{n}", n] for n in range(32)], hi=31))
    assert pull.status_code in (200, 409)


async def test_a_large_push_with_a_token_that_may_only_read_keeps_its_changes(served: Served) -> None:
    token = served.tokens.add(databases=["notes"], write=False)
    async with Level("reader", backend="memory", mode=Level.CLIENT) as client:
        await client.put("large", "x" * 100_000)
        transport = httpx.ASGITransport(served.app)
        async with RemoteServer("http://localhost/v1/notes", token=token, transport=transport) as server:
            with pytest.raises(ForbiddenError) as refusal:
                await client.sync(server)
        assert refusal.value.keys == ["large"]
        assert await client.get("large") == "x" * 100_000


# ----------------------------------------------------------------------------------- many values


def explosive(size: int, space: bytes = b"") -> bytes:
    """Return an array of empty arrays, which takes 40 times its size once it is parsed."""
    return b"[" + space + b"[]," * (size // 3 - 1) + b"[]]"


@pytest.mark.parametrize("space", [b"", b" "])
async def test_a_value_of_any_number_of_containers_is_stored(served: Served, space: bytes) -> None:
    value = explosive(1 << 20)
    await served.levels["notes"].put("local", orjson.loads(value))
    sent = explosive(1 << 20, space)
    assert (await served.client.put("/v1/notes/entries/put", content=sent, headers=JSON)).status_code == 204
    push = orjson.dumps(request(cid=2, hi=2, changes=[["pushed", "here"]])).replace(b'"here"', sent)
    response = await served.client.post("/v1/notes/exchange", content=push, headers=JSON)
    assert response.status_code in (200, 409), response.text
    change = orjson.dumps({"cid": served.levels["notes"].cid, "changes": [["changed", 1]]}).replace(
        b",1]", b",%b]" % sent
    )
    assert (await served.client.post("/v1/notes/change", content=change, headers=JSON)).status_code == 200
    stored = served.raw()
    assert stored[b"local"] == stored[b"put"] == stored[b"changed"] == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"junk":%b}' % explosive(1 << 20),
        explosive(1 << 20),
        b'{"changes":%b}' % explosive(1 << 20),
        b'{"changes":[],"changes":%b}' % explosive(1 << 20),
        b'{"ch\\u0061nges":%b}' % explosive(1 << 20),
        b"{%b}" % b",".join(b'"%d":1' % number for number in range(50_000)),
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("path", ["/v1/notes/exchange", "/v1/notes/change"])
async def test_a_message_of_many_values_beside_its_changes_is_refused_unparsed(
    served: Served, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    loads = orjson.loads
    monkeypatch.setattr(orjson, "loads", lambda text: loads(text) if len(text) < 10_000 else pytest.fail("parsed"))
    response = await served.client.post(path, content=body, headers=JSON)
    assert (response.status_code, b"LEVEL_PROTOCOL" in response.content) == (400, True)
    assert b"30,000 values" in response.content


async def test_a_value_beyond_the_limit_is_refused_unparsed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "MAX_VALUE_BYTES", 1000)
    monkeypatch.setattr(_core, "json_value", lambda text: pytest.fail("the value was parsed"))
    await refused(served, "PUT", "/v1/notes/entries/a", explosive(10_000))


@pytest.mark.parametrize("name", [b'"changes"', b'"changes" \n', b'"ch\\u0061nges"'])
async def test_changes_in_any_form_are_those_that_were_sent(served: Served, name: bytes) -> None:
    body = orjson.dumps(request(changes=[["é", {"a": [1, "\\"]}], ["b"]]), option=orjson.OPT_INDENT_2)
    response = await served.client.post("/v1/notes/exchange", content=body.replace(b'"changes"', name), headers=JSON)
    assert response.status_code == 200, response.text
    assert await served.levels["notes"].get("é") == {"a": [1, "\\"]}


async def test_the_bytes_of_a_decompressed_body_are_counted(served: Served) -> None:
    served.rebuild(compressed_requests=True, limits=Limits(held_bytes=400_000))
    headers = {**JSON, "content-encoding": "gzip"}
    for size, status in ((200_000, 204), (400_000, 503)):
        body = gzip.compress(b'"' + b"x" * size + b'"')
        response = await served.client.put("/v1/notes/entries/a", content=body, headers=headers)
        assert (response.status_code, len(body) < 1000) == (status, True)
    assert served.app.state.dispatcher.body_reader.memory.buffered_bytes == 0


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/notes/entries/a"), ("POST", "/v1/notes/exchange")])
async def test_a_refused_body_is_not_kept_until_a_garbage_collection(served: Served, method: str, path: str) -> None:
    async def refuse() -> None:
        response = await served.client.request(method, path, content=UnreadBody(chunks=16), headers=JSON)
        assert response.status_code == 400

    await refuse()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(6):
            await refuse()
        # An idle thread may hold the last one.
        assert tracemalloc.get_traced_memory()[0] < 3 << 20, "bodies of 1 MiB are still in memory"
    finally:
        tracemalloc.stop()
        gc.enable()


async def test_large_bodies_are_parsed_one_at_a_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    active, most = 0, 0

    def parse(body: bytes, parse: Any) -> Any:
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.01)
        active -= 1
        return original(body, parse)

    original = bodies.parse_body
    monkeypatch.setattr(bodies, "parse_body", parse)
    value = "x" * 100_000
    puts = [served.client.put(f"/v1/notes/entries/{number}", json=value) for number in range(8)]
    assert {response.status_code for response in await asyncio.gather(*puts)} == {204}
    assert most == 1


async def test_the_turns_of_one_token_delay_another_by_one(served: Served) -> None:
    turns, order = Turns(), list[str]()

    async def body(token: str) -> None:
        async with turns.take(token):
            order.append(token)
            await asyncio.sleep(0)

    await asyncio.gather(*(body("many") for _ in range(20)), body("one"))
    assert order.index("one") <= 2


# --------------------------------------------------------------------------------- shared memory


async def test_the_bodies_of_one_token_leave_room_for_others(served: Served) -> None:
    served.rebuild(limits=Limits(token_held_bytes=100))
    token = served.tokens.add(databases=["notes"], write=True)
    headers = {**JSON, "authorization": f"Bearer {token}"}
    path, value = "/v1/notes/entries/a", "y" * 40
    async with StreamingRequest(served.app, "PUT", path, headers=headers, body=[b'"' + b"x" * 80]).open():
        async with asyncio_timeout(30):
            while not served.app.state.dispatcher.body_reader.memory.buffered_bytes:  # noqa: ASYNC110
                await asyncio.sleep(0)
        same = await served.client_with(token)
        response = await same.put(path, json=value)
        assert (response.status_code, response.json()["code"]) == (429, "LEVEL_BUSY")
        assert (await served.client.put(path, json=value)).status_code == 204
    assert not served.app.state.dispatcher.body_reader.memory.by_token
    assert (await same.put(path, json=value)).status_code == 204


async def test_large_bodies_leave_room_for_small_ones(served: Served) -> None:
    served.rebuild(tokens=None, limits=Limits(held_bytes=400_000))
    path = "/v1/notes/entries/a"
    async with StreamingRequest(served.app, "PUT", path, headers=JSON, body=[b'"' + b"x" * 280_000]).open():
        async with asyncio_timeout(30):
            while not served.app.state.dispatcher.body_reader.memory.buffered_bytes:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert (await served.client.put(path, json="y" * 80_000)).status_code == 503
        assert (await served.client.put(path, json="y" * 60_000)).status_code == 204


async def test_a_long_poll_keeps_nothing_of_its_body(served: Served) -> None:
    body = orjson.dumps({**request(), "junk": "x" * 100_000})
    poll = asyncio.ensure_future(served.client.post("/v1/notes/exchange?wait=60", content=body, headers=JSON))
    async with asyncio_timeout(30):
        await served.wait_for_long_poll()
    assert served.app.state.dispatcher.body_reader.memory.buffered_bytes == 0
    await served.levels["notes"].put("a", 1)
    assert (await poll).status_code == 200
