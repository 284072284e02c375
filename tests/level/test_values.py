"""Values that are read back equal, and the refusal of all others."""

import datetime
import decimal
import enum
import math
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import Stores

from treehub_level import DecodeError, InvalidValueError, Level, LevelError, Mode


@pytest.fixture
async def store(stores: Stores, mode: Mode) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=mode)


def nested(depth: Any) -> Any:
    """Return containers nested to the given depth."""
    value: Any = []
    for n in range(depth - 1):
        value = [value] if n % 2 else {"a": value}
    return value


FAITHFUL = {
    "None": None,
    "True": True,
    "False": False,
    "zero": 0,
    "the least int": -(2**63),
    "the greatest int": 2**64 - 1,
    "an int beyond what floats hold": 2**53 + 1,
    "a float": 0.1,
    "a whole float": 1.0,
    "minus zero": -0.0,
    "the greatest float": 1.7976931348623157e308,
    "the least float": 5e-324,
    "an empty str": "",
    "NUL": "\x00",
    "control characters": "\x01\x1f\x7f\n\t\r\b\f",
    "quotes and backslashes": '"\\/',
    "what JavaScript stumbles over": "\u2028\u2029",
    "the end of the plane": "\uffff\ufffe",
    "emoji": "👩‍👩‍👧‍👦",
    "a long str": "é" * 100_000,
    "an empty list": [],
    "an empty dict": {},
    "a list of all kinds": [None, True, 1, 1.5, "x", [], {}],
    "odd dict keys": {"": 1, "\x00": 2, "!": 3, "é": 4, "😀": 5, "a b": 6, '"': 7},
    "dict order": {"z": 1, "a": 2, "m": 3},
    "the greatest depth": nested(64),
    "many items": list(range(10_000)),
}


@pytest.mark.parametrize("what", FAITHFUL)
async def test_json_values_are_read_back_equal_and_of_the_same_type(server: Any, what: str) -> None:
    value = FAITHFUL[what]
    await server.put("key", value)
    got = await server.get("key")
    assert got == value
    assert repr(got) == repr(value)
    assert await server.values() == [value]


class Color(enum.IntEnum):
    RED = 1


class Shade(enum.Enum):
    DARK = 1


class Name(str):
    pass


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({"a": ()}, {"a": []}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Color.RED, 1),
        (Name("x"), "x"),
    ],
    ids=repr,
)
async def test_tuples_are_stored_as_lists_and_subclasses_as_their_base_types(
    store: Any, value: Any, stored: Any
) -> None:
    await store.put("key", value)
    assert await store.get("key") == stored


@dataclass
class Record:
    a: int = 1


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


REFUSED = {
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "an int of 65 bits": 2**64,
    "an int below 64 bits": -(2**63) - 1,
    "an int key": {1: "a"},
    "a None key": {None: "a"},
    "a bool key": {True: "a"},
    "a float key": {1.5: "a"},
    "a tuple key": {("a",): 1},
    "a set": {1, 2},
    "a frozenset": frozenset(),
    "bytes": b"a",
    "a bytearray": bytearray(b"a"),
    "a complex number": 1j,
    "a decimal": decimal.Decimal("1.5"),
    "a datetime": datetime.datetime(2020, 1, 1),
    "a date": datetime.date(2020, 1, 1),
    "a UUID": uuid.UUID(int=0),
    "a dataclass": Record(),
    "an enum": Shade.DARK,
    "a function": len,
    "an object": object(),
    "a generator": (n for n in range(3)),
    "a range": range(3),
    "a lone surrogate": "\ud800",
    "a lone surrogate in a dict key": {"\udfff": 1},
    "a depth of 65": nested(65),
    "a depth of 2000": nested(2000),
    "a list that holds itself": cyclic(),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_value_that_json_cannot_round_trip_is_refused_at_any_depth(
    stores: Stores, level: Any, what: str
) -> None:
    await level.put("before", 1)
    before = await stores.bytes_of(level)

    for value in (REFUSED[what], [REFUSED[what]], {"deep": {"er": [REFUSED[what]]}}):
        with pytest.raises(InvalidValueError) as caught:
            await level.put("key", value)
        assert caught.value.code == "LEVEL_INVALID_VALUE"
        assert isinstance(caught.value, ValueError)

    assert await stores.bytes_of(level) == before


async def test_the_error_names_the_value_and_its_path(store: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"\$\.a\[1\]"):
        await store.put("key", {"a": [1, math.nan]})


LIMIT = 4 * 1024 * 1024


@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_modes_that_synchronise_take_values_of_up_to_4_mebibytes(stores: Stores, sync_mode: Mode) -> None:
    level = await stores.open("store", mode=sync_mode)
    await level.put("most", "x" * (LIMIT - 2))
    with pytest.raises(InvalidValueError, match="4194304"):
        await level.put("more", "x" * (LIMIT - 1))
    with pytest.raises(InvalidValueError):
        await level.put("more", "é" * (LIMIT // 2))
    assert await level.keys() == ["most"]


async def test_a_plain_store_takes_larger_values(level: Any) -> None:
    value = "x" * (LIMIT + 1)
    await level.put("large", value)
    assert await level.get("large") == value


# --------------------------------------------------------------------------------------------- keys


ANY_KEYS = [
    "",
    "\x00",
    " ",
    "!",
    "!1",
    "a",
    "\x7f",
    "é",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "😀",
    "\U0010ffff",
    "k" * 300_000,
]


async def test_a_plain_store_holds_any_key_in_order(level: Any) -> None:
    await level.load((key, len(key)) for key in reversed(ANY_KEYS))
    assert await level.keys() == sorted(ANY_KEYS)
    for key in ANY_KEYS:
        assert await level.get(key) == len(key)


@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_modes_that_synchronise_hold_keys_from_the_successor_of_the_prefix_on(
    stores: Stores, sync_mode: Mode
) -> None:
    level = await stores.open("store", mode=sync_mode)
    keys = ['"', '"!', "#", "0", "1", "a", "é", "\uffff", "😀", "\U0010ffff", "k" * 1024, "é" * 512]
    await level.load((key, 1) for key in keys)
    assert await level.keys() == sorted(keys)


@pytest.mark.parametrize("prefix", ["/", "!/", "#"])
async def test_the_first_legal_key_is_the_successor_of_the_prefix(stores: Stores, prefix: str) -> None:
    level = await stores.open("store", mode=Level.SERVER, prefix=prefix)
    first = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    await level.put(first, 1)
    for key in (prefix, prefix + "\U0010ffff", "\x00", prefix[:-1] + chr(ord(prefix[-1]) - 1) + "z"):
        with pytest.raises(LevelError):
            await level.put(key, 1)
    assert await level.keys() == [first]


# ------------------------------------------------------------------------- stored by other programs


@pytest.mark.parametrize("stored", [b"", b"{", b"nan", b"\xff", b"'a'", b"[1,]"], ids=repr)
async def test_the_error_for_stored_bytes_that_are_not_json_names_the_key(stores: Stores, stored: Any) -> None:
    stores.seed("store", [(b"good", b"1"), (b"the key", stored)])
    level = await stores.open("store")

    for read in (level.get("the key"), level.get_many(["the key"]), level.query(), level.values()):
        with pytest.raises(DecodeError, match="the key") as caught:
            await read
        assert caught.value.code == "LEVEL_DECODE"
    with pytest.raises(DecodeError, match="the key"):
        async for _ in level.scan():
            pass
    assert await level.get("good") == 1
    assert await level.keys() == ["good", "the key"]


async def test_the_error_for_a_stored_key_that_is_not_utf8_names_it(stores: Stores) -> None:
    stores.seed("store", [(b"\xff\xfe", b"1"), (b"a", b"1")])
    level = await stores.open("store")
    with pytest.raises(DecodeError, match="xff"):
        await level.keys()
    with pytest.raises(DecodeError):
        await level.query()
    assert await level.get("a") == 1


async def test_any_valid_json_is_read(stores: Stores) -> None:
    stores.seed("store", [(b"a", b' { "x" : [ 1 , "\\u00e9" ] } ')])
    level = await stores.open("store")
    assert await level.get("a") == {"x": [1, "é"]}


# -------------------------------------------------------------------------------------------- model


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json)
async def test_any_json_value_is_read_back_equal(level: Any, value: Any) -> None:
    await level.put("key", value)
    assert repr(await level.get("key")) == repr(value)
