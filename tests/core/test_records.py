"""Change records: joined and split without decoding the value."""

from __future__ import annotations

import gc
from typing import Any

import orjson
import pytest
from core.values import JSON
from hypothesis import example, given
from hypothesis import strategies as st

from treehub_level.errors import DecodeError

pytestmark = pytest.mark.once


@given(key=st.text(), value=JSON)
@example(key='a"b\\c\n\x00\x7f', value=None)
@example(key="é\u2028😀", value={})
def test_a_record_is_the_json_of_key_and_value(core: Any, key: str, value: Any) -> None:
    stored = orjson.dumps(value)
    record = core.join_record(key.encode(), stored)
    assert record == orjson.dumps([key, value])
    assert core.split_record(record) == (key.encode(), stored)
    assert core.encode_json_key(key.encode()) == orjson.dumps(key)


@given(key=st.text())
def test_the_record_of_a_deletion_is_the_json_of_its_key(core: Any, key: str) -> None:
    record = core.join_record(key.encode(), None)
    assert record == orjson.dumps([key])
    assert core.split_record(record) == (key.encode(), None)


@pytest.mark.parametrize("value", [b'"A"', b"1.0", b'{"b":1, "a":2}', b"1E2"])
def test_the_bytes_of_a_value_are_kept_unaltered(core: Any, value: bytes) -> None:
    assert core.split_record(core.join_record(b"k", value)) == (b"k", value)


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        (b' \t\r\n[ "a" , {"x": [1, 2]} ] ', (b"a", b'{"x": [1, 2]}')),
        (b'["\\u0061"]', (b"a", None)),
        (b'["\\ud83d\\ude00","]"]', ("😀".encode(), b'"]"')),
        (b'["a\\"b",1]', (b'a"b', b"1")),
        (b'["",null]', (b"", b"null")),
        (b'["a" ]', (b"a", None)),
    ],
)
def test_any_valid_json_is_read(core: Any, record: bytes, parts: tuple[bytes, bytes | None]) -> None:
    assert core.split_record(record) == parts


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"null",
        b"[1]",
        b"[1,2]",
        b'"a"',
        b'{"a":1}',
        b'["a"',
        b'"a"]',
        b'["a",]',
        b'["a", ]',
        b'["a" 1]',
        b'["a"]x',
        b'["a]',
        b'["a\x00"]',
        b'["\xff"]',
        b'["\\ud800"]',
        b'["\\x"]',
        b'\x0b["a"]',
    ],
)
def test_a_text_that_is_not_a_record_is_refused(core: Any, record: bytes) -> None:
    with pytest.raises(ValueError, match="is not a change record"):
        core.split_record(record)


def test_a_key_that_is_not_utf8_cannot_be_joined(core: Any) -> None:
    with pytest.raises(DecodeError, match="is not UTF-8"):
        core.join_record(b"\xff", b"1")


def test_keys_and_values_of_records_are_bytes(core: Any) -> None:
    for key, value in [("a", b"1"), (b"a", "1"), (None, None), (b"a", 1)]:
        with pytest.raises(TypeError, match="must be bytes, not"):
            core.join_record(key, value)
    with pytest.raises(TypeError, match="a change record must be bytes, not str"):
        core.split_record('["a"]')


def test_rows_are_split_into_cid_and_record(core: Any) -> None:
    rows = [b'[1,["a"]]', b'[9007199254740991,["b",[2]]]', b"[12,x]"]
    assert core.split_rows(rows) == [(1, b'["a"]'), (2**53 - 1, b'["b",[2]]'), (12, b"x")]
    assert core.split_rows([]) == []


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"[",
        b"[]",
        b"[1]",
        b"[1,]",
        b"[,1]",
        b"[0,1]",
        b"[01,1]",
        b"[-1,1]",
        b"[1.0,1]",
        b"[ 1,1]",
        b"[1 ,1]",
        b"1,2]",
        b"[1,2",
        b"[1,2] ",
        b"[9007199254740992,1]",
        b"[10000000000000000,1]",
        b"[99999999999999999999,1]",
    ],
)
def test_rows_are_not_split_if_one_has_another_form(core: Any, row: bytes) -> None:
    assert core.split_rows([b"[1,1]", row]) is None


@pytest.mark.parametrize("text", ["x" * 24, "é" * 8, "\U0001f600" * 5], ids=["ascii", "two bytes", "four bytes"])
def test_each_byte_at_each_place_of_a_string_is_judged_as_the_parser_does(core: Any, text: str) -> None:
    space = core.KeySpace("!")
    for place in range(4, len(text.encode()) + 6):
        for byte in range(256):
            record = bytearray(b'["k","%b"]' % text.encode())
            record[place] = byte
            try:
                change = orjson.loads(record)
                is_sound = change[0] == "k" and len(change) == 2
            except orjson.JSONDecodeError:
                is_sound = False
            assert (core.find_damaged(space, [bytes(record)]) is None) == is_sound, record


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[",
        b"[]",
        b"[1]",
        b'["a",1,2]',
        b'["a",]',
        b'["!",1]',
        b'[""]',
        b'["a",{"b":1,"b":2}]',
        b'["a",1]x',
        b'"a"',
    ],
)
def test_a_damaged_record_is_found_by_its_index(core: Any, record: bytes) -> None:
    space = core.KeySpace("!")
    sound = [b'["a"]', b' [ "\\u00e9" , {"b": 1.50} ] ', b'["a",123456789012345678901234567890]']
    assert core.find_damaged(space, []) is None
    assert core.find_damaged(space, sound) is None
    assert core.find_damaged(space, [*sound, record, record]) == 3


def test_the_garbage_collector_does_not_traverse_pairs_of_bytes(compiled: Any) -> None:
    space = compiled.KeySpace("!")
    encoder = compiled.Encoder(space)
    pairs = [
        *encoder.pairs([("a", 1)]),
        *encoder.changes([["a"]]),
        *encoder.records([b'["a",1]', b'["a"]']),
        *compiled.split_rows([b'[7,["a",1]]']),
        *space.parse_log_rows([(b"!7", b'["a",1]')]),
    ]
    assert [pair for pair in pairs if gc.is_tracked(pair)] == []
    # An instance of a subclass of bytes may refer to the pair itself.
    assert all(map(gc.is_tracked, space.parse_log_rows([(b"!7", type("Sub", (bytes,), {})())])))
