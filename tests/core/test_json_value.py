"""JSON text: checked, returned unaltered if it is canonical, and otherwise rewritten."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import orjson
import pytest
from core.values import JSON, nested
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from treehub_level._core_py import batch as batch_py
from treehub_level._core_py import json as json_py
from treehub_level.errors import InvalidValueError, ProtocolError

pytestmark = pytest.mark.once

#: Texts in canonical form, as orjson writes them, one for each branch of the scanner.
CANONICAL = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "999999999999999999",
    "0.0",
    "-0.0",
    "1.5",
    "100.0",
    "0.0001",
    "-12345.6789012345",
    "0.1234567890123456",
    "-85.99999999999999",
    "1e-7",
    "-1.7976931348623157e+308",
    "1e+22",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    '""',
    r'"\b\t\n\f\r\"\\ \u0000\u0007\u000b\u000e\u001f / \x7f"'.replace(r"\x7f", "\x7f"),
    '"é\u0800\u20ac\ud7ff\ue000\uffff\U00010000\U0010ffff"',
    "[]",
    "{}",
    '[1,[2,{}],{"a":[]}]',
    '{"":1,"a":2,"b":{"a":3},"é":null,"\\n":[]}',
    orjson.dumps({str(n): n for n in range(32)}).decode(),
    orjson.dumps(nested(64)).decode(),
]
#: Valid JSON in another form, and its canonical form.
REWRITTEN = {
    " 1": "1",
    "1\n": "1",
    "[1, 2]": "[1,2]",
    '{"a": 1}': '{"a":1}',
    "-0": "0",
    "1e2": "100.0",
    "1E2": "100.0",
    "1.50": "1.5",
    "0.00001": "0.00001",
    "0.0000001": "1e-7",
    "0.1000000000000000055511151231257827": "0.1",
    "1234567890123456.7": "1234567890123456.8",
    r'"\/"': '"/"',
    r'"\u0041"': '"A"',
    r'"\u001F"': r'"\u001f"',
    r'"\u0008\u0009\u000a\u000c\u000d"': r'"\b\t\n\f\r"',
    r'"\ud83d\ude00"': '"😀"',
    r'{"\u0061":1}': '{"a":1}',
    orjson.dumps({str(n): n for n in range(33)}).decode(): orjson.dumps({str(n): n for n in range(33)}).decode(),
}
REFUSED = [
    b"",
    b" ",
    b"nul",
    b"nulll",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"[NaN]",
    b"1e999",
    b"01",
    b"-",
    b"-01",
    b"+1",
    b".5",
    b"1.",
    b"1.e2",
    b"1e",
    b"0x1",
    b"1 2",
    b"1,2",
    b"[1",
    b"1]",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"{",
    b'{"a"}',
    b'{"a":}',
    b'{"a":1,}',
    b'{"a":1"b":2}',
    b"{1:2}",
    b"{'a':1}",
    b'"',
    b'"a',
    b'"a\nb"',
    b'"a\x00b"',
    rb'"\"',
    rb'"\x41"',
    rb'"\u00"',
    rb'"\u00g0"',
    rb'"\ud800"',
    rb'"\ude00\ud83d"',
    b'"\x80"',
    b'"\xc0\x80"',
    b'"\xc1\xbf"',
    b'"\xc3"',
    b'"\xe0\x9f\xbf"',
    b'"\xe2\x82"',
    b'"\xed\xa0\x80"',
    b'"\xf0\x8f\xbf\xbf"',
    b'"\xf0\x9f\x98"',
    b'"\xf4\x90\x80\x80"',
    b'"\xf5\x80\x80\x80"',
    b'"\xff"',
    b'\xef\xbb\xbf"a"',
    b"18446744073709551616",
    b"-9223372036854775809",
    b"1" * 5000,
    b'{"a":1,"a":1}',
    b'{"a":1,"b":2,"a":3}',
    rb'{"a":1,"\u0061":2}',
    b'[{"x":{"\xc3\xa9":1,"\xc3\xa9":2}}]',
    orjson.dumps({str(n): n for n in range(40)})[:-1] + b',"0":0}',
    orjson.dumps(nested(65)),
    b"[" * 65 + b"]" * 65,
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
]

texts = JSON.map(orjson.dumps)
#: Texts that resemble JSON; some of them are valid.
LIKE_JSON = st.recursive(
    st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.from_regex(r'"([a-zé😀/ ]|\\["\\/bfnrtu]|\\u00[01][0-9a-fA-F]|\\u[0-9a-fA-F]{4}){0,4}"', fullmatch=True)
    | st.sampled_from(["true", "false", "null", "NaN", "tru", "", "-", '"', '"a"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '""', "1"]), inner), max_size=3).map(
            lambda items: f"{{{','.join(f'{key}:{value}' for key, value in items)}}}"
        )
        | inner.map(lambda text: f" {text}")
    ),
    max_leaves=6,
).map(str.encode)


def result_of(core: Any, text: bytes) -> tuple[Any, ...]:
    try:
        result = core.json_value(text)
    except InvalidValueError as error:
        return InvalidValueError, str(error)
    return type(result), result


@pytest.fixture
def alone(compiled: Any) -> Iterator[Any]:
    """The compiled core without its counterpart: the test fails if it calls the pure core."""
    with mock.patch.object(json_py, "json_value", side_effect=AssertionError("the counterpart was called")):
        yield compiled


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_json_is_returned_unaltered(core: Any, text: str) -> None:
    assert orjson.dumps(orjson.loads(text)) == text.encode()
    value = core.json_value(text.encode())
    assert value == text.encode()
    assert type(value) is core.JSONBytes


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_json_is_recognised_without_being_decoded(alone: Any, text: str) -> None:
    assert alone.json_value(text.encode()) == text.encode()


@pytest.mark.parametrize(("text", "rewritten"), REWRITTEN.items())
def test_json_in_another_form_is_rewritten(core: Any, text: str, rewritten: str) -> None:
    assert core.json_value(text.encode()) == rewritten.encode()


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_text_that_is_not_json_or_cannot_round_trip_is_refused(core: Any, text: bytes) -> None:
    with pytest.raises(InvalidValueError):
        core.json_value(text)


@pytest.mark.parametrize("text", ["1", None, 1, bytearray(b"1")])
def test_text_is_bytes(core: Any, text: Any) -> None:
    with pytest.raises(TypeError, match="must be bytes"):
        core.json_value(text)


def test_an_encoder_stores_json_bytes_as_plain_bytes(core: Any) -> None:
    value = core.json_value(b"[1]")
    for encoded in (
        core.encode_value(value),
        core.Encoder().value(value),
        core.Encoder(core.KeySpace("!")).records([b'["a",[1]]'])[0][1],
    ):
        assert (type(encoded), encoded) == (bytes, b"[1]")


def test_a_repeated_key_is_named(core: Any) -> None:
    with pytest.raises(InvalidValueError, match="the key 'b' twice"):
        core.json_value(b'{"a":1,"b":2,"b":3}')


@pytest.mark.parametrize(
    "line",
    [b'{"key":"a","value":[1]}', b'{"key":"a","value":[1]}\n', b'{"key":"a","value":[1]} \t\r\n'],
)
def test_a_line_as_dump_writes_it_is_not_decoded(alone: Any, line: bytes) -> None:
    assert alone.json_line(line) == ("a", b"[1]")


@given(key=st.text(), value=JSON)
def test_every_line_that_dump_writes_gives_its_key_and_its_value(core: Any, key: str, value: Any) -> None:
    pair = core.json_line(orjson.dumps({"key": key, "value": value}))
    assert pair == (key, orjson.dumps(value))
    assert type(pair[1]) is core.JSONBytes


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"key":1,"value":1}',
        b'{"key":"a"}',
        b'{"key":"a","value":}',
        b'{"key":"a","value":1',
        b'{"key":"a","value":1}}',
        b'{"key":"a","value":1}1',
        b'{"key":"a","value":1,"more":2}',
        b'{"key":"a","value":NaN}',
        b'{"key":"\xff","value":1}',
        b'{"key":"a","value":{"b":1,"b":2}}',
        b'{"key": "a","value":1}',
        b'{"value":1,"key":"a"}',
    ],
)
def test_a_line_in_another_form_is_left_to_a_json_decoder(core: Any, line: bytes) -> None:
    assert core.json_line(line) is None


@given(line=st.builds(lambda key, value: orjson.dumps({"key": key, "value": value}), st.text(), JSON))
def test_both_cores_read_every_truncated_line_alike(compiled: Any, pure: Any, line: bytes) -> None:
    for end in range(len(line)):
        assert compiled.json_line(line[:end]) == pure.json_line(line[:end])


@given(value=JSON)
def test_every_storable_value_is_returned_unaltered(compiled: Any, pure: Any, value: Any) -> None:
    text = orjson.dumps(value)
    assert compiled.json_value(text) == pure.json_value(text) == text


@given(value=JSON)
def test_json_of_other_encoders_is_rewritten_to_canonical_form(core: Any, value: Any) -> None:
    assert core.json_value(json.dumps(value).encode()) == orjson.dumps(value)


def compare(one: Any, other: Any) -> None:
    """Fail unless both cores return the same for every text that resembles JSON."""

    @settings(max_examples=examples(150), database=None)
    @given(text=LIKE_JSON)
    def agree(text: bytes) -> None:
        assert result_of(one, text) == result_of(other, text)

    agree()


@pytest.mark.hypothesis
def test_both_cores_accept_the_same_texts(compiled: Any, pure: Any) -> None:
    compare(compiled, pure)


def test_the_comparison_finds_a_core_that_does_not_rewrite(pure: Any) -> None:
    def accept(text: bytes) -> Any:
        pure.json_value(text)
        return pure.JSONBytes(text)

    with pytest.raises(AssertionError):
        compare(SimpleNamespace(json_value=accept), pure)


@settings(max_examples=examples(50))
@given(text=texts, data=st.data())
def test_both_cores_treat_every_deformed_text_alike(compiled: Any, pure: Any, text: bytes, data: Any) -> None:
    at = data.draw(st.integers(0, len(text)))
    byte = data.draw(st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"0", b",", b"]", b"}", b" ", b"e", b"."]))
    deformed = text[:at] + byte + text[at + data.draw(st.integers(0, 2)) :]
    assert result_of(compiled, deformed) == result_of(pure, deformed)


@given(text=texts)
def test_both_cores_treat_every_truncated_text_alike(compiled: Any, pure: Any, text: bytes) -> None:
    for end in range(len(text)):
        assert result_of(compiled, text[:end]) == result_of(pure, text[:end])


def test_plain_decimals_are_their_own_shortest_form(alone: Any) -> None:
    rng = random.Random(1)
    for _ in range(20_000):
        digits = f"{rng.randrange(10**13, 10**14)}{rng.randint(1, 9)}"[rng.randint(0, 12) :]
        point = rng.randint(1, len(digits) - 1)
        text = f"{int(digits[:point])}.{digits[point:]}".encode()
        if float(text) >= 0.0001:
            assert orjson.dumps(float(text)) == text
            assert alone.json_value(text) == text


# ------------------------------------------------------------------------------------ long texts

COUNT = 40_000
LONG = {
    "spaces": b"[ " + b"[]," * COUNT + b"[]]",
    "escapes": b"[" + b'"\\/",' * COUNT + b"1]",
    "numbers": b"[" + b"1E5," * COUNT + b"1]",
    "keys": b"{" + b",".join(b'"%d": 1' % number for number in range(COUNT)) + b"}",
    "records": b"[" + b'{"a":1},' * COUNT + b" 1]",
}


def peak_of(call: Any) -> int:
    """The bytes of Python's memory that a call takes at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", LONG)
def test_a_long_text_in_another_form_is_rewritten(core: Any, form: str) -> None:
    assert core.json_value(LONG[form]) == orjson.dumps(orjson.loads(LONG[form]))


@pytest.mark.parametrize("form", sorted(LONG.keys() - {"keys"}))
def test_a_long_text_is_rewritten_without_being_decoded(alone: Any, form: str) -> None:
    text = LONG[form]
    value = orjson.dumps(orjson.loads(text))
    assert peak_of(lambda: alone.json_value(text)) < 3 * len(value) < peak_of(lambda: orjson.loads(text))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (b"[", b'{"a":1,"b":2,"a":3}]', "the key 'a' twice"),
        (b"[", b'{"\\u0061":1,"a":3}]', "the key 'a' twice"),
        (b"[", b"[" * 64 + b"]" * 65, "more than 64 containers"),
        (b"[", b"1", "byte 120002 begins"),
        (b"[", b"nul]", "byte 120001 begins"),
        (b"[", b"1]1", "byte 120003 begins"),
        (b"[", b"18446744073709551616]", "byte 120001 begins"),
        (b"[", b"1e999]", "byte 120001 begins"),
        (b"[", b'"\\ud800"]', "byte 120001 begins"),
        (b"[", b'"', "byte 120001 begins"),
        (b'{"a":[', b'1],"\\u0061":1}', "the key 'a' twice"),
    ],
)
def test_a_fault_in_a_long_text_is_found_without_decoding_it(
    alone: Any, pure: Any, start: bytes, end: bytes, message: str
) -> None:
    text = start + b"[]," * COUNT + end
    with pytest.raises(InvalidValueError, match=message):
        alone.json_value(text)
    with pytest.raises(InvalidValueError):
        pure.Encoder().value(pure.json_value(text))


def test_a_fault_in_a_long_object_is_found_by_its_name(core: Any) -> None:
    with pytest.raises(InvalidValueError, match="the key '123' twice"):
        core.json_value(LONG["keys"][:-1] + b',"123":1}')


def test_a_record_of_a_long_value_is_encoded_without_decoding_it(alone: Any) -> None:
    encoder = alone.Encoder(alone.KeySpace("!"))
    record = b'[ "\\u0061" , %b ]' % LONG["spaces"]
    assert encoder.records([record]) == [(b"a", LONG["spaces"].replace(b" ", b""))]
    for too_long in (b"[]," * (2 << 20), b" [ ]," * (2 << 20)):
        with pytest.raises(ProtocolError, match="change 0: the value takes 6291459 bytes of JSON, and at most 4194304"):
            encoder.records([b'["a",[%b1]]' % too_long])


def test_the_pure_core_refuses_a_value_that_is_too_long_without_decoding_it(pure: Any) -> None:
    record = b'["a",[%b1]]' % (b"[ ]," * (2 << 20))
    with (
        mock.patch.object(batch_py, "json_value", side_effect=AssertionError("it was decoded")),
        pytest.raises(ProtocolError, match="change 0: the value takes more than 4194304 bytes"),
    ):
        pure.Encoder(pure.KeySpace("!")).records([record])


@pytest.mark.parametrize("escape", [b"\\\\", b'\\"', b"\\n"])
def test_a_string_of_many_escapes_takes_little_memory(core: Any, escape: bytes) -> None:
    text = b'"%b"' % (escape * 100_000)
    calls: list[Callable[[], Any]] = [
        lambda: core.split_record(b"[%b, 1]" % text),
        lambda: core.json_line(b'{"key":%b,"value":1} ' % text),
        lambda: core.split_items(b"[%b]" % text, b"[]", 9),
        lambda: core.count_nodes(text),
    ]
    for call in calls:
        assert call() is not None
        assert peak_of(call) < 25 * len(text)  # orjson reserves 16 times the size of a text


def nodes_of(value: Any) -> int:
    """The values and keys in a decoded document."""
    if isinstance(value, dict):
        return 1 + sum(1 + nodes_of(item) for item in value.values())
    return 1 + sum(map(nodes_of, value)) if isinstance(value, list) else 1


@settings(max_examples=examples(30))
@given(value=JSON, indented=st.booleans())
def test_nodes_bound_the_values_of_a_document_and_its_canonical_size(core: Any, value: Any, indented: bool) -> None:
    canonical = orjson.dumps(value)
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2) if indented else canonical
    assert nodes_of(orjson.loads(text)) <= core.count_nodes(text) <= len(canonical)


@settings(max_examples=examples(30))
@given(values=st.lists(JSON, max_size=3), indented=st.booleans())
def test_items_are_those_of_the_decoded_array_or_object(core: Any, values: list[Any], indented: bool) -> None:
    option = orjson.OPT_INDENT_2 if indented else None
    items = core.split_items(orjson.dumps(values, option=option), b"[]", 5)
    assert orjson.dumps([*map(orjson.loads, items)]) == orjson.dumps(values)
    members = {f'"{number},': value for number, value in enumerate(values)}
    items = core.split_items(orjson.dumps(members, option=option), b"{}", 5)
    assert orjson.loads(b"{%b}" % b",".join(items)) == orjson.loads(orjson.dumps(members))


@pytest.mark.parametrize(
    ("text", "limit", "items"),
    [
        (b" [ 1 , [2, 3] ] ", 2, [b"1", b"[2, 3]"]),
        (b"[]", 0, []),
        (b"[1,2]", 1, None),
        (b"[1,]", 9, None),
        (b"[,]", 9, None),
        (b"[1", 9, None),
        (b"1", 9, None),
        (b"{}", 9, None),
        (b"[1]]", 9, None),
        (b"[[1]", 9, None),
        (b'["]', 9, None),
        (b'["\\"]', 9, None),
        (b'["\\\\"]', 9, [b'"\\\\"']),
        (b"", 9, None),
        (b"[", 9, None),
        (b"[1,2,3]", 2**70, [b"1", b"2", b"3"]),
    ],
)
def test_an_array_is_split_only_if_its_brackets_match(core: Any, text: bytes, limit: int, items: Any) -> None:
    assert core.split_items(text, b"[]", limit) == items
