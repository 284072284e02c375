"""T10, the short share: 200,000 inputs for what decodes, fewer for what has a store or a process behind it.

The same seed makes the same inputs, on every machine: here they come from the mutator, since atheris takes seconds to
instrument what it imports. ``make fuzz`` is for longer runs, by atheris where there is one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .corpus import FOLDER, corpus_of
from .engines import ENGINES, FoundError, run_mutator
from .harnesses import NAMES, PURE, harness

pytestmark = pytest.mark.once

INPUTS = 18_000
#: Each input of these opens a store, writes a file, makes a request or connects.
FEWER = {"arguments": 2000, "tokens": 500, "application": 4000, "socket": 300}
#: Inputs after which a seeded fault must have been found.
ENOUGH = 20_000


@pytest.mark.parametrize("name", NAMES)
def test_no_input_gets_through(name: str) -> None:
    inputs = FEWER.get(name, INPUTS)
    with harness(name) as check:
        assert run_mutator(check, corpus_of(name), inputs=inputs, seconds=None, seed=1) == inputs


def test_the_decoders_get_two_hundred_thousand_inputs() -> None:
    assert sum(FEWER.get(name, INPUTS) for name in PURE) >= 200_000


def test_there_is_a_corpus_for_each_harness() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_seeded_fault_is_found(name: str) -> None:
    corpus = corpus_of(name)
    with pytest.raises(FoundError) as found, harness(name, faulty=True) as check:
        run_mutator(check, corpus, inputs=ENOUGH, seconds=None, seed=1)
    assert found.value.count > len(corpus), "the committed inputs alone would do, so this says nothing of the mutator"


def test_a_seed_makes_the_same_inputs_again() -> None:
    def inputs(seed: int) -> list[bytes]:
        made: list[bytes] = []
        run_mutator(made.append, corpus_of("requests"), inputs=500, seconds=None, seed=seed)
        return made

    assert inputs(1) == inputs(1) != inputs(2)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)


def test_the_command_says_how_many_inputs_there_were() -> None:
    done = run("urls", "keys", "--engine", "mutator", "--inputs", "1000")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(" in ")[0] for line in done.stdout.splitlines()] == [
        "urls: 1,000 inputs",
        "keys: 1,000 inputs",
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_shows_what_it_has_found(engine: str) -> None:
    done = run("keys", "--engine", engine, "--inputs", "20000", "--faulty")
    assert (done.returncode, done.stderr) == (1, "found something in: keys\n")
    assert "a seeded crash" in done.stdout
    assert "is a find, for the corpus: b'" in done.stdout
