"""The two cores differ only in speed.

Both are called with the same arguments, many of them of a wrong type or out of range. Both must
return equal values, or raise the same error with the same message and cause.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from core.values import (
    JSON,
    Colour,
    Elsewhere,
    Mapping,
    Mood,
    Number,
    Octets,
    Point,
    Sequence,
    Size,
    Text,
    Whole,
    nested,
)
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from treehub_level._core_py import JSONBytes
from treehub_level.types import Change, Delete, Put

pytestmark = pytest.mark.once

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=12)  # with lone surrogates
UNEXPECTED = st.sampled_from(
    [
        Colour.RED,
        Elsewhere.HERE,
        Mood.GLAD,
        Size.SMALL,
        Text("text"),
        Whole(3),
        Number(1.5),
        Octets(b"octets"),
        Mapping(a=1),
        Sequence([1]),
        Point(1, 2),
        JSONBytes(b"[1]"),
        Change("a", 1),
        Put("a", 1),
        Delete("a"),
        datetime.date(2026, 1, 1),
        bytearray(b"a"),
        frozenset({1}),
        object,
        2**64,
        -(2**63) - 1,
        10**400,
        nested(64),
        nested(65),
        nested(300),
        range(2),
    ]
)
WILD_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=8) | UNEXPECTED
WILD = st.recursive(
    WILD_SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(ANY_TEXT | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)

CID = st.integers(-1, 20) | st.integers(2**53 - 3, 2**53 + 3) | st.integers(0, 2**53) | WILD_SCALARS
CID_KEY = st.from_regex(rb"[0-9:-J]?[0-9]{0,17}", fullmatch=True) | st.binary(max_size=4) | WILD_SCALARS
KEY = ANY_TEXT | st.sampled_from(["", "!", "!1", '"', "a" * 1024, "a" * 1025, "é" * 513]) | WILD_SCALARS
RAW = st.binary(max_size=12) | ANY_TEXT.map(lambda text: text.encode(errors="replace")) | WILD_SCALARS
RAW_BYTES = st.binary(max_size=12) | ANY_TEXT.map(lambda text: text.encode(errors="replace"))
GOOD_KEY = st.text(max_size=8).map(str.encode)
JSON_TEXT = JSON.map(orjson.dumps) | st.sampled_from(
    [b"1", b'"a"', b" [1, 2]", b"", b"{", b"1,2", b"[1", b"2]", b"NaN", b"\xff"]
)
#: Texts of the bytes by which a document is split, most of them malformed.
STRUCTURE = st.text('[]{},:"\\ a1', max_size=14).map(str.encode) | st.builds(
    lambda opening, inner: opening[:1] + inner + opening[1:],
    st.sampled_from([b"[]", b"{}"]),
    st.text('[]{},:"\\ a1', max_size=14).map(str.encode),
)
LINE = (
    st.builds(
        b'{"key":%b,"value":%b}%b'.__mod__, st.tuples(JSON_TEXT, JSON_TEXT, st.sampled_from([b"", b"\r\n", b"1"]))
    )
    | st.builds(lambda key, value: orjson.dumps({"key": key, "value": value}), st.text(), JSON)
    | RAW
)
RAW_VALUE = st.none() | RAW | st.binary(max_size=6).map(JSONBytes)
RECORD = (
    st.from_regex(rb'[ \n]?\[ ?"[^"]{0,4}" ?(, ?[0-9 \]]{0,3})?\] ?', fullmatch=True)
    | st.binary(max_size=10)
    | st.text('[]{},:"\\ a1', max_size=14).map(lambda text: f'["{text}]'.encode())
    | st.sampled_from([b'["a"]', b'["a",1]', b'["\\u00e9","x"]', b'["\\ud800"]', b"[1]", '["é",{}]'.encode()])
    | WILD_SCALARS
)
GOOD_RECORD = (st.tuples(st.text(max_size=8)) | st.tuples(st.text(max_size=8), JSON)).map(orjson.dumps)
ROW = st.from_regex(rb"\[?([0-9]{0,3}|9007199254740[0-9]{2,6}),([^\x00]{0,3}|\]),?\]?", fullmatch=True) | RECORD
OP = (
    st.builds(Put, KEY, WILD)
    | st.builds(Delete, KEY)
    | st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(["put", "del", "x"]) | WILD, "key": KEY, "value": WILD, "more": WILD}
    )
    | WILD
)
PAIR = st.tuples(KEY, WILD) | st.lists(WILD, max_size=3) | WILD
CHANGE = st.tuples(KEY) | st.tuples(KEY, WILD) | st.lists(KEY, max_size=3) | st.builds(Change, KEY, WILD) | WILD
ENTRY = st.tuples(RAW, RAW_VALUE) | WILD


def many(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists of items, and values that are not lists."""
    lists = st.lists(item, max_size=4)
    return lists | lists.map(tuple) | WILD


ENTRIES = many(ENTRY) | many(st.tuples(GOOD_KEY, RAW_VALUE))
ROWS = many(st.tuples(RAW, JSON_TEXT | RAW)) | many(st.tuples(GOOD_KEY, JSON.map(orjson.dumps)))
PACKED = st.lists(st.tuples(RAW_BYTES, JSON_TEXT), max_size=4)
FEW = st.integers(0, 99)


def packed(rows: list[tuple[bytes, bytes]]) -> bytes:
    """Packed rows, as the native engine returns them."""
    return b"".join(struct.pack("@NN", len(key), len(value)) + key + value for key, value in rows)


@dataclass(frozen=True)
class Case:
    """One way to call a core."""

    call: Callable[..., Any]
    arguments: tuple[st.SearchStrategy[Any], ...]


def case(call: Callable[..., Any], *arguments: st.SearchStrategy[Any]) -> Case:
    return Case(call, arguments)


def encoders(core: Any) -> list[Any]:
    """One encoder of each kind."""
    return [
        core.Encoder(core.KeySpace("!")),
        core.Encoder(),
        core.Encoder(core.KeySpace("!/"), key_prefix="sub/"),
        core.Encoder(key_prefix=b"\xff", raw_keys=True, raw_values=True),
    ]


def decoders(core: Any) -> list[Any]:
    """One decoder of each kind."""
    return [core.Decoder(), core.Decoder(strip=2), core.Decoder(raw_keys=True), core.Decoder(raw_values=True)]


KIND = st.integers(0, 3)
CASES: dict[str, Case] = {
    "cid_key": case(lambda core, cid: core.cid_key(cid), CID),
    "parse_cid_key": case(lambda core, key: core.parse_cid_key(key), CID_KEY),
    "encode_key": case(lambda core, key: core.encode_key(key), KEY),
    "decode_key": case(lambda core, key: core.decode_key(key), RAW),
    "successor": case(lambda core, prefix: core.successor(prefix), RAW),
    "range_bounds": case(lambda core, *bounds: core.range_bounds(*bounds), *[st.none() | RAW] * 6),
    "KeySpace": case(lambda core, prefix: core.KeySpace(prefix).dirty_start, KEY | st.text("!/0 ", max_size=3)),
    "KeySpace.log_key": case(lambda core, cid: core.KeySpace("!").log_key(cid), CID),
    "KeySpace.parse_log_key": case(
        lambda core, key: core.KeySpace("!").parse_log_key(key),
        CID_KEY | CID_KEY.map(lambda key: b"!" + key if type(key) is bytes else key),
    ),
    "KeySpace.parse_log_rows": case(
        lambda core, rows: core.KeySpace("!").parse_log_rows(rows),
        many(st.tuples(CID_KEY.map(lambda key: b"!" + key if type(key) is bytes else key), RAW_VALUE) | RAW),
    ),
    "KeySpace.dirty_key": case(lambda core, key: core.KeySpace("!").dirty_key(key), RAW),
    "KeySpace.own_key": case(lambda core, name: core.KeySpace("!").own_key(name), KEY),
    "KeySpace.check_key": case(lambda core, key: core.KeySpace("!").check_key(key), KEY),
    "encode_json_key": case(lambda core, key: core.encode_json_key(key), RAW),
    "join_record": case(lambda core, key, value: core.join_record(key, value), GOOD_KEY | RAW, RAW_VALUE),
    "split_record": case(lambda core, record: core.split_record(record), RECORD),
    "find_damaged": case(lambda core, records: core.find_damaged(core.KeySpace("!"), records), many(RECORD)),
    "split_rows": case(lambda core, rows: core.split_rows(rows), many(ROW)),
    "check_value": case(lambda core, value: core.check_value(value), WILD),
    "encode_value": case(
        lambda core, value, limit: core.encode_value(value, limit), WILD, st.none() | st.integers(0, 9)
    ),
    "json_line": case(lambda core, line: core.json_line(line), LINE | STRUCTURE),
    "json_value": case(lambda core, text: core.json_value(text), JSON_TEXT | STRUCTURE | RAW),
    "Encoder.key": case(lambda core, kind, key: encoders(core)[kind].key(key), KIND, KEY | RAW),
    "Encoder.value": case(lambda core, kind, value: encoders(core)[kind].value(value), KIND, WILD),
    "Encoder.put": case(lambda core, kind, *args: encoders(core)[kind].put(*args), KIND, KEY | RAW, WILD),
    "Encoder.delete": case(lambda core, kind, key: encoders(core)[kind].delete(key), KIND, KEY | RAW),
    "Encoder.ops": case(lambda core, kind, ops: encoders(core)[kind].ops(ops), KIND, many(OP)),
    "Encoder.pairs": case(lambda core, kind, pairs: encoders(core)[kind].pairs(pairs), KIND, many(PAIR)),
    "Encoder.changes": case(lambda core, kind, changes: encoders(core)[kind].changes(changes), KIND, many(CHANGE)),
    "Encoder.records": case(
        lambda core, kind, records: encoders(core)[kind].records(records), KIND, many(RECORD | GOOD_RECORD)
    ),
    "count_nodes": case(lambda core, text: core.count_nodes(text), JSON_TEXT | STRUCTURE | RAW),
    "split_items": case(
        lambda core, text, brackets, limit: core.split_items(text, brackets, limit),
        JSON_TEXT | STRUCTURE | RAW,
        st.sampled_from([b"[]", b"{}"]) | WILD_SCALARS,
        st.integers(-1, 9) | st.just(2**70) | WILD_SCALARS,
    ),
    "server_batch": case(
        lambda core, cid, entries: [*core.server_batch(core.KeySpace("!"), cid, entries)],
        CID | st.integers(0, 99),
        ENTRIES,
    ),
    "client_batch": case(lambda core, entries: [*core.client_batch(core.KeySpace("!"), entries)], ENTRIES),
    "apply_batch": case(
        lambda core, cid, entries: [*core.apply_batch(core.KeySpace("!"), cid, entries)], CID | FEW, ENTRIES
    ),
    "Decoder.key": case(lambda core, kind, key: decoders(core)[kind].key(key), KIND, RAW),
    "Decoder.value": case(lambda core, kind, *args: decoders(core)[kind].value(*args), KIND, RAW, JSON_TEXT | RAW),
    "Decoder.items": case(lambda core, kind, rows: decoders(core)[kind].items(rows), KIND, ROWS),
    "Decoder.items, packed": case(lambda core, kind, rows: decoders(core)[kind].items(packed(rows)), KIND, PACKED),
    "Decoder.keys": case(lambda core, kind, keys: decoders(core)[kind].keys(keys), KIND, many(RAW)),
    "Decoder.values": case(lambda core, kind, rows: decoders(core)[kind].values(rows), KIND, ROWS),
    "Decoder.values, packed": case(lambda core, kind, rows: decoders(core)[kind].values(packed(rows)), KIND, PACKED),
    "collect": case(
        lambda core, rows, limit, chunk: core.collect(iter([rows, rows, []]).__next__, list, bool, limit, chunk),
        many(WILD),
        st.none() | st.integers(-1, 5) | WILD_SCALARS,
        WILD_SCALARS,
    ),
    "decode_changes": case(lambda core, records: core.decode_changes(records), many(RECORD)),
}


def outcome(core: Any, call: Callable[..., Any], arguments: list[Any]) -> tuple[Any, ...]:
    """The result or the error of a call, in a form that tells 1 from True and -0.0 from 0.0."""
    try:
        result = call(core, *arguments)
    except Exception as error:
        return type(error), str(error), type(error.__cause__)
    return type(result), repr(result)


def compare(tested: Case, one: Any, other: Any, count: int) -> None:
    """Fail unless both cores have the same outcome for every example."""

    @settings(max_examples=count, database=None)
    @given(arguments=st.tuples(*tested.arguments))
    def agree(arguments: tuple[Any, ...]) -> None:
        assert outcome(one, tested.call, list(arguments)) == outcome(other, tested.call, list(arguments))

    agree()


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", CASES)
def test_both_cores_have_the_same_outcomes(name: str, compiled: Any, pure: Any) -> None:
    compare(CASES[name], compiled, pure, examples(50))


def test_every_public_name_is_compared(pure: Any) -> None:
    constants = {name for name in pure.__all__ if name.startswith("MAX_")}
    classes = {"Encoder", "Decoder", "JSONBytes"}
    assert {name.partition(".")[0] for name in CASES} == set(pure.__all__) - constants - classes | {
        "Encoder",
        "Decoder",
    }


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("cid_key", lambda pure: {"cid_key": lambda cid: pure.cid_key(int(cid))}),
        ("parse_cid_key", lambda pure: {"parse_cid_key": lambda key: int(key[-1:])}),
        ("split_record", lambda pure: {"split_record": lambda record: pure.split_record(record.rstrip())}),
        ("encode_value", lambda pure: {"encode_value": lambda value, limit: pure.encode_value(value)}),
    ],
)
def test_a_faulty_core_is_found(name: str, fault: Callable[[Any], dict[str, Any]], pure: Any) -> None:
    faulty = SimpleNamespace(**{**vars(pure), **fault(pure)})
    with pytest.raises(AssertionError):
        compare(CASES[name], faulty, pure, 300)


def test_a_different_message_is_found(pure: Any) -> None:
    def reworded(key: Any) -> Any:
        try:
            return pure.encode_key(key)
        except TypeError:
            raise TypeError("not a str") from None

    with pytest.raises(AssertionError):
        compare(CASES["encode_key"], SimpleNamespace(encode_key=reworded), pure, 300)
