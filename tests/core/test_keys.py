"""Keys: change ids in numeric order, bounds of ranges, and the layout of a store."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treehub_level.errors import DecodeError, InvalidKeyError

pytestmark = pytest.mark.once

MAX_CID = 2**53 - 1
CIDS = st.integers(1, MAX_CID) | st.integers(0, 15).flatmap(lambda n: st.integers(10**n, 10**n + 1))
#: Every key of at most two bytes out of three: the least byte, one in the middle, the greatest.
FEW_KEYS = [bytes(key) for size in range(3) for key in product((0x00, 0x61, 0xFF), repeat=size)]


def test_a_change_id_is_stored_as_the_golden_table_says(core: Any, golden: Any) -> None:
    for cid, key in golden["cid_keys"]:
        assert core.cid_key(cid) == key.encode()
        assert core.parse_cid_key(key.encode()) == cid


def test_a_key_that_is_not_that_of_a_change_id_is_refused(core: Any, golden: Any) -> None:
    for key in golden["refused_cid_keys"]:
        with pytest.raises(ValueError, match="is not the key of a change id"):
            core.parse_cid_key(key.encode())


@given(first=CIDS, second=CIDS)
def test_the_order_of_stored_change_ids_is_numeric(core: Any, first: int, second: int) -> None:
    assert (core.cid_key(first) < core.cid_key(second)) == (first < second)
    assert core.parse_cid_key(core.cid_key(first)) == first


@given(key=st.binary(max_size=18) | st.from_regex(rb"[0-9:-J][0-9]{0,17}", fullmatch=True))
def test_every_key_that_parses_is_the_key_of_its_change_id(core: Any, key: bytes) -> None:
    try:
        cid = core.parse_cid_key(key)
    except ValueError:
        return
    assert core.cid_key(cid) == key


@pytest.mark.parametrize("cid", [True, 1.0, "1", None, b"1"])
def test_a_change_id_of_another_type_is_a_type_error(core: Any, cid: Any) -> None:
    with pytest.raises(TypeError, match="a change id must be an int, not"):
        core.cid_key(cid)


@pytest.mark.parametrize("cid", [0, -1, MAX_CID + 1, 2**64, -(2**64), pytest.param(10**5000, id="huge")])
def test_a_change_id_out_of_range_is_a_value_error(core: Any, cid: int) -> None:
    with pytest.raises(ValueError, match="a change id lies between 1 and 9007199254740991"):
        core.cid_key(cid)


@given(first=st.text(), second=st.text())
def test_the_order_of_stored_keys_is_that_of_str(core: Any, first: str, second: str) -> None:
    assert (core.encode_key(first) < core.encode_key(second)) == (first < second)
    assert core.decode_key(core.encode_key(first)) == first


def test_a_lone_surrogate_is_refused_with_its_index(core: Any) -> None:
    with pytest.raises(InvalidKeyError, match=r"the key 'ab\\ud800' holds a lone surrogate at index 2"):
        core.encode_key("ab\ud800")


def test_a_stored_key_that_is_not_utf8_is_named(core: Any) -> None:
    with pytest.raises(DecodeError, match=r"the stored key 'a\\\\xff' is not UTF-8: invalid start byte at byte 1"):
        core.decode_key(b"a\xff")


def test_the_successor_is_the_least_key_above_all_that_start_so(core: Any) -> None:
    for prefix in FEW_KEYS:
        above = [key for key in FEW_KEYS if key > prefix and not key.startswith(prefix)]
        stop = core.successor(prefix)
        assert [key for key in FEW_KEYS if stop is not None and key >= stop] == above
        if stop is not None:
            assert stop > prefix + b"\xff" * 9


def test_a_prefix_of_the_greatest_bytes_has_no_successor(core: Any) -> None:
    assert core.successor(b"") is None
    assert core.successor(b"\xff\xff") is None
    assert core.successor(b"a\xff") == b"b"


BOUNDS = st.none() | st.sampled_from(FEW_KEYS)


@given(gt=BOUNDS, gte=BOUNDS, lt=BOUNDS, lte=BOUNDS, prefix=BOUNDS, minimum=BOUNDS)
def test_a_range_holds_the_keys_that_meet_every_condition(
    core: Any,
    gt: bytes | None,
    gte: bytes | None,
    lt: bytes | None,
    lte: bytes | None,
    prefix: bytes | None,
    minimum: bytes | None,
) -> None:
    def meets_all(key: bytes) -> bool:
        return (
            (gt is None or key > gt)
            and (gte is None or key >= gte)
            and (lt is None or key < lt)
            and (lte is None or key <= lte)
            and (prefix is None or key.startswith(prefix))
            and (minimum is None or key >= minimum)
        )

    start, stop = core.range_bounds(gt, gte, lt, lte, prefix, minimum)
    in_range = [key for key in FEW_KEYS if (start is None or key >= start) and (stop is None or key < stop)]
    assert in_range == [key for key in FEW_KEYS if meets_all(key)]


def test_the_layout_of_a_store_is_that_of_the_format(core: Any, golden: Any) -> None:
    expected = golden["key_space"]
    space = core.KeySpace(expected["prefix"])
    assert {name: getattr(space, name).decode() for name in expected} == expected
    assert space.log_key(12) == b"!:12"
    assert space.dirty_key("é".encode()) == "!é".encode()
    assert space.own_key("store") == b"!!store"


@given(prefix=st.text("!\"#$%&'()*+,-./", min_size=1, max_size=3), cid=CIDS, name=st.text(max_size=3))
def test_log_dirty_set_own_records_and_user_keys_never_overlap(core: Any, prefix: str, cid: int, name: str) -> None:
    space = core.KeySpace(prefix)
    user_key = space.user_start + name.encode()
    assert space.prefix < space.own_key(name) < space.log_start
    assert space.log_start <= space.log_key(cid) < space.log_stop
    assert space.prefix < space.dirty_start <= space.dirty_key(user_key) < space.dirty_stop <= user_key
    assert space.parse_log_key(space.log_key(cid)) == cid


def test_a_key_of_another_prefix_is_not_a_log_key(core: Any) -> None:
    with pytest.raises(ValueError, match="is not a log key"):
        core.KeySpace("!").parse_log_key(b"#1")


def test_the_rows_of_a_log_are_parsed_at_once(core: Any) -> None:
    space = core.KeySpace("!")
    rows = [(space.log_key(cid), b'["a",%d]' % cid) for cid in (1, 9, 10, 1000, core.MAX_CID)]
    assert space.parse_log_rows(rows) == [(space.parse_log_key(key), record) for key, record in rows]
    assert space.parse_log_rows([]) == []
    with pytest.raises(ValueError, match="not a log key"):
        space.parse_log_rows([*rows, (b"#1", b"[]")])


@pytest.mark.parametrize("prefix", ["", " ", "0", "!0", "a", "é", "\x00", "!\x7f"])
def test_a_prefix_outside_its_range_is_refused(core: Any, prefix: str) -> None:
    with pytest.raises(ValueError, match="is not made of one or more characters from"):
        core.KeySpace(prefix)


def test_a_prefix_must_be_a_str(core: Any) -> None:
    with pytest.raises(TypeError, match="a prefix must be a str, not bytes"):
        core.KeySpace(b"!")


@pytest.mark.parametrize("key", ['"', "#", "0", "a", "é", "😀", "a" * 1024, "é" * 512])
def test_a_legal_key_is_its_utf8(space: Any, key: str) -> None:
    assert space.check_key(key) == key.encode()


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("", "must not be empty"),
        ("!", "sorts before"),
        ("!a", "sorts before"),
        (" ", "sorts before"),
        ("\x00a", "sorts before"),
        ("a" * 1025, "has 1025 bytes of UTF-8"),
        ("é" * 513, "has 1026 bytes of UTF-8"),
        ("\udc00", "lone surrogate"),
    ],
)
def test_an_illegal_key_is_refused_with_the_reason(space: Any, key: str, fault: str) -> None:
    with pytest.raises(InvalidKeyError, match=fault):
        space.check_key(key)


def test_a_longer_prefix_moves_the_start_of_user_keys(core: Any) -> None:
    space = core.KeySpace("!/")
    assert space.user_start == b"!0"
    assert space.check_key("!0") == b"!0"
    with pytest.raises(InvalidKeyError, match="sorts before '!0'"):
        space.check_key("!")
