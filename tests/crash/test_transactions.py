"""Kills within transactions: the short share of `transactions`, and its controls."""

from __future__ import annotations

import shutil
import sys

import pytest

from .transactions import ENGINES_TO_KILL, launch

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or shutil.which("cc") is None,
        reason="LD_PRELOAD and a C compiler are needed to kill a process in the middle of a write",
    ),
]


@pytest.mark.parametrize("engine", ENGINES_TO_KILL)
def test_a_process_that_is_killed_in_a_transaction_leaves_all_of_it_or_nothing(engine: str) -> None:
    done = launch("--rounds", "1", "--stride", "24", "--engine", engine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'kills': " in done.stdout


@pytest.mark.parametrize(("fault", "found"), [("torn", "a transaction is torn"), ("early", "were acknowledged")])
def test_control_a_torn_transaction_and_an_early_acknowledgement_are_found(fault: str, found: str) -> None:
    done = launch("--rounds", "1", "--stride", "2", "--engine", "sqlite", "--fault", fault)
    assert done.returncode == 1
    assert found in done.stderr
