"""T14: the event loop goes on while much is loaded and queried.

How late its callbacks are is compared with how long the work takes, both measured in one run: what slows a machine
slows both. The benchmark ``lag`` has the milliseconds.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stores import ENGINES

from benchmarks.workloads.lag import measure_lag
from treehub_level import Level

RECORDS = 100_000
#: The part of the work's time that one callback in a hundred may be late. Alone on a machine it is a fiftieth, beside
#: others that keep each core busy a fifth, and all of it if the work holds the loop.
AT_MOST = 1 / 3


@pytest.fixture
def records() -> list[tuple[str, Any]]:
    return [(f"key {n:06}", {"n": n, "text": "abc" * 10}) for n in range(RECORDS)]


@pytest.fixture
def api() -> str:
    return "async"


@pytest.fixture(params=ENGINES, ids="backend={}".format)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def lateness(work: Callable[[], Awaitable[object]]) -> float:
    """How late one callback in a hundred is, of the time that the work takes: the median of three."""
    seen = []
    for _ in range(3):
        gc.collect()  # what was made before is nobody's lag
        lag = await measure_lag(work())
        seen.append(lag["lag_p99"] / 1000 / lag["seconds"])
    return sorted(seen)[1]


async def test_the_loop_goes_on_while_records_are_loaded(server: Level, records: list[tuple[str, Any]]) -> None:
    assert await lateness(lambda: server.load(records)) < AT_MOST


async def test_the_loop_goes_on_while_all_of_them_are_queried(level: Level, records: list[tuple[str, Any]]) -> None:
    await level.load(records)
    assert await lateness(level.query) < AT_MOST


async def test_work_that_holds_the_loop_is_noticed(records: list[tuple[str, Any]]) -> None:
    async def hold() -> None:
        for n in range(RECORDS):
            str(records[n])

    assert await lateness(hold) > 0.9
