"""``if_absent`` and ``if_value``: writes that depend on the present value of their key."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from stores import Stores

from treehub_level import MISSING, ConditionError, InvalidValueError, LevelError, Mode

pytestmark = pytest.mark.shared


async def refused(call: Any) -> ConditionError:
    """Return the error of a write whose condition does not hold."""
    with pytest.raises(ConditionError) as caught:
        await call
    return caught.value


async def test_a_key_is_created_once(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("slot", None, if_absent=True)
    error = await refused(level.put("slot", 2, if_absent=True))
    assert isinstance(error, LevelError)
    assert (error.code, error.key, error.found) == ("LEVEL_CONDITION", "slot", None)
    assert "'slot' exists already" in str(error)
    assert await level.query() == [("slot", None)]


async def test_a_value_is_replaced_only_if_it_is_the_expected_one(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("slot", 1)
    await level.put("slot", 2, if_value=1)
    error = await refused(level.put("slot", 3, if_value=1))
    assert (error.found, await level.get("slot")) == (2, 2)
    assert "has another value" in str(error)
    error = await refused(level.put("gone", 3, if_value=1))
    assert error.found is MISSING
    assert "is absent" in str(error)
    assert mode is not Mode.SERVER or level.cid == 2


async def test_none_is_a_value_and_missing_an_absent_key(level: Any) -> None:
    assert (await refused(level.put("a", 1, if_value=None))).found is MISSING
    before = await level.get("a", MISSING)
    await level.put("a", None, if_value=before)
    assert (await refused(level.put("a", 2, if_value=before))).found is None
    await level.put("a", 3, if_value=None)
    assert await level.get("a") == 3


async def test_a_key_is_deleted_only_if_it_has_the_expected_value(level: Any) -> None:
    await level.put("a", {"n": 1})
    assert (await refused(level.delete("a", if_value={"n": 2}))).found == {"n": 1}
    await level.delete("a", if_value={"n": 1})
    assert not await level.has("a")
    assert (await refused(level.delete("a", if_value=1))).found is MISSING
    await level.put("a", 1)
    await level.del_("a", if_value=1)
    assert await level.count() == 0


@pytest.mark.parametrize(
    ("stored", "asked", "is_equal"),
    [
        (1, 1.0, False),
        (1, True, False),
        (0.1, 0.1, True),
        ([1, (2,)], [1, [2]], True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        ("é", "é", True),
        ("é", "e\u0301", False),
    ],
)
async def test_equality_is_that_of_the_json(level: Any, stored: Any, asked: Any, is_equal: bool) -> None:
    await level.put("a", stored)
    if is_equal:
        await level.put("a", "new", if_value=asked)
    else:
        await refused(level.put("a", "new", if_value=asked))


async def test_every_value_equals_itself_after_it_was_read(level: Any) -> None:
    values: list[Any] = [None, False, 0, -0.0, 1e300, 2**63, "", '"\\\u2028', [], {}, {"b": [{}], "a": None}]
    for value in values:
        await level.put("a", value)
        await level.put("a", "next", if_value=await level.get("a"))


async def test_values_of_other_writers_are_compared_as_json(stores: Stores) -> None:
    stores.seed("store", [(b"a", b'{ "x" : "\\u00e9" }')])
    level = await stores.open("store")
    await level.put("a", 1, if_value={"x": "é"})


async def test_contradictory_and_invalid_conditions_are_refused(level: Any) -> None:
    with pytest.raises(ValueError, match="not both"):
        await level.put("a", 1, if_absent=True, if_value=1)
    with pytest.raises(TypeError, match="if_absent is True or False"):
        await level.put("a", 1, if_absent="yes")
    with pytest.raises(InvalidValueError):
        await level.put("a", 1, if_value=float("nan"))
    assert await level.count() == 0


async def test_conditions_hold_in_sublevels_and_transactions(level: Any) -> None:
    sub = level.sublevel("sub")
    await sub.put("a", 1, if_absent=True)
    assert (await refused(sub.put("a", 1, if_absent=True))).key == "a"

    def decide(tx: Any) -> None:
        tx.put("b", 1, if_absent=True)
        tx.put("b", 2, if_value=1)
        tx.delete("sub/a", if_value=1)
        tx.put("b", 3, if_value=1)

    assert (await refused(level.transact(decide))).found == 2
    assert await level.query() == [("sub/a", 1)]


async def test_one_of_many_writers_creates_a_key(stores: Stores) -> None:
    level = await stores.open("store")
    found = await asyncio.gather(*(level.put("a", n, if_absent=True) for n in range(20)), return_exceptions=True)
    assert sorted(map(type, found), key=str).count(type(None)) == 1
    assert {type(error) for error in found} == {type(None), ConditionError}


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ConditionError("text", key="a", found=MISSING)))
    assert (str(error), error.key, error.found is MISSING) == ("text", "a", True)
