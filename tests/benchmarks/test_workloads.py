"""Every workload, with too few records for a meaningful measurement."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from benchmarks import peers
from benchmarks.plan import PLAN, Comparison, Contender, Peer
from benchmarks.workloads import WORKLOADS, NotInstalledError
from benchmarks.workloads.lag import measure_lag

pytestmark = pytest.mark.once

RECORDS = 200
#: Records of a workload with clients, which has a client for each record, up to its number.
CLIENT_RECORDS = 20
LOCK = peers.NODE / "package-lock.json"


def all_contenders() -> Iterator[Any]:
    """All contenders. Those that only run a workload again, over another backend, are repeated."""
    seen: set[str] = set()
    for comparison in chain.from_iterable(PLAN.values()):
        for contender in comparison.contenders:
            is_new = contender.workload not in seen or contender is comparison.contenders[0]
            seen.add(contender.workload)
            marks = [] if is_new else [pytest.mark.repeated]
            yield pytest.param(comparison, contender, id=f"{comparison.measurement}: {contender.label}", marks=marks)


@pytest.mark.parametrize(("comparison", "contender"), [*all_contenders()])
async def test_every_contender_returns_the_figures_of_its_comparison(
    comparison: Comparison, contender: Contender
) -> None:
    if contender.peer is not None:
        skip_if_missing(contender.peer)
    try:
        records = CLIENT_RECORDS if contender.workload.startswith(("clients", "ranges")) else RECORDS
        async with WORKLOADS[contender.workload](records, contender.engine) as measure:
            figures = await measure()
    except NotInstalledError as error:
        pytest.skip(str(error))
    assert figures["seconds"] > 0
    if contender == comparison.contenders[0] and sys.platform == "linux":  # other systems do not report memory
        assert set(figures) == {"seconds", *(figure.name for figure in comparison.figures)}


def skip_if_missing(peer: Peer) -> None:
    """Build the C program (2 s). Packages for Node are not downloaded: `make bench` does that."""
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


async def test_each_period_of_a_stall_counts_as_late() -> None:
    async def stall() -> None:
        time.sleep(0.05)  # noqa: ASYNC251  # the stall under test

    lag = await measure_lag(stall())
    assert lag["lag_max"] > 40
    assert lag["lag_p50"] > 10


def test_the_packages_for_node_are_pinned_and_the_lock_names_no_registry() -> None:
    packages = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
    del packages[""]  # the folder itself
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
    wanted = json.loads((LOCK.parent / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
