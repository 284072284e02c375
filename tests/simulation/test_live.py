"""Whole programs with live sessions, in virtual time (T2). See ``live.py`` for longer runs."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from . import live
from .controls import LIVE, control_is_found
from .runner import first_violation
from .virtual import DeadlockError, virtual_time

RUNS = int(os.environ.get("TREEHUB_LEVEL_LIVE_PLAYS", "5"))


def test_live_sessions_converge_in_spite_of_all_faults() -> None:
    assert first_violation(range(RUNS), live.run) is None


@pytest.mark.once
@pytest.mark.parametrize("fault", LIVE)
def test_they_do_not_converge_with(fault: str) -> None:
    assert control_is_found("live", fault, 1000)


@pytest.mark.once
def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "5"]
    root = Path(__file__).parents[2]
    traces = [subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 100


def test_time_advances_when_no_task_can_run() -> None:
    async def sleep_long() -> float:
        await asyncio.sleep(1_000_000)
        return asyncio.get_running_loop().time()

    with virtual_time(random.Random(0)) as loop:
        assert loop.run_until_complete(sleep_long()) == pytest.approx(1_000_000)


def test_a_deadlock_is_detected() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with virtual_time(random.Random(0)) as loop:
        with pytest.raises(DeadlockError):
            loop.run_until_complete(wait_for_ever())
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
