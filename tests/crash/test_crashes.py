"""The short share of T4 to T7. `__main__.py`, `failing.py` and `damage.py` are for longer runs."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from treehub_level import CorruptionError, Mode

from . import damage
from .__main__ import KILLED, run
from .disk import scratch_folder
from .history import ENGINES
from .killing import ROOT, Crashing
from .syncing import CrashingPair

pytestmark = pytest.mark.once

needs_shim = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="LD_PRELOAD, /proc and a C compiler are needed to intercept calls of LevelDB",
)
needs_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows locks the files of a killed process for a while"
)

every_engine = pytest.mark.parametrize("engine", ENGINES)
every_mode = pytest.mark.parametrize("mode", [Mode.SERVER, Mode.CLIENT], ids=lambda mode: mode.value)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the stores."""
    with scratch_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silence the warnings about lost ends of logs, which are provoked on purpose."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


# -------------------------------------------------------------------------------------- T4: kill -9


@needs_signals
def test_nothing_acknowledged_is_lost_when_processes_are_killed(folder: Path) -> None:
    counts = run(folder, KILLED, 15, 1, power=False)
    assert counts["kills"] == 15
    assert counts["acknowledged"] > 200
    assert counts["acknowledged and lost"] == 0
    assert counts["refused"] > 0


@needs_signals
@every_mode
@pytest.mark.parametrize("engine", [ENGINES[0], "sqlite"])
def test_a_write_acknowledged_too_early_is_found_missing(folder: Path, mode: Mode, engine: str) -> None:
    with pytest.raises(AssertionError, match="no state from unit"):
        Crashing(folder, engine, mode, 2, fault="early").run(100)


@needs_signals
@pytest.mark.parametrize(
    ("fault", "found"), [("torn", "belong to refused ones"), ("unjournaled", "are not in the journal")]
)
def test_a_refusal_that_tears_a_batch_or_leaves_no_record_is_found(folder: Path, fault: str, found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        CrashingPair(folder, ENGINES[0], Mode.CLIENT, 3, fault=fault).run(20)


# ------------------------------------------------------------------------------------ T5: power cut


@needs_shim
def test_a_power_failure_loses_no_durable_write_and_leaves_a_prefix_of_the_history(folder: Path) -> None:
    counts = run(folder, ENGINES, 6, 3, power=True)
    assert counts["kills"] == 6
    assert counts["of them durable"] > 20


@needs_shim
@every_mode
def test_a_power_failure_loses_writes_that_are_not_durable(folder: Path, mode: Mode) -> None:
    crashing = Crashing(folder, ENGINES[0], mode, 4, power=True, durable="never")
    crashing.run(6)
    assert crashing.counts["acknowledged and lost"] > 0


@needs_shim
@every_engine
def test_a_disk_that_ignores_fsync_is_found_to_lose_durable_writes(folder: Path, engine: str) -> None:
    with pytest.raises(AssertionError, match="no state from unit"):
        Crashing(folder, engine, Mode.SERVER, 5, power=True, durable="always", fault="lying").run(100)


@needs_shim
@every_engine
def test_a_durable_write_that_leaves_the_log_before_its_own_unsynced_makes_a_hole(folder: Path, engine: str) -> None:
    with pytest.raises(CorruptionError, match=r"(is|are) missing"):
        Crashing(folder, engine, Mode.CLIENT, 6, power=True, fault="no-order").run(300)


# ------------------------------------------------------------------------------------- T6: bad disk


def failing(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tests.crash.failing`` as a process, as it needs the shim preloaded."""
    command = [sys.executable, "-m", "tests.crash.failing", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@needs_shim
@every_engine
def test_a_failing_write_fsync_or_open_is_an_error_and_loses_nothing(engine: str) -> None:
    process = failing("--last", "8", "--engine", engine)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "'failed writes (w)': 8, 'failed openings (w)': " in process.stdout
    assert "'failed writes (s)': 8, 'failed openings (s)': " in process.stdout
    assert "'failed writes (o)': 8, 'failed openings (o)': " in process.stdout


@needs_shim
@every_engine
def test_writing_on_after_a_failure_loses_acknowledged_writes(engine: str) -> None:
    process = failing("--last", "30", "--engine", engine, "--unfenced")
    assert process.returncode == 1
    assert "no state from unit" in process.stdout


# -------------------------------------------------------------------------------- T7: damaged files


@needs_signals
@every_engine
def test_a_damaged_store_is_refused_or_has_a_state_that_it_once_had(folder: Path, engine: str) -> None:
    counts = damage.run(folder, engine, 40 // len(ENGINES), 7)
    assert counts["refused"] >= 5
    assert counts["opened"] >= 3


@needs_signals
@every_engine
def test_stores_opened_with_the_defaults_of_leveldb_are_found_to_have_holes(folder: Path, engine: str) -> None:
    with pytest.raises(AssertionError):
        damage.run(folder, engine, 200, 8, naive=True)
