"""Decoding of stored rows, in bulk."""

from __future__ import annotations

import gc
from typing import Any

import orjson
import pytest
from core.values import JSON
from hypothesis import given
from hypothesis import strategies as st

from treehub_level._core_py.scan import PROMOTE_COUNT
from treehub_level.errors import DecodeError

pytestmark = pytest.mark.once


@given(items=st.lists(st.tuples(st.text(), JSON)))
def test_encoded_items_decode_to_equal_items(core: Any, items: list[tuple[str, Any]]) -> None:
    rows = core.Encoder().pairs(items)
    decoder = core.Decoder()
    assert decoder.items(rows) == items
    assert decoder.values(rows) == [value for _, value in items]
    assert decoder.keys([key for key, _ in rows]) == [key for key, _ in items]
    assert [(decoder.key(key), decoder.value(key, value)) for key, value in rows] == items


def test_the_prefix_of_a_sublevel_is_removed(core: Any) -> None:
    decoder = core.Decoder(strip=4)
    assert decoder.key("sub/é".encode()) == "é"
    assert decoder.items([(b"sub/a", b"1"), (b"sub/", b"2")]) == [("a", 1), ("", 2)]
    assert decoder.keys([b"sub/a", b"x"]) == ["a", ""]


def test_a_negative_strip_is_a_value_error(core: Any) -> None:
    with pytest.raises(ValueError, match="strip must be 0 or more bytes, not -1"):
        core.Decoder(strip=-1)


def test_raw_keys_and_values_are_returned_unaltered(core: Any) -> None:
    decoder = core.Decoder(strip=1, raw_keys=True, raw_values=True)
    assert decoder.items([(b"p\xff", b"{")]) == [(b"\xff", b"{")]
    assert decoder.values([(b"p\xff", b"{")]) == [b"{"]
    assert decoder.keys([b"p\xff"]) == [b"\xff"]
    assert core.Decoder(raw_keys=True).items([(b"\xff", b"1")]) == [(b"\xff", 1)]
    assert core.Decoder(raw_values=True).items([(b"a", b"{")]) == [("a", b"{")]


@pytest.mark.parametrize(
    "value", [b"", b"{", b"1,2", b"[1", b"1]", b"\xff", b'"\xff"', b"NaN", b"tru", b"1 2", b",", b"1,"]
)
def test_a_value_that_is_not_json_is_named_by_its_key(core: Any, value: bytes) -> None:
    rows = [(b"a", b"1"), ("ключ".encode(), value), (b"b", b"2")]
    for decode in (core.Decoder().items, core.Decoder().values):
        with pytest.raises(DecodeError, match="the value stored under 'ключ' is not JSON"):
            decode(rows)
    with pytest.raises(DecodeError, match="the value stored under 'ключ' is not JSON"):
        core.Decoder().value(*rows[1])


def test_a_key_that_is_not_utf8_is_named_by_its_bytes(core: Any) -> None:
    with pytest.raises(DecodeError, match=r"the stored key 'a\\\\xff' is not UTF-8"):
        core.Decoder().items([(b"a\xff", b"1")])
    with pytest.raises(DecodeError, match=r"the stored key 'a\\\\xff' is not UTF-8"):
        core.Decoder().keys([b"a\xff"])


def test_white_space_around_a_value_is_read(core: Any) -> None:
    assert core.Decoder().values([(b"a", b" 1\n"), (b"b", b"\t[ ] ")]) == [1, []]


# ------------------------------------------------------------------------------------------ collect


class Source:
    """A source of numbers in order that records the limit of each fetch."""

    def __init__(self, count: int) -> None:
        self.remaining = list(range(count))
        self.limits: list[int] = []

    def fetch(self, limit: int) -> list[int]:
        self.limits.append(limit)
        rows, self.remaining = self.remaining[:limit], self.remaining[limit:]
        return rows


def plain(rows: list[Any]) -> list[Any]:
    return rows


def test_without_a_limit_everything_is_fetched_chunk_by_chunk(core: Any) -> None:
    source = Source(25)
    assert core.collect(source.fetch, plain, None, None, 10) == list(range(25))
    assert source.limits == [10, 10, 10, 10]


def test_no_more_is_fetched_than_a_limit_needs(core: Any) -> None:
    source = Source(25)
    assert core.collect(source.fetch, plain, None, 12, 10) == list(range(12))
    assert source.limits == [10, 2]
    assert core.collect(source.fetch, plain, None, 0, 10) == []
    assert source.limits == [10, 2]


def test_a_limit_counts_what_the_filter_keeps_and_stops_it(core: Any) -> None:
    seen = []

    def even(number: int) -> bool:
        seen.append(number)
        return number % 2 == 0

    assert core.collect(Source(25).fetch, plain, even, 3, 10) == [0, 2, 4]
    assert seen == [0, 1, 2, 3, 4]
    assert core.collect(Source(25).fetch, plain, even, None, 10) == list(range(0, 25, 2))


def test_an_error_of_the_filter_is_raised(core: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        core.collect(Source(3).fetch, plain, lambda number: 1 / number, None, 10)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_garbage_collection_is_off_while_a_chunk_is_decoded_and_restored_afterwards(
    core: Any, enabled: bool, fails: bool
) -> None:
    during = []

    def decode(rows: list[Any]) -> list[Any]:
        during.append(gc.isenabled())
        return [1 // (0 if fails else 1)]

    def keep(result: Any) -> bool:
        during.append(gc.isenabled())
        return True

    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                core.collect(Source(1).fetch, decode, keep, None, 10)
        else:
            core.collect(Source(1).fetch, decode, keep, None, 10)
        after = gc.isenabled()
    finally:
        (gc.enable if was_enabled else gc.disable)()
    assert after is enabled
    assert during == ([False] if fails else [False, enabled])


@pytest.mark.parametrize(("count", "generation"), [(PROMOTE_COUNT - 1, 0), (PROMOTE_COUNT, 2)], ids=["few", "many"])
def test_a_large_result_is_moved_to_the_oldest_generation(core: Any, count: int, generation: int) -> None:
    gc.disable()  # so that no collection moves objects
    try:
        results = core.collect(Source(count).fetch, lambda rows: [[row] for row in rows], None, None, count)
        assert len(results) == count
        assert any(found is results[-1] for found in gc.get_objects(generation))
    finally:
        gc.enable()


def test_objects_that_the_program_has_frozen_stay_frozen(core: Any) -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        core.collect(Source(PROMOTE_COUNT).fetch, plain, None, None, PROMOTE_COUNT)
        # Some may be freed meanwhile by their last reference. Unfreezing would leave none.
        assert gc.get_freeze_count() > 0.9 * frozen > 0
    finally:
        gc.unfreeze()


def test_garbage_collection_is_off_throughout_without_a_filter(core: Any) -> None:
    during = []

    def fetch(limit: int) -> list[Any]:
        during.append(gc.isenabled())
        return source.fetch(limit)

    source = Source(3)
    assert gc.isenabled()
    assert len(core.collect(fetch, plain, None, None, 2)) == 3
    assert gc.isenabled()
    assert not any(during)


# ------------------------------------------------------------------------------------------ changes


@given(changes=st.lists(st.tuples(st.text()) | st.tuples(st.text(), JSON)))
def test_records_decode_to_plain_lists(core: Any, changes: list[tuple[Any, ...]]) -> None:
    assert core.decode_changes([orjson.dumps(change) for change in changes]) == [list(change) for change in changes]


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"[1]", b"[1,2]", b'["a",1,2]', b'{"a":1}', b"null", b'["a"],["b"]', b'["a']
)
def test_a_list_with_an_item_that_is_not_a_record_is_refused(core: Any, record: bytes) -> None:
    with pytest.raises(ValueError, match="is not a change record"):
        core.decode_changes([b'["a",1]', record])
