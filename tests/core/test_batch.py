"""Encoding of user data, and the batches that are written."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from core.values import JSON, Colour, Elsewhere, Mood, Number, Point, Size, Text, nested
from hypothesis import given

from treehub_level.errors import InvalidKeyError, InvalidValueError, ProtocolError
from treehub_level.types import Change, Delete, Put

pytestmark = pytest.mark.once

# ------------------------------------------------------------------------------------------- values


@given(value=JSON)
def test_every_json_value_comes_back_equal_and_of_the_same_type(core: Any, value: Any) -> None:
    core.check_value(value)
    stored = core.encode_value(value)
    assert stored == orjson.dumps(value)
    assert repr(orjson.loads(stored)) == repr(value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, (2,)), b"[1,[2]]"),
        (Text("a"), b'"a"'),
        (Size.SMALL, b"1"),
        (Mood.GLAD, b'"glad"'),
        (2**64 - 1, b"18446744073709551615"),
        (-(2**63), b"-9223372036854775808"),
        (-0.0, b"-0.0"),
        ("é\u2028😀\x7f", '"é\u2028😀\x7f"'.encode()),
        ("x" * 5000, b'"' + b"x" * 5000 + b'"'),
    ],
)
def test_a_value_that_equals_a_json_value_is_stored_as_that(core: Any, value: Any, stored: bytes) -> None:
    core.check_value(value)
    assert core.encode_value(value) == stored


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (float("nan"), r"nan at \$: JSON holds finite numbers only"),
        (float("-inf"), r"-inf at \$: JSON holds finite numbers only"),
        (2**64, r"18446744073709551616 at \$: an int lies between -2\*\*63 and 2\*\*64 - 1"),
        (-(2**63) - 1, r"an int lies between"),
        pytest.param(10**5000, r"an int of 16610 bits at \$: an int lies between", id="huge"),
        ({1, 2}, r"a value of type set at \$: only None, bool, int"),
        (b"a", r"a value of type bytes at \$"),
        (object(), r"a value of type object at \$"),
        (1 + 2j, r"a value of type complex at \$"),
        (datetime.date(2026, 1, 1), r"a value of type date at \$"),
        (Colour.RED, r"a value of type Colour at \$"),
        (Elsewhere.HERE, r"a value of type Elsewhere at \$"),
        (Number(1), r"a value of type Number at \$"),
        (Point(1, 2), r"a value of type Point at \$"),
        ("a\udc00", r"a str with a lone surrogate at \$"),
        ({1: 2}, r"a dict key of type int at \$: it must be a str"),
        ({None: 2}, r"a dict key of type NoneType at \$"),
        ({Text("a"): 2}, r"a dict key of type Text at \$"),
        ({"\ud800": 1}, r"a dict key with a lone surrogate at \$"),
        ({"a": [1, 2, {"b c": {1}}]}, r"a value of type set at \$.a\[2\]\['b c'\]"),
        ({"a": [1, {2: 3}]}, r"a dict key of type int at \$.a\[1\]"),
        (([float("nan")],), r"nan at \$\[0\]\[0\]"),
        (nested(65), "more than 64 containers inside each other"),
    ],
)
def test_a_value_that_json_cannot_round_trip_is_refused_with_its_path(core: Any, value: Any, fault: str) -> None:
    for refuse in (core.check_value, core.encode_value):
        with pytest.raises(InvalidValueError, match=fault):
            refuse(value)


def test_containers_nest_64_deep(core: Any) -> None:
    assert orjson.loads(core.encode_value(nested(64))) == nested(64)


def test_a_list_that_holds_itself_is_refused(core: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidValueError, match="more than 64 containers"):
        core.encode_value(endless)


def test_json_bytes_pass_as_they_are_but_not_inside_a_value(core: Any) -> None:
    stored = core.JSONBytes(b'{"b":1,"a":2}')
    assert core.encode_value(stored) == stored
    core.check_value(stored)
    with pytest.raises(InvalidValueError, match=r"a value of type JSONBytes at \$\[0\]"):
        core.encode_value([stored])


@pytest.mark.parametrize("json_bytes", [False, True])
def test_a_limit_counts_bytes_of_json(core: Any, json_bytes: bool) -> None:
    value = core.JSONBytes(b'"\xc3\xa9"') if json_bytes else "é"
    assert core.encode_value(value, 4) == b'"\xc3\xa9"'
    with pytest.raises(InvalidValueError, match="the value takes 4 bytes of JSON, and at most 3 are allowed"):
        core.encode_value(value, 3)


def test_four_mebibytes_of_json_are_the_limit_where_stores_synchronise(core: Any, space: Any) -> None:
    largest = "x" * (4 * 1024 * 1024 - 2)
    assert len(core.Encoder(space).value(largest)) == 4 * 1024 * 1024
    with pytest.raises(InvalidValueError, match="the value takes 4194305 bytes of JSON"):
        core.Encoder(space).value(largest + "x")
    assert len(core.Encoder().value(largest + "x")) == 4 * 1024 * 1024 + 1


# --------------------------------------------------------------------------------------- operations


def test_operations_may_be_put_delete_or_dicts(core: Any, space: Any) -> None:
    ops = [
        Put("a", None),
        Delete("b"),
        {"type": "put", "key": "c", "value": [1], "extra": object()},
        {"type": "del", "key": "d", "value": "ignored"},
    ]
    expected = [(b"a", b"null"), (b"b", None), (b"c", b"[1]"), (b"d", None)]
    assert core.Encoder(space).ops(ops) == expected
    assert core.Encoder(space).ops(tuple(ops)) == expected
    assert core.Encoder(space).ops(op for op in ops) == expected
    assert core.Encoder(space).ops([]) == []


@pytest.mark.parametrize(
    ("op", "kind", "fault"),
    [
        (None, TypeError, "it must be a Put, a Delete or a dict, not NoneType"),
        (("put", "a", 1), TypeError, "it must be a Put, a Delete or a dict, not tuple"),
        ({}, TypeError, 'the field "type" is missing'),
        ({"type": "put", "value": 1}, TypeError, 'the field "key" is missing'),
        ({"type": "put", "key": "a"}, TypeError, 'the field "value" is missing'),
        ({"type": "del"}, TypeError, 'the field "key" is missing'),
        ({"type": "delete", "key": "a"}, ValueError, 'its type must be "put" or "del", not \'delete\''),
        ({"type": None, "key": "a"}, ValueError, 'its type must be "put" or "del", not None'),
        (Put(1, 1), TypeError, "a key must be a str, not int"),
        (Put(b"a", 1), TypeError, "a key must be a str, not bytes"),
        (Put("", 1), InvalidKeyError, "a key must not be empty"),
        (Delete("!1"), InvalidKeyError, "the key '!1' sorts before"),
        (Put("a", {1}), InvalidValueError, r"a value of type set at \$"),
    ],
)
def test_a_bad_operation_is_refused_with_its_number(core: Any, space: Any, op: Any, kind: Any, fault: str) -> None:
    with pytest.raises(kind, match="operation 1: " + fault) as raised:
        core.Encoder(space).ops([Put("a", 1), op])
    assert type(raised.value) is kind


@pytest.mark.parametrize("items", [None, 1, "ab", b"ab", {"a": 1}, {}])
def test_operations_that_are_not_a_list_are_a_type_error(core: Any, items: Any) -> None:
    with pytest.raises(TypeError, match=f"a list of operations is needed, not {type(items).__name__}"):
        core.Encoder().ops(items)
    with pytest.raises(TypeError, match=f"a list of items is needed, not {type(items).__name__}"):
        core.Encoder().pairs(items)


def test_an_error_of_the_callers_own_iterator_passes_unchanged(core: Any) -> None:
    def fail_after(item: Any) -> Iterator[Any]:
        yield item
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        core.Encoder().ops(fail_after(Put("a", 1)))
    with pytest.raises(ValueError, match=r"^mine$"):
        core.Encoder().changes(fail_after(["a", 1]))


def test_the_callers_operations_are_left_as_they_were(core: Any, space: Any) -> None:
    ops = [{"type": "put", "key": "a", "value": {"b": [1]}}, {"type": "del", "key": "c"}]
    core.Encoder(space, key_prefix="sub/").ops(ops)
    assert ops == [{"type": "put", "key": "a", "value": {"b": [1]}}, {"type": "del", "key": "c"}]


def test_pairs_are_puts(core: Any) -> None:
    assert core.Encoder().pairs([("a", 1), ["b", 2], Put("c", 3)]) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    for pair, described in [("ab", "str"), (("a",), "a tuple of 1"), ([1, 2, 3], "a list of 3"), (None, "NoneType")]:
        with pytest.raises(TypeError, match=rf"item 0: it must be a \(key, value\) pair, not {described}"):
            core.Encoder().pairs([pair])


def test_changes_may_be_lists_tuples_or_change_objects(core: Any, space: Any) -> None:
    changes = [["a", 1], ("b",), Change("c", None), Change.deletion("d"), ["e"]]
    expected = [(b"a", b"1"), (b"b", None), (b"c", b"null"), (b"d", None), (b"e", None)]
    assert core.Encoder(space).changes(changes) == expected


@pytest.mark.parametrize(
    ("change", "fault", "cause"),
    [
        ("xy", r"it must be \[key, value\] or \[key\], not str", TypeError),
        ([], r"it must be \[key, value\] or \[key\], not a list of 0", TypeError),
        (["a", 1, 2], r"it must be \[key, value\] or \[key\], not a list of 3", TypeError),
        ({"key": "a"}, r"it must be \[key, value\] or \[key\], not dict", TypeError),
        ([1, 2], "a key must be a str, not int", TypeError),
        (["!", 2], "the key '!' sorts before", InvalidKeyError),
        (["!1"], "the key '!1' sorts before", InvalidKeyError),
        (["a", 2**64], "18446744073709551616 at", InvalidValueError),
    ],
)
def test_a_malformed_change_is_a_protocol_error(core: Any, space: Any, change: Any, fault: str, cause: Any) -> None:
    with pytest.raises(ProtocolError, match="change 1: " + fault) as raised:
        core.Encoder(space).changes([["a"], change])
    assert type(raised.value.__cause__) is cause


@pytest.mark.parametrize("changes", [None, 1, "xy", b"xy", {"a": 1}])
def test_changes_that_are_not_a_list_are_a_protocol_error(core: Any, space: Any, changes: Any) -> None:
    with pytest.raises(ProtocolError, match=f"a list of changes is needed, not {type(changes).__name__}"):
        core.Encoder(space).changes(changes)


# ------------------------------------------------------------------------------------------ options


def test_without_a_key_space_any_key_is_allowed(core: Any) -> None:
    for key in ("", "!", "\x00", "x" * 300_000):
        assert core.Encoder().put(key, 1) == (key.encode(), b"1")
        assert core.Encoder().delete(key) == (key.encode(), None)


def test_a_key_prefix_counts_for_the_check_of_the_key(core: Any, space: Any) -> None:
    encoder = core.Encoder(space, key_prefix="sub/")
    assert encoder.key("") == b"sub/"
    assert encoder.key("!") == b"sub/!"
    with pytest.raises(InvalidKeyError, match="has 1025 bytes"):
        encoder.key("x" * 1021)
    with pytest.raises(InvalidKeyError, match="lone surrogate"):
        encoder.key("\ud800")
    assert core.Encoder(key_prefix=b"sub/").key("é") == "sub/é".encode()


def test_raw_keys_and_values_are_stored_as_they_are(core: Any) -> None:
    encoder = core.Encoder(key_prefix="p/", raw_keys=True, raw_values=True)
    assert encoder.put(b"\xff", b"\x00") == (b"p/\xff", b"\x00")
    with pytest.raises(TypeError, match="a key of this store must be bytes, not str"):
        encoder.put("a", b"b")
    with pytest.raises(TypeError, match="a value of this store must be bytes, not str"):
        encoder.put(b"a", "b")
    with pytest.raises(TypeError, match="operation 0: a key of this store must be bytes, not str"):
        encoder.ops([Delete("a")])


# ------------------------------------------------------------------------------------------ batches


def stored(batch: list[tuple[bytes, bytes | None]]) -> tuple[dict[str, str], list[str]]:
    """The puts and the deletes of a batch, in hexadecimal digits as in the golden vectors."""
    puts = {key.hex(): value.hex() for key, value in batch if value is not None}
    return puts, [key.hex() for key, value in batch if value is None]


def test_a_server_batch_writes_the_golden_bytes(core: Any, space: Any, golden: Any) -> None:
    vector = golden["server_batch"]
    batch = core.server_batch(space, vector["cid"], core.Encoder(space).changes(vector["changes"]))
    assert stored(batch) == (vector["stored"], vector["deleted"])


def test_a_client_batch_writes_the_golden_bytes(core: Any, space: Any, golden: Any) -> None:
    vector = golden["client_batch"]
    batch = core.client_batch(space, core.Encoder(space).changes(vector["changes"]))
    assert stored(batch) == (vector["stored"], vector["deleted"])


def test_a_server_batch_is_each_entry_and_its_record_then_the_cid(core: Any, space: Any) -> None:
    entries = [(b"a", b"1"), (b"a", None)]
    assert core.server_batch(space, 9, entries) == [
        (b"a", b"1"),
        (b"!:10", b'["a",1]'),
        (b"a", None),
        (b"!:11", b'["a"]'),
        (b"!", b"11"),
    ]
    assert core.server_batch(space, 9, tuple(entries)) == core.server_batch(space, 9, entries)


def test_an_apply_batch_cleans_the_keys_that_it_writes(core: Any, space: Any) -> None:
    assert core.apply_batch(space, 12, [(b"a", b"1"), (b"b", None)]) == [
        (b"a", b"1"),
        (b"!a", None),
        (b"b", None),
        (b"!b", None),
        (b"!", b"12"),
    ]
    assert core.apply_batch(space, 0, []) == [(b"!", b"0")]


def test_nothing_to_write_is_an_empty_batch(core: Any, space: Any) -> None:
    assert core.server_batch(space, 5, []) == []
    assert core.client_batch(space, []) == []


def test_the_highest_change_id_can_be_reached_and_not_exceeded(core: Any, space: Any) -> None:
    last = core.MAX_CID
    assert core.server_batch(space, last - 1, [(b"a", None)])[-1] == (b"!", b"9007199254740991")
    with pytest.raises(ValueError, match="1 changes after change id 9007199254740991 would exceed"):
        core.server_batch(space, last, [(b"a", None)])


@pytest.mark.parametrize("cid", [True, 1.0, "1", None])
def test_a_batch_needs_an_int_for_a_change_id(core: Any, space: Any, cid: Any) -> None:
    for build in (core.server_batch, core.apply_batch):
        with pytest.raises(TypeError, match="a change id must be an int"):
            build(space, cid, [])


@pytest.mark.parametrize("entry", [None, (b"a",), (b"a", b"1", b"2"), ("a", b"1"), (b"a", 1), [b"a", b"1"]])
def test_entries_are_tuples_of_bytes(core: Any, space: Any, entry: Any) -> None:
    entries = [(b"a", b"1"), entry]
    fault = "an entry must be a tuple of a key in bytes and a value in bytes, or None"
    with pytest.raises(TypeError, match=fault):
        core.server_batch(space, 1, entries)
    with pytest.raises(TypeError, match=fault):
        core.client_batch(space, entries)
    with pytest.raises(TypeError, match=fault):
        core.apply_batch(space, 1, entries)
