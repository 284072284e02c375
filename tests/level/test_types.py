"""The data that crosses the API: Change, Changes, Conflict, Put, Delete, MISSING."""

import copy
import json
import pickle
from typing import Any

import pytest

from treehub_level import MISSING, Change, Changes, Conflict, Delete, Mode, Put


def test_a_change_is_encoded_as_a_json_list() -> None:
    assert json.dumps([Change("a", 1), Change.deletion("b")]) == '[["a", 1], ["b"]]'


def test_a_change_has_key_value_and_deleted() -> None:
    change = Change("a", {"x": 1})
    assert (change.key, change.value, change.deleted, change.cid) == ("a", {"x": 1}, False, None)
    deletion = Change.deletion("a")
    assert (deletion.key, deletion.value, deletion.deleted) == ("a", None, True)


def test_a_change_equals_lists_and_tuples_of_the_same_items() -> None:
    assert Change("a", 1) == ["a", 1] == Change("a", 1)
    assert Change("a", 1) == ("a", 1)
    assert Change("a", 1) != ["a", 2]
    assert Change("a", 1) != ["a"]
    assert Change.deletion("a") == ["a"]
    assert Change("a", None) != Change.deletion("a")
    assert Change("a", 1) != "a"
    assert Change("a", 1) != 5


def test_changes_of_plain_values_can_be_kept_in_sets() -> None:
    assert len({Change("a", 1), Change("a", 1), Change.deletion("a")}) == 2


@pytest.mark.parametrize("change", [Change("a", [1]), Change.deletion("a")], ids=repr)
def test_a_copied_change_is_equal_and_keeps_its_cid(change: Any) -> None:
    change.cid = 7
    for again in (copy.copy(change), copy.deepcopy(change), pickle.loads(pickle.dumps(change))):
        assert type(again) is Change
        assert (again, again.cid) == (change, 7)


def test_a_changes_repr_can_be_read_back() -> None:
    for change in (Change("a", {"x": [None]}), Change.deletion("é")):
        assert eval(repr(change), {"Change": Change}) == change


def test_a_page_of_changes_unpacks() -> None:
    cid, changes = Changes(3, [Change("a", 1)], True)[:2]
    assert cid == 3
    assert changes == [Change("a", 1)]


def test_the_number_of_a_conflict_takes_no_part_in_comparison() -> None:
    assert Conflict("a", Change("a", 1), None, 5) == Conflict("a", Change("a", 1), None, 6)
    assert Conflict("a", Change("a", 1), None) != Conflict("a", Change("a", 2), None)


def test_missing_is_falsy_and_unique() -> None:
    assert not MISSING
    assert repr(MISSING) == "MISSING"
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert copy.deepcopy(MISSING) is MISSING


def test_operations_are_tuples() -> None:
    assert Put("a", 1) == ("a", 1)
    assert Delete("a") == ("a",)


def test_the_modes_are_three() -> None:
    assert [mode.value for mode in Mode] == ["normal", "server", "client"]
