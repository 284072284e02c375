"""Every workload, on sizes that measure nothing."""

from __future__ import annotations

import json
import sys
import time

import pytest

from benchmarks import peers
from benchmarks.plan import PLAN, Comparison, Contender, Peer
from benchmarks.workloads import WORKLOADS, NotInstalledError
from benchmarks.workloads.lag import watched

pytestmark = pytest.mark.once

RECORDS = 200
LOCK = peers.NODE / "package-lock.json"

EVERYONE = [
    pytest.param(comparison, contender, id=f"{comparison.measurement}: {contender.label}")
    for comparisons in PLAN.values()
    for comparison in comparisons
    for contender in comparison.contenders
]


@pytest.mark.parametrize(("comparison", "contender"), EVERYONE)
async def test_every_contender_measures_what_its_row_tells(comparison: Comparison, contender: Contender) -> None:
    if contender.peer is not None:
        skip_if_missing(contender.peer)
    try:
        async with WORKLOADS[contender.workload](RECORDS, contender.engine) as measure:
            figures = await measure()
    except NotInstalledError as error:
        pytest.skip(str(error))
    assert figures["seconds"] > 0
    if contender == comparison.contenders[0] and sys.platform == "linux":  # others do not tell of memory
        assert set(figures) == {"seconds", *(figure.name for figure in comparison.figures)}


def skip_if_missing(peer: Peer) -> None:
    """Build the C program, which takes two seconds. Packages for Node are not fetched: `make bench` does that."""
    missing = peers.missing(peer, install=peer == "ceiling")
    if missing is None:
        return
    if "failed" not in missing or "needs LevelDB" in missing:
        pytest.skip(missing)
    pytest.fail(missing)


def test_every_workload_is_in_the_plan() -> None:
    assert set(WORKLOADS) == {
        contender.workload
        for comparisons in PLAN.values()
        for comparison in comparisons
        for contender in comparison.contenders
    }


async def test_a_new_client_pulls_one_change_for_each_key_that_was_overwritten() -> None:
    async with WORKLOADS["history"](RECORDS, "plyvel") as measure:
        assert (await measure())["pulled"] == 1


async def test_a_loop_that_is_held_up_is_late_for_all_that_fell_due_meanwhile() -> None:
    async def hold_up() -> None:
        time.sleep(0.05)  # noqa: ASYNC251  # that is the fault

    lag = await watched(hold_up())
    assert lag["lag_max"] > 40
    assert lag["lag_p50"] > 10


def test_the_packages_for_node_are_pinned_and_the_lock_names_no_registry() -> None:
    packages = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
    del packages[""]  # this folder
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
    wanted = json.loads((LOCK.parent / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
