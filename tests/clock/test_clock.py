"""T15: a wall clock that is a year slow, a year fast, or jumps between both has no effect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from preloaded import compile_library

pytestmark = pytest.mark.once

YEAR = 365 * 24 * 3600


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with the wrong clock."""
    return compile_library(Path(__file__).with_name("clock.c"), tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def transcript(clock: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The transcript with the right clock."""
    return transcript_of(clock, tmp_path_factory.mktemp("stores"))


def transcript_of(clock: Path, folder: Path, *arguments: str, offset: int = 0, turns: int = 0) -> str:
    """The transcript with a clock that is ``offset`` seconds off.

    The offset changes its sign every ``turns`` readings; 0 keeps it.
    """
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {clock}"  # after AddressSanitizer, if it is used
    environment = {**os.environ, "LD_PRELOAD": preloaded, "CLOCK_OFFSET": str(offset), "CLOCK_TURNS": str(turns)}
    command = [sys.executable, "-m", "tests.clock.transcript", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("offset", "turns"), [(-YEAR, 0), (YEAR, 0), (YEAR, 7)], ids=["a year slow", "a year fast", "jumping"]
)
def test_a_wrong_clock_changes_no_message_and_no_byte(
    clock: Path, transcript: str, tmp_path: Path, offset: int, turns: int
) -> None:
    assert len(transcript.splitlines()) > 30
    assert transcript_of(clock, tmp_path, offset=offset, turns=turns) == transcript


def test_the_comparison_finds_a_value_with_the_time_in_it(clock: Path, tmp_path: Path) -> None:
    early, late = (
        transcript_of(clock, tmp_path / str(offset), "--with-time", offset=offset) for offset in (-YEAR, YEAR)
    )
    assert early != late
