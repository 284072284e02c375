"""T15: the clock on the wall is a year slow, a year fast, or jumps between both, and nothing comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from preloaded import compiled

pytestmark = pytest.mark.once

YEAR = 365 * 24 * 3600


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clock that can be set."""
    return compiled(Path(__file__).with_name("clock.c"), tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def transcript(clock: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The story as it goes with the clock right."""
    return told(clock, tmp_path_factory.mktemp("stores"))


def told(clock: Path, folder: Path, *arguments: str, by: int = 0, turns: int = 0) -> str:
    """The story, with a clock that is so many seconds off, and changes sides each so many readings."""
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {clock}"  # behind AddressSanitizer, if it is there
    environment = {**os.environ, "LD_PRELOAD": preloaded, "CLOCK_OFFSET": str(by), "CLOCK_TURNS": str(turns)}
    command = [sys.executable, "-m", "tests.clock.transcript", str(folder), *arguments]
    story = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert story.returncode == 0, story.stderr
    return story.stdout


@pytest.mark.parametrize(
    ("by", "turns"), [(-YEAR, 0), (YEAR, 0), (YEAR, 7)], ids=["a year slow", "a year fast", "jumping while it runs"]
)
def test_a_wrong_clock_changes_no_message_and_no_byte(
    clock: Path, transcript: str, tmp_path: Path, by: int, turns: int
) -> None:
    assert len(transcript.splitlines()) > 30
    assert told(clock, tmp_path, by=by, turns=turns) == transcript


def test_a_value_with_the_time_in_it_is_told_apart(clock: Path, tmp_path: Path) -> None:
    early, late = (told(clock, tmp_path / str(by), "--stamped", by=by) for by in (-YEAR, YEAR))
    assert early != late
