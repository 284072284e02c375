"""The real client and server under random schedules (T2). See ``product.py`` for longer runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from stores import SHARED

from treehub_level import _core

from . import product
from .configuration import FOCUS, MECHANISMS
from .controls import control_is_found, known_seed
from .engines import DISKS, postgres_disks_at
from .faults import FAILURES
from .runner import Run, first_violation

#: Schedules for each core; those of the pure core are the first ones of the compiled one. The soak
#: runs 200,000.
SCHEDULES = int(os.environ.get("TREEHUB_LEVEL_PRODUCT_SCHEDULES", {"c": "100", "python": "25"}[_core.CORE]))
PARTS = 5
#: Seeds that once found a fault of the product, with the day of the fix.
FOUND = [
    12983,  # 2026-11-23: compaction removed a delete before superseded values, and crashed
    2006,  # 2026-11-30: a reset to a CID behind the own range kept the range, a malformed record
]


@pytest.mark.parametrize("part", range(PARTS))
def test_the_product_holds_in_random_configurations(part: int) -> None:
    size = SCHEDULES // PARTS
    assert first_violation(range(part * size, (part + 1) * size), product.run) is None


@pytest.mark.once
@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_found_a_fault_passes(seed: int) -> None:
    product.run(seed)


@pytest.mark.parametrize("focus", sorted(FOCUS))
def test_the_product_holds_where_one_mechanism_is_stressed(focus: str) -> None:
    assert first_violation(range(SCHEDULES // 25), product.run, focus=focus) is None


@pytest.mark.parametrize(
    "mechanism", [mechanism for mechanism in sorted(MECHANISMS) if known_seed("product", mechanism) is not None]
)
def test_the_product_breaks_without(mechanism: str) -> None:
    assert control_is_found("product", mechanism)


@pytest.mark.once
def test_only_a_few_controls_are_too_rare_for_the_suite() -> None:
    """The control of the model finds each of them."""
    rare = [mechanism for mechanism in MECHANISMS if known_seed("product", mechanism) is None]
    assert len(rare) <= 12, rare
    assert all(known_seed("model", mechanism) is not None for mechanism in MECHANISMS)


@pytest.mark.once
@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_each_failure_of_the_npm_package_is_found(failure: str) -> None:
    assert control_is_found("product", failure, 1000)


@pytest.fixture(params=[name for name in DISKS if name in SHARED])
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[Run, int]]:
    """A function that runs schedules over a shared backend, and the number of schedules."""
    if request.param == "postgres":
        yield product.run_over(postgres_disks_at(request.getfixturevalue("postgres_url"))), 3
    else:
        with DISKS[request.param]() as make_disk:
            yield product.run_over(make_disk), 12


@pytest.mark.once
def test_shared_backends_give_the_same_results_as_memory(shared: tuple[Run, int]) -> None:
    run, schedules = shared
    for seed in range(schedules):
        assert run(seed, None, None, None) == product.run(seed)


@pytest.mark.once
@pytest.mark.parametrize("mechanism", ["compare_and_clean", "epochs", "order after CID 9"])
def test_the_product_breaks_over_shared_backends_without(mechanism: str, shared: tuple[Run, int]) -> None:
    run, _ = shared
    focus = mechanism if mechanism in FOCUS else None
    known = known_seed("product", mechanism)  # the same schedules break there
    seeds = [*([] if known is None else [known]), *range(1000)]
    assert first_violation(seeds, run, without=mechanism, focus=focus) is not None


def test_a_seed_replays_the_same_schedule() -> None:
    first: list[str] = []
    again: list[str] = []
    assert product.run(11, trace=first.append) == product.run(11, trace=again.append)
    assert first == again
    assert len(first) > 100
