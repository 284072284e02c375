"""The benchmark runner, on sizes that measure nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.plan import PLAN, Comparison, Contender
from benchmarks.runner import Result, ratio, run

pytestmark = pytest.mark.once

PYTHON = Contender("core=python", "python", "build")
NO_CORE = Contender("core=none", "no such core", "build")


def _result(*seconds: float, records: int = 100) -> Result:
    return Result(PYTHON, records, list(seconds))


def test_every_workload_runs_on_the_python_core() -> None:
    command = [sys.executable, "-m", "benchmarks", "--json", "--records", "50", "--repeat", "2"]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert (report["records"], report["repeat"]) == (50, 2)
    measured = {(row["workload"], row["implementation"]): row for row in report["results"]}
    assert list(measured) == [
        (comparison.measurement, contender.label)
        for comparisons in PLAN.values()
        for comparison in comparisons
        for contender in comparison.contenders
    ]
    for (_, implementation), row in measured.items():
        if implementation == "core=c" and row["missing"]:
            assert "the compiled core" in row["missing"]
        else:
            assert len(row["seconds"]) == 2
            assert min(row["seconds"]) > 0


def test_the_table_has_a_row_for_each_implementation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["readhot", "queryall", "--records", "20", "--repeat", "1"])
    table = capsys.readouterr().out
    for expected in ("readhot", "queryall", "core=c", "core=python", "orjson.loads(plyvel.get(k))"):
        assert expected in table
    assert "fillbatch" not in table


def test_what_is_not_installed_is_said_and_not_remembered() -> None:
    working, missing = run(Comparison("build", (PYTHON, NO_CORE)), records=10, repeat=3)
    assert (len(working.seconds), working.missing) == (3, None)
    assert missing.seconds == []
    assert missing.missing is not None
    assert "no such core" in missing.missing
    assert missing.rate is None
    assert ratio(working, missing) is None


def test_the_contenders_take_turns() -> None:
    said: list[str] = []
    again = Contender("again", "python", "build")
    run(Comparison("build", (PYTHON, again)), records=10, repeat=2, say=said.append)
    assert said[2:] == [
        f"build: run {turn} of 2, {contender.label}" for turn in (1, 2) for contender in (PYTHON, again)
    ]


def test_the_median_counts() -> None:
    slow, fast = _result(9.0, 2.0, 1.9), _result(0.5, 0.5, 0.1)
    assert slow.rate == 50
    assert ratio(fast, slow) == 4


def test_a_contender_that_fails_stops_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    broken = Contender("broken", "python", "no such workload")
    with pytest.raises(RuntimeError, match=r"no such workload \(broken\) failed"):
        run(Comparison("broken", (broken,)), records=1, repeat=1)
    assert "KeyError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["sorting"], "there is no workload 'sorting'; there are: build, "), (["--records", "0"], "at least 1, not 0")],
)
def test_a_wrong_argument_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err
