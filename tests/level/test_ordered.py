"""`ordered`: the order of the keys is the order of the tuples, and nothing else decodes."""

from __future__ import annotations

import enum
import math
import struct
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treehub_level import DecodeError, InvalidKeyError, Level, Mode, blocking, ordered

pytestmark = pytest.mark.once

ZONES = st.sampled_from([timezone.utc, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-12))])
LONG = 10**300
#: Values of each type, in the order of the letters of the types.
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "0": st.none(),
    "b": st.booleans(),
    "d": st.dates(),
    "f": st.floats(allow_nan=False),
    "i": st.integers() | st.integers(-100, 100) | st.integers(-LONG, LONG) | st.integers(0, 400).map(lambda n: 10**n),
    "l": st.datetimes(),
    "s": st.text(max_size=40) | st.text("\0\x01 !\"#$%&'09Aa~\x7f\x80", max_size=5),
    "t": st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES),
    "u": st.uuids(allow_nil=True),
    "x": st.binary(max_size=40),
}
ELEMENTS = st.one_of(*KINDS.values())
TUPLES = st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple)


def rank(value: Any) -> tuple[str, Any]:
    """The place of a value in the order of elements, by the values alone."""
    letter = str(ordered.letter_of(value))
    if letter == "f":
        return letter, (value, math.copysign(1, value))  # -0.0 comes before 0.0
    return letter, 0 if value is None else value


def ranks(values: Any) -> list[tuple[str, Any]]:
    return [rank(value) for value in values]


def same(left: Any, right: Any) -> bool:
    """True if two values are equal and of one type, and zeros have one sign."""
    if isinstance(left, float):
        return type(right) is float and struct.pack(">d", left) == struct.pack(">d", right)
    return bool(left == right) and type(left) is type(right)


@given(TUPLES)
def test_a_tuple_is_decoded_as_it_was(values: Any) -> None:
    decoded = ordered.decode(ordered.encode(values))
    assert len(decoded) == len(values)
    assert all(map(same, decoded, values))


@pytest.mark.parametrize("letter", KINDS)
def test_keys_are_ordered_like_the_values_of_a_type(letter: str) -> None:
    @given(KINDS[letter], KINDS[letter])
    def check(left: Any, right: Any) -> None:
        keys = ordered.encode((left,)).encode(), ordered.encode((right,)).encode()
        assert (keys[0] < keys[1]) == (rank(left) < rank(right))
        assert (keys[0] == keys[1]) == (rank(left) == rank(right))

    check()


@given(TUPLES, TUPLES, st.integers(0, 4))
def test_keys_are_ordered_like_the_tuples(left: Any, right: Any, common: int) -> None:
    right = left[:common] + right
    keys = ordered.encode(left).encode(), ordered.encode(right).encode()
    assert (keys[0] < keys[1]) == (ranks(left) < ranks(right))
    assert ordered.encode(left).encode()[0] >= ord("0")


@given(TUPLES, TUPLES)
def test_a_prefix_begins_the_keys_of_the_longer_tuples_and_no_others(left: Any, right: Any) -> None:
    assert ordered.encode(left + right).startswith(ordered.prefix(left))
    assert ordered.encode(left).startswith(ordered.prefix(left))
    begins = ranks(right[: len(left)]) == ranks(left)
    assert ordered.encode(right).startswith(ordered.prefix(left)) == begins


HOSTILE = st.text(max_size=30) | st.text("!%0123456789ABFTZabdfilstuxz-:.T", max_size=12).map(lambda text: f"{text}!")
ALTERED = st.tuples(TUPLES.map(ordered.encode), st.integers(0, 60), st.characters(), st.integers(0, 1)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + drawn[3] :]
)


@given(HOSTILE | ALTERED)
def test_a_key_is_decoded_only_if_it_is_the_key_of_its_tuple(key: str) -> None:
    try:
        values = ordered.decode(key)
    except DecodeError:
        return
    assert ordered.encode(values) == key


def test_the_sign_of_zero_and_the_infinities_have_their_places() -> None:
    values = [-math.inf, -1.5, -5e-324, -0.0, 0.0, 5e-324, 1.5, math.inf]
    keys = [ordered.encode((value,)) for value in values]
    assert keys == sorted(keys)
    assert len({*keys}) == len(keys)


def test_an_aware_datetime_is_its_instant_and_comes_back_in_utc() -> None:
    there = datetime(2026, 11, 30, 21, tzinfo=timezone(timedelta(hours=1)))
    assert ordered.encode((there,)) == ordered.encode((datetime(2026, 11, 30, 20, tzinfo=timezone.utc),))
    (decoded,) = ordered.decode(ordered.encode((there,)))
    assert decoded == there
    assert decoded.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "values",
    [
        (),
        (math.nan,),
        ("\ud800",),
        ("a" * 1023,),
        (10**1100,),
        (-(1 << 50000),),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))),),
    ],
    ids=range(8),
)
def test_a_tuple_without_a_key_is_refused(values: Any) -> None:
    with pytest.raises(InvalidKeyError):
        ordered.encode(values)


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "values", ["JP", ["JP"], None, 5, (Decimal(1),), ([],), ((1,),), (object(),), (Color.RED,), (bytearray(b"a"),)]
)
def test_another_type_is_a_type_error(values: Any) -> None:
    with pytest.raises(TypeError):
        ordered.encode(values)
    with pytest.raises(TypeError):
        ordered.prefix(values)


def test_decoding_another_type_is_a_type_error() -> None:
    for key in (b"sJP!", None, 5):
        with pytest.raises(TypeError):
            ordered.decode(key)  # type: ignore[arg-type]


def test_the_prefix_of_no_elements_is_empty() -> None:
    assert ordered.prefix(()) == ""


@pytest.mark.parametrize("prefix", ["!", "/", "!/"])
def test_every_mode_and_metadata_prefix_takes_the_longest_and_the_lowest_key(prefix: str, mode: Mode) -> None:
    keys = [ordered.encode(values) for values in [(None,), (b"",), ("a" * 1022,), ("\0" * 340,), ("😀" * 255,)]]
    with blocking.Level("store", backend="memory", mode=mode, prefix=prefix) as level:
        level.load((key, 1) for key in keys)
        assert level.keys() == sorted(keys)
        assert ordered.decode(next(iter(level))) == (None,)


async def test_a_range_of_a_level_is_a_range_of_tuples(mode: Mode) -> None:
    rows: list[tuple[Any, ...]] = [("JP", n) for n in (-10, -9, 0, 5, 10, 200)] + [("JPX", 0), ("", 1)]
    async with Level("store", backend="memory", mode=mode) as level:
        await level.load((ordered.encode(row), row[1]) for row in rows)
        assert await level.values(prefix=ordered.prefix(("JP",))) == [-10, -9, 0, 5, 10, 200]
        assert await level.values(gte=ordered.encode(("JP", 0)), lt=ordered.encode(("JP", 200))) == [0, 5, 10]
