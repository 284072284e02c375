"""The ready-made functions that settle conflicts: `treehub_level.merge`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treehub_level import JOURNAL, MISSING, Change, Conflict, merge

pytestmark = pytest.mark.once

ATOMS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["", "a", "b"])
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy"), inner))
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)
ARRAYS = st.lists(VALUES, max_size=5)
NUMBERS = st.integers(-(2**40), 2**40)
#: The values of each kind, with the function that merges them three-way.
KINDS: list[tuple[Any, Any]] = [(merge.fields, OBJECTS), (merge.union, ARRAYS)]
UNKNOWN = object()


def conflict(local: Any, remote: Any, base: Any = UNKNOWN, key: str = "k", **facts: Any) -> Conflict:
    """Return a conflict of two values, `MISSING` for a delete."""
    known = None if base is UNKNOWN else _change(key, base)
    return Conflict(key, _change(key, local), _change(key, remote), base=known, **facts)


def _change(key: str, value: Any) -> Change:
    return Change.deletion(key) if value is MISSING else Change(key, value)


def same(one: Any, other: Any) -> bool:
    """Return True if two values are the same JSON."""
    if one is MISSING or other is MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def as_set(values: Any) -> set[str]:
    return {json.dumps(value, sort_keys=True) for value in values}


# ----------------------------------------------------------------------------------- three-way laws


@pytest.mark.parametrize(("function", "values"), KINDS)
@given(data=st.data())
def test_a_side_that_has_not_changed_gives_way(function: Any, values: Any, data: st.DataObject) -> None:
    base, changed = data.draw(values), data.draw(values | st.just(MISSING))
    assert same(function(conflict(changed, base, base)), changed)
    assert same(function(conflict(base, changed, base)), changed)


@pytest.mark.parametrize(("function", "values"), KINDS)
@given(data=st.data())
def test_equal_sides_stay_as_they_are(function: Any, values: Any, data: st.DataObject) -> None:
    value, base = data.draw(values), data.draw(values | st.just(MISSING))
    assert same(function(conflict(value, value, base)), value)


@pytest.mark.parametrize(("function", "values"), KINDS)
@given(data=st.data())
def test_a_merge_is_idempotent(function: Any, values: Any, data: st.DataObject) -> None:
    base, local, remote = data.draw(values), data.draw(values), data.draw(values)
    merged = function(conflict(local, remote, base))
    assert same(function(conflict(merged, remote, remote)), merged)
    assert as_text(function(conflict(local, merged, base))) == as_text(merged)


def as_text(value: Any) -> Any:
    """Return an array as a set, and any other value as it is."""
    return as_set(value) if isinstance(value, list) else value


@pytest.mark.parametrize("function", [merge.fields, merge.union, merge.latest("t")])
def test_deletes_are_settled_only_if_one_side_has_not_changed(function: Any) -> None:
    assert function(conflict(MISSING, {"a": 1}, {"a": 0})) is JOURNAL
    assert function(conflict({"a": 1}, MISSING, {"a": 0})) is JOURNAL
    assert function(conflict(MISSING, [1])) is JOURNAL
    assert function(conflict(MISSING, {"a": 0}, {"a": 0})) is MISSING
    assert function(conflict({"a": 0}, MISSING, {"a": 0})) is MISSING


@pytest.mark.parametrize(
    "function", [merge.server, merge.client, merge.fields, merge.union, merge.counter, merge.latest("t")]
)
def test_refused_changes_and_those_of_a_reset_go_to_the_journal(function: Any) -> None:
    assert function(conflict({"t": 1}, {"t": 2}, {"t": 0}, kind="refused", reason="no")) is JOURNAL
    assert function(Conflict("k", Change("k", 1), None, kind="reset")) is JOURNAL


# ------------------------------------------------------------------------------------------- fields


@given(OBJECTS, OBJECTS, OBJECTS)
def test_each_field_is_merged_for_itself(local: Any, remote: Any, base: Any) -> None:
    merged = merge.fields(conflict(local, remote, base))
    for name in {*local, *remote, *base}:
        mine, theirs, before, now = (side.get(name, MISSING) for side in (local, remote, base, merged))
        assert same(now, mine if same(theirs, before) else theirs)


@given(OBJECTS, OBJECTS)
def test_without_a_base_the_fields_are_united_and_the_server_wins(local: Any, remote: Any) -> None:
    assert same(merge.fields(conflict(local, remote)), local | remote)


def test_fields_keep_the_order_of_the_server() -> None:
    merged = merge.fields(conflict({"n": 1, "a": 0, "b": 1}, {"b": 0, "a": 2}, {"a": 0, "b": 0}))
    assert list(merged.items()) == [("b", 1), ("a", 2), ("n", 1)]


@pytest.mark.parametrize(("local", "remote"), [(1, {"a": 1}), ({"a": 1}, [1]), ("a", "b")])
def test_values_that_are_no_objects_go_to_the_journal(local: Any, remote: Any) -> None:
    assert merge.fields(conflict(local, remote, {"a": 0})) is JOURNAL
    assert merge.fields(conflict(local, remote)) is JOURNAL


def test_true_and_1_and_1_0_are_different_values() -> None:
    assert merge.fields(conflict({"a": True}, {"a": 1}, {"a": 1}))["a"] is True
    assert merge.union(conflict([1, True, 1.0], [1, 2], [])) == [1, 2, True, 1.0]


# -------------------------------------------------------------------------------------------- union


@given(ARRAYS, ARRAYS, ARRAYS)
def test_a_union_commutes_as_a_set(local: Any, remote: Any, base: Any) -> None:
    one, other = (merge.union(conflict(*sides, base)) for sides in ((local, remote), (remote, local)))
    assert as_set(one) == as_set(other)


@given(ARRAYS, ARRAYS, ARRAYS)
def test_a_union_holds_additions_and_removals_of_both_sides(local: Any, remote: Any, base: Any) -> None:
    merged = merge.union(conflict(local, remote, base))
    mine, theirs, before = as_set(local), as_set(remote), as_set(base)
    assert as_set(merged) == (mine & theirs) | ((mine ^ theirs) - before)


@given(ARRAYS, ARRAYS)
def test_a_union_without_a_base_holds_all_values_once(local: Any, remote: Any) -> None:
    merged = merge.union(conflict(local, remote))
    assert as_set(merged) == as_set(local) | as_set(remote)
    if not same(local, remote):
        assert len(merged) == len(as_set(merged))


def test_a_union_has_the_values_of_the_server_first() -> None:
    assert merge.union(conflict(["z", "b", "a"], ["c", "a"], ["a"])) == ["c", "a", "z", "b"]
    assert merge.union(conflict("ab", ["c"], ["a"])) is JOURNAL


# ------------------------------------------------------------------------------------------ counter


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_counter_adds_what_both_sides_have_added(base: int, one: int, other: int) -> None:
    assert merge.counter(conflict(base + one, base + other, base)) == base + one + other


def test_a_counter_that_did_not_exist_began_at_0() -> None:
    assert merge.counter(conflict(2, 3, MISSING)) == 5
    assert merge.counter(conflict(5, MISSING, 3)) == 2
    assert merge.counter(conflict(1.5, 0.5, MISSING)) == 2.0


@pytest.mark.parametrize(
    ("local", "remote", "base"),
    [
        (2, 3, UNKNOWN),
        ("2", 3, 1),
        (2, None, 1),
        (2, 3, True),
        (MISSING, 3, 1),
        (1e308, 1e308, -1e308),
    ],
)
def test_a_counter_without_a_base_or_numbers_goes_to_the_journal(local: Any, remote: Any, base: Any) -> None:
    assert merge.counter(conflict(local, remote, base)) is JOURNAL


# ------------------------------------------------------------------------------------------- latest


@pytest.mark.parametrize(
    ("local", "remote", "winner"),
    [
        (2, 1, "local"),
        (1, 2.5, "remote"),
        (1, 1, "remote"),
        ("2026-11-30T10:00:00Z", "2026-11-30T09:59:59.999Z", "local"),
        ("2026-11-30T10:00:00+02:00", "2026-11-30T09:00:00Z", "remote"),
        ("2026-11-30T10:00:00", "2026-11-30T10:00:00+00:00", "remote"),
        ("2026-12-01", "2026-11-30T23:59:59", "local"),
    ],
)
def test_the_later_time_wins_and_the_server_if_they_are_equal(local: Any, remote: Any, winner: str) -> None:
    values = {"local": {"t": local, "from": "local"}, "remote": {"t": remote, "from": "remote"}}
    assert merge.latest("t")(conflict(values["local"], values["remote"])) == values[winner]


@pytest.mark.parametrize(
    ("local", "remote"),
    [({"t": 1}, {"t": "2026-11-30"}), ({"t": True}, {"t": 1}), ({}, {"t": 1}), ([1], {"t": 1}), ({"t": "soon"},) * 2],
)
def test_values_without_comparable_times_go_to_the_journal(local: Any, remote: Any) -> None:
    assert merge.latest("t")(conflict(local, {"u": 1} | remote)) is JOURNAL


# ---------------------------------------------------------------------------------------- combining


def test_the_longest_prefix_decides() -> None:
    on_conflict = merge.by_prefix({"a/": lambda _: "short", "a/b/": lambda _: "long", "": lambda _: "other"})
    asked = [on_conflict(conflict(1, 2, key=key)) for key in ("a/b/c", "a/b", "a/", "a", "é")]
    assert asked == ["long", "short", "short", "other", "other"]
    assert merge.by_prefix({"a/": merge.client})(conflict(1, 2, key="b")) is JOURNAL


@pytest.mark.parametrize("mergers", [{1: merge.client}, {"a": None}, {"a": 1}, {"a": asyncio.sleep}, {"a": lambda: 1}])
def test_prefixes_without_a_function_are_refused(mergers: Any) -> None:
    with pytest.raises(TypeError):
        merge.by_prefix(mergers)


def test_the_field_of_times_is_named_by_a_str() -> None:
    wrong: Any = 1
    with pytest.raises(TypeError, match="a field is a str"):
        merge.latest(wrong)


def test_a_combination_is_asked_about_equal_changes_as_its_parts_are() -> None:
    combined: Any = merge.by_prefix({"n/": merge.counter, "m/": merge.even_if_equal(merge.client), "": merge.client})
    outer: Any = merge.by_prefix({"": combined})
    assert [outer.asks_if_equal(key) for key in ("n/1", "m/1", "o/1")] == [True, True, False]
    assert outer.needs_base
