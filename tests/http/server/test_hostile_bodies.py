"""Hostile request bodies: too large, too deep, ambiguous, of wrong types.

A refused body must write nothing, and must never cause a status 500.
"""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replication.helpers import ask as request
from served import Served, StreamingRequest

from treehub_level import _core
from treehub_level.errors import InvalidValueError, ProtocolError
from treehub_level.http.server import bodies
from treehub_level.http.server.limits import Limits

JSON = {"content-type": "application/json"}
fewer_examples = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

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
    many = orjson.dumps(request(changes=[[f"k{number}", 1] for number in range(1001)]))
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
