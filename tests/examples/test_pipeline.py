"""``examples/pipeline.py``: killed at any time, it loses no order and counts none twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio import create_subprocess_exec
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from treehub_level import ConditionError, blocking

PROGRAM = Path(__file__).parents[2] / "examples" / "pipeline.py"
ORDERS: list[dict[str, Any]] = [
    {"customer": f"c{number % 3}", "price": number, "count": 1 + number % 4} for number in range(150)
]


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    file = tmp_path / "orders.jsonl"
    file.write_text("".join(json.dumps(order) + "\n" for order in ORDERS), encoding="utf-8")
    return file


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return import_module("pipeline")


def command(orders: Path) -> list[str]:
    return [sys.executable, str(PROGRAM), str(orders), str(store_of(orders)), "--workers=2", "--lease=0.5"]


def store_of(orders: Path) -> Path:
    return orders.with_name("pipeline.sqlite")


async def until_done(level: blocking.Level, count: int) -> None:
    for _ in range(6000):
        if level.count(prefix="done/", limit=count) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{count} orders were not done in a minute")


def check_results(level: blocking.Level) -> None:
    expected = Counter[str]()
    for order in ORDERS:
        expected[order["customer"]] += order["price"] * order["count"]
    assert dict(level.sublevel("total").query()) == expected
    assert level.sublevel("done").count() == len(ORDERS)
    assert level.keys(prefix="todo/") == level.keys(prefix="claim/") == []


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process group")
async def test_a_killed_pipeline_goes_on_without_a_loss_or_a_repetition(orders: Path) -> None:
    with blocking.Level(store_of(orders), backend="sqlite") as level:
        for killed_after in (len(ORDERS) // 10, len(ORDERS) // 2):
            group = await create_subprocess_exec(*command(orders), start_new_session=True, stdout=subprocess.DEVNULL)
            try:
                await until_done(level, killed_after)
            finally:
                os.killpg(group.pid, signal.SIGKILL)
                await group.wait()
        assert level.count(prefix="done/") < len(ORDERS)
        last = await create_subprocess_exec(*command(orders), stdout=subprocess.PIPE)
        shown, _ = await last.communicate()
        assert last.returncode == 0
        assert f"{len(ORDERS)} orders in 3 runs" in shown.decode()
        check_results(level)


def test_a_repeated_import_counts_nothing_twice(
    pipeline: ModuleType, orders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with blocking.Level(store_of(orders), backend="sqlite") as level:
        for _ in range(2):
            level.delete("imported/orders.jsonl")  # as after a kill during the import
            pipeline.import_orders(level, orders)
            pipeline.work(str(store_of(orders)), 60)
        check_results(level)


def test_a_worker_whose_lease_has_ended_records_nothing(pipeline: ModuleType, orders: Path) -> None:
    with blocking.Level(store_of(orders), backend="sqlite") as level:
        level.put("todo/1", ORDERS[1])
        late = level.transact(lambda tx: pipeline.claim(tx, -1))
        in_time = level.transact(lambda tx: pipeline.claim(tx, 60))
        assert late.key == in_time.key == "1"
        with pytest.raises(ConditionError):
            level.transact(lambda tx: pipeline.finish(tx, late, 2))
        assert level.query(prefix="total/") == []
        level.transact(lambda tx: pipeline.finish(tx, in_time, 2))
        assert level.get("total/c1") == 2


@pytest.mark.parametrize("line", ["{", '{"customer": "c1"}', "[]"])
def test_a_line_that_is_no_order_is_named(pipeline: ModuleType, orders: Path, line: str) -> None:
    orders.write_text(f"{json.dumps(ORDERS[0])}\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2, is not an order"):
        list(pipeline.orders_of(orders))
