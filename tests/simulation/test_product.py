"""T2: the real client and server under random schedules. See ``product.py`` for longer runs."""

from __future__ import annotations

import os

import pytest

from . import product
from .configuration import FOCUS, MECHANISMS
from .faults import FAILURES
from .runner import first_violation, run_seed

SCHEDULES = int(os.environ.get("TREEHUB_LEVEL_PRODUCT_SCHEDULES", "5000"))
#: Most controls break within a hundred schedules; what guards against rare faults needs more.
CONTROL = 4000
PARTS = 5


@pytest.mark.parametrize("part", range(PARTS))
def test_the_product_holds_in_random_configurations(part: int) -> None:
    size = SCHEDULES // PARTS
    assert first_violation(range(part * size, (part + 1) * size), product.world) is None


@pytest.mark.parametrize("focus", sorted(FOCUS))
def test_the_product_holds_where_one_mechanism_is_stressed(focus: str) -> None:
    assert first_violation(range(SCHEDULES // 50), product.world, focus=focus) is None


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_the_product_breaks_without(mechanism: str) -> None:
    assert first_violation(range(CONTROL), product.world, without=mechanism, focus=mechanism) is not None


@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_each_failure_of_the_original_is_found(failure: str) -> None:
    assert first_violation(range(1000), product.world, without=failure) is not None


def test_a_seed_replays_the_same_schedule() -> None:
    first: list[str] = []
    again: list[str] = []
    assert run_seed(11, product.world, say=first.append) == run_seed(11, product.world, say=again.append)
    assert first == again
    assert len(first) > 100
