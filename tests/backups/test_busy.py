"""Backups of a busy store, whose processes are killed: each is a consistent state of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.disk import scratch_folder

from .busy import run


@pytest.fixture
def scratch() -> Iterator[Path]:
    with scratch_folder() as folder:
        yield folder


@pytest.mark.parametrize(
    ("engine", "power", "kills"), [("leveldb", False, 2), ("sqlite", False, 1), ("leveldb", True, 1)]
)
def test_each_backup_of_a_busy_store_is_one_of_its_states(scratch: Path, engine: str, power: bool, kills: int) -> None:
    counts = run(scratch, [engine], kills, seed=7, power=power)
    assert counts["restored"] >= kills


@pytest.mark.parametrize(
    ("engine", "power", "fault"),
    [("leveldb", False, "naive"), ("sqlite", False, "naive"), ("leveldb", True, "unsynced")],
)
def test_a_copy_that_is_not_consistent_or_not_synced_is_found(
    scratch: Path, engine: str, power: bool, fault: str
) -> None:
    with pytest.raises(AssertionError, match=r"cannot be restored|has faults|acknowledged before|the pair"):
        run(scratch, [engine], 20, seed=7, power=power, fault=fault)
