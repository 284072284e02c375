"""Messages as bytes: every encoding has the same contents, and the same faults are refused."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from example_counts import examples
from golden.golden_messages import (
    ADDRESS,
    FOLDER,
    MESSAGES,
    REPLIES,
    REQUEST,
    reply_to_json,
    reply_to_ndjson,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from treehub_level import _core
from treehub_level._core_py import json as json_py
from treehub_level.errors import ProtocolError
from treehub_level.replication.messages import LogPage, Reply, Request
from treehub_level.replication.wire import Received, decode_reply, request_to_json

from .helpers import a_client, a_server


def encoder() -> _core.Encoder:
    return _core.Encoder(_core.KeySpace("!"))


#: The fields whose items are lines of their own in NDJSON.
ROW_FIELDS = ("page", "values", "entries")


def to_lines(message: dict[str, Any], dumps: Any = orjson.dumps) -> bytes:
    """Return a message as NDJSON: the arrays of rows follow the other fields."""
    header = {name: field for name, field in message.items() if name not in ROW_FIELDS}
    rows = [row for name in ROW_FIELDS for row in message.get(name, [])]
    return b"".join(dumps(document) + b"\n" for document in [header, *rows])


def outcome(message: object) -> Any:
    """Return the reply as a client decodes it; ``None`` if the client refuses it."""
    try:
        return decode_reply(message, encoder())
    except ProtocolError:
        return None


# ------------------------------------------------------------------------------------- encoding


def test_a_request_has_the_same_contents_in_bytes_and_as_an_object() -> None:
    assert orjson.loads(request_to_json(REQUEST)) == REQUEST.to_dict()
    assert Request.from_dict(orjson.loads(request_to_json(REQUEST))) == REQUEST


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_reply_has_the_same_contents_in_bytes_and_as_an_object(reply: Reply) -> None:
    assert orjson.loads(reply_to_json(reply)) == reply.to_dict()
    assert reply_to_ndjson(reply) == to_lines(reply.to_dict())


def test_a_record_of_the_npm_package_with_line_breaks_takes_one_line() -> None:
    page = LogPage(*ADDRESS, 3, 3, False, [], None, [], [], [(3, b'[\r\n"a",\n1]')])
    assert reply_to_ndjson(page).splitlines()[1:] == [b'[3,["a",1]]']


@pytest.mark.parametrize("name", MESSAGES)
def test_the_bytes_on_the_wire_are_the_golden_ones(name: str) -> None:
    assert MESSAGES[name] == (FOLDER / name).read_bytes()


# ------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_reply_is_decoded_alike_from_every_encoding(reply: Reply) -> None:
    expected = decode_reply(reply.to_dict(), encoder())
    for message in (
        reply,
        Received(reply_to_json(reply), in_lines=False),
        Received(reply_to_ndjson(reply), in_lines=True),
        Received(to_lines(reply.to_dict(), lambda document: json.dumps(document).encode()), in_lines=True),
        Received(reply_to_ndjson(reply).removesuffix(b"\n"), in_lines=True),
    ):
        answer = decode_reply(message, encoder())
        assert (type(answer), fields_of(answer)) == (type(expected), fields_of(expected))


def fields_of(answer: Any) -> dict[str, Any]:
    """Return the fields of a reply, with sequences as tuples."""
    values = {name: getattr(answer, name) for kind in type(answer).__mro__ for name in getattr(kind, "__slots__", ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.tuples(st.text(max_size=3)) | st.tuples(st.text(max_size=3), JSON) | JSON
ROWS = st.tuples(st.integers(0, 12), CHANGES) | JSON


def row_of(cid: int) -> Any:
    """Generate a valid row of a page."""
    return st.tuples(st.just(cid), st.tuples(st.text("abcé", min_size=1), JSON))


GOOD_ROWS = st.lists(st.integers(3, 9), unique=True, max_size=4).flatmap(
    lambda cids: st.tuples(*map(row_of, sorted(cids)))
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Generate replies, most of them pages. Some lack a field, or have an invalid one."""
    page = draw(GOOD_ROWS | st.lists(ROWS, max_size=4))
    good = REPLIES[draw(st.sampled_from(["page", "decision", "fill", "end of a fill"]))].to_dict()
    message = {**good, "cid": 9, "head": 9, "page": page, "count": len(page)}
    for name in ("values", "entries"):
        if name in message:
            message[name] = [*message[name], *draw(st.lists(CHANGES, max_size=1))]
    if "values" in message:
        message["value_count"] = len(message["values"])
    if "entries" in message:
        message["fill"]["count"] = len(message["entries"])
    for name in draw(st.lists(st.sampled_from(sorted({*message} - {*ROW_FIELDS})), max_size=1)):
        if draw(st.booleans()):
            message[name] = draw(JSON | st.integers(0, 12) | st.sampled_from(["page", "reset", "forked"]))
        else:
            del message[name]
    read: dict[str, Any] = orjson.loads(orjson.dumps(message))
    return read


@settings(max_examples=examples(200))
@given(message=messages())
def test_valid_and_invalid_replies_are_accepted_or_refused_alike(message: dict[str, Any]) -> None:
    expected = outcome(message)
    assert outcome(Received(orjson.dumps(message), in_lines=False)) == expected
    rows = sum(len(message.get(name, ())) for name in ROW_FIELDS)
    if message.get("kind") == "page" or not rows:
        assert outcome(Received(to_lines(message), in_lines=True)) == expected
    else:
        assert outcome(Received(to_lines(message), in_lines=True)) is None


def test_a_reply_that_was_cut_off_is_refused() -> None:
    for in_lines, body in ((False, reply_to_json(REPLIES["page"])), (True, reply_to_ndjson(REPLIES["page"]))):
        for end in range(len(body) - 1):
            assert outcome(Received(body[:end], in_lines)) is None
        assert outcome(Received(body, in_lines)) is not None


@pytest.mark.parametrize(
    "row",
    [
        b'[08,["k",1]]',
        b'[8,["k",1]',
        b'[8,["k",1]],',
        b'[8,["k",1]][8,["k",1]]',
        b'[8,["k",{"a":1,"a":2}]]',
        b'[8,["k",18446744073709551616]]',
        b'[8,["k",NaN]]',
        b'[8,["!k",1]]',
        b'[99999999999999999999,["k",1]]',
        b'[8,["k",1]]\n',
        b"",
    ],
)
def test_a_malformed_row_is_refused(row: bytes) -> None:
    lines = reply_to_ndjson(REPLIES["page"]).splitlines()
    good, bad = [*lines[:-1], b'[8,["k",1]]'], [*lines[:-1], row]
    assert outcome(Received(b"\n".join(good) + b"\n", in_lines=True)) is not None
    assert outcome(Received(b"\n".join(bad) + b"\n", in_lines=True)) is None


@pytest.mark.parametrize("value", [b'{"a":1,"a":2}', b"18446744073709551616", b"-9223372036854775809"])
def test_a_value_that_decoding_would_change_is_refused(value: bytes) -> None:
    body = reply_to_json(LogPage(*ADDRESS, 8, 8, False, [], None, [], [], [(8, b'["k","?"]')]))
    assert outcome(Received(body, in_lines=False)) is not None
    assert outcome(Received(body.replace(b'"?"', value), in_lines=False)) is None


@pytest.mark.parametrize("body", [b"", b"\n", b"[]", b"null\n", b"\xff", b"<html>"])
@pytest.mark.parametrize("in_lines", [False, True])
def test_bytes_that_are_not_a_reply_are_refused(body: bytes, in_lines: bool) -> None:
    assert outcome(Received(body, in_lines)) is None


@pytest.mark.skipif(_core.CORE == "python", reason="the pure core decodes a value to judge it")
def test_values_of_a_page_in_lines_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_py, "json_value", None)  # the fallback of the compiled core
    assert outcome(Received(reply_to_ndjson(REPLIES["page"]), in_lines=True)) is not None


_HEADER = b'{"protocol":2,"kind":"page","server":"%b","nonce":"%b","base":7,"cid":9,"head":9,"more":false,' % (
    b"a" * 32,
    b"b" * 32,
)
_REST = b'"epochs":[],"ack":null,"rejected":[]'
_MANY = b"[%b[]]" % (b"[]," * 900_000)

#: Replies with many values where a decoder might decode them, and True for NDJSON.
BOMBS = {
    "a member of the header": (_HEADER + _REST + b',"count":0,"x":' + _MANY + b"}\n", True),
    "a row after a malformed one": (_HEADER + _REST + b',"count":2}\n[8.0,["a",1]]\n[9,["b",' + _MANY + b"]]\n", True),
    "a row after one with spaces": (_HEADER + _REST + b',"count":2}\n[ 8 , ["a",1]]\n[9,["b",' + _MANY + b"]]\n", True),
    "a value after a malformed row": (
        _HEADER + _REST + b',"count":1,"value_count":1}\n[8.0,["a",1]]\n["b",' + _MANY + b"]\n",
        True,
    ),
    "a member of JSON": (_HEADER + _REST + b',"count":0,"page":[],"x":' + _MANY + b"}", False),
    "a change in JSON": (_HEADER + _REST + b',"count":1,"page":[[9,["b",' + _MANY + b"]]]}", False),
    "a change beside values that are no rows": (
        _HEADER + _REST + b',"count":1,"values":1,"page":[[9,["b",' + _MANY + b"]]]}",
        False,
    ),
    "changes with too many rows": (_HEADER + _REST + b',"count":1,"page":' + _MANY + b"}", False),
}


@pytest.mark.skipif(_core.CORE == "python", reason="the pure core decodes a value to judge it")
@pytest.mark.parametrize("place", BOMBS)
def test_many_values_of_a_reply_are_not_decoded(place: str) -> None:
    body, in_lines = BOMBS[place]
    tracemalloc.start()
    try:
        outcome(Received(body, in_lines))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(body)  # decoded, they take 30 times as much


@pytest.mark.parametrize("row", [b'[ 8 , ["k",1] ]', b'[8,\t["k",1]]'])
def test_a_row_with_white_space_is_accepted(row: bytes) -> None:
    lines = reply_to_ndjson(REPLIES["page"]).splitlines()
    plain, spaced = (b"\n".join([*lines[:-1], last]) + b"\n" for last in (b'[8,["k",1]]', row))
    assert fields_of(outcome(Received(spaced, in_lines=True))) == fields_of(outcome(Received(plain, in_lines=True)))


def test_a_client_is_drained_over_a_wire_that_carries_lines() -> None:
    server, client = a_server(a=1, b={"x": [1, "é"]}), a_client(c=3)

    class Lines:
        def exchange(self, request: dict[str, Any]) -> Any:
            asked = orjson.loads(request_to_json(Request.from_dict(request)))
            return Received(reply_to_ndjson(server.exchange_encoded(asked)), in_lines=True)

    report = client.sync(Lines())
    assert (report.pulled, report.pushed) == (2, 1)
    assert client.query() == server.query()
