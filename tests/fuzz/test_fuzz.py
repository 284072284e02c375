"""T10, the short run: 30,000 inputs for the decoders, fewer for the slow harnesses.

The inputs come from the mutator, because atheris takes seconds to instrument its imports. One seed
makes the same inputs on every machine. ``make fuzz`` is for longer runs, with atheris where it is
installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .corpus import FOLDER, corpus_of
from .engines import ENGINES, FindingError, run_mutator
from .harnesses import NAMES, PURE, harness

pytestmark = pytest.mark.once

INPUTS = 2_800
#: The numbers of inputs of slow harnesses, which open a store, write a file or make a request.
FEWER = {"arguments": 300, "tokens": 150, "stored": 25, "application": 400, "socket": 100}
#: The number of inputs within which a seeded fault must be found.
MAX_INPUTS_TO_FAULT = 20_000
#: Seeds that find the fault of a slow harness early: those take milliseconds an input.
FAULT_SEEDS = {"socket": 20, "stored": 6}


@pytest.mark.parametrize("name", NAMES)
def test_no_input_is_a_finding(name: str) -> None:
    inputs = FEWER.get(name, INPUTS)
    with harness(name) as check:
        assert run_mutator(check, corpus_of(name), inputs=inputs, seconds=None, seed=1) == inputs


def test_the_decoders_get_thirty_thousand_inputs() -> None:
    assert sum(FEWER.get(name, INPUTS) for name in PURE) >= 30_000


def test_there_is_a_corpus_for_each_harness() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_seeded_fault_is_found(name: str) -> None:
    corpus = corpus_of(name)
    with pytest.raises(FindingError) as finding, harness(name, faulty=True) as check:
        run_mutator(check, corpus, inputs=MAX_INPUTS_TO_FAULT, seconds=None, seed=FAULT_SEEDS.get(name, 1))
    assert finding.value.count > len(corpus), "a committed input found the fault, so the mutator was not tested"


def test_a_seed_makes_the_same_inputs_again() -> None:
    def inputs(seed: int) -> list[bytes]:
        made: list[bytes] = []
        run_mutator(made.append, corpus_of("requests"), inputs=500, seconds=None, seed=seed)
        return made

    assert inputs(1) == inputs(1) != inputs(2)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of the fuzzing tests."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)


def test_the_command_prints_the_number_of_inputs() -> None:
    done = run("urls", "keys", "--engine", "mutator", "--inputs", "1000")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(" in ")[0] for line in done.stdout.splitlines()] == [
        "urls: 1,000 inputs",
        "keys: 1,000 inputs",
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_prints_its_findings(engine: str) -> None:
    done = run("keys", "--engine", engine, "--inputs", "20000", "--faulty")
    assert (done.returncode, done.stderr) == (1, "findings in: keys\n")
    assert "a seeded crash" in done.stdout
    assert "is a finding, for the corpus: b'" in done.stdout
