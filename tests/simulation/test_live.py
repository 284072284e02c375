"""T2: whole programs with live sessions, in virtual time. See ``live.py`` for longer runs."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from . import live
from .runner import first_violation
from .virtual import DeadlockError, virtual_time

PLAYS = int(os.environ.get("TREEHUB_LEVEL_LIVE_PLAYS", "100"))


def test_live_sessions_end_up_equal_whatever_happens() -> None:
    assert first_violation(range(PLAYS), live.run) is None


@pytest.mark.once
@pytest.mark.parametrize(
    "fault",
    [
        "compare_and_clean",
        "decision_record",
        "own_range",
        "epochs",
        "sweep",
        "rejected_in_repeats",
        "order after CID 9",
        "keys above U+FFFF",
    ],
)
def test_they_do_not_with(fault: str) -> None:
    assert first_violation(range(1000), live.run, without=fault) is not None


@pytest.mark.once
def test_a_seed_plays_the_same_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "5"]
    root = Path(__file__).parents[2]
    played = [subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    assert played[0] == played[1]
    assert len(played[0].splitlines()) > 100


def test_time_passes_when_nobody_has_anything_to_do() -> None:
    async def sleep_long() -> float:
        await asyncio.sleep(1_000_000)
        return asyncio.get_running_loop().time()

    with virtual_time(random.Random(0)) as loop:
        assert loop.run_until_complete(sleep_long()) == pytest.approx(1_000_000)


def test_waiting_for_nothing_is_found() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with virtual_time(random.Random(0)) as loop:
        with pytest.raises(DeadlockError):
            loop.run_until_complete(wait_for_ever())
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
