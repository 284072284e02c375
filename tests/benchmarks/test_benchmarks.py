"""The benchmark runner: contenders, their processes, and the figures computed from the runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.__main__ import main
from benchmarks.plan import PLAN, Comparison, Contender, Peer
from benchmarks.runner import Result, ratio, run

pytestmark = pytest.mark.once

PYTHON = Contender("core=python", "build", "python")
NO_CORE = Contender("core=none", "build", "no such core")


def _result(*seconds: float, records: int = 100) -> Result:
    return Result(PYTHON, records, {"seconds": list(seconds)})


def test_the_plan_has_every_workload() -> None:
    names = "build fillbatch fillawait fillsync readhot readrandom queryall scan pull pull-http clients replicas"
    assert list(PLAN) == [*names.split(), "ranges", "firstsync", "history", "load10m", "lag"]


def test_each_contender_runs_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "benchmarks", "build", "--json", "--records", "50", "--repeat", "2"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["records"], report["repeat"]) == (50, 2)
    assert [(row["workload"], row["implementation"]) for row in report["results"]] == [
        (comparison.measurement, contender.label) for comparison in PLAN["build"] for contender in comparison.contenders
    ]
    for row in report["results"]:
        if row["implementation"] == "core=c" and row["missing"]:
            assert "the compiled core" in row["missing"]
        else:
            assert len(row["seconds"]) == 2
            assert min(row["seconds"]) > 0


def test_a_contender_that_is_not_installed_has_a_reason_and_no_rate() -> None:
    working, missing = run(Comparison("build", (PYTHON, NO_CORE)), records=10, repeat=3)
    assert (len(working.seconds), working.missing) == (3, None)
    assert missing.seconds == []
    assert missing.missing is not None
    assert "no such core" in missing.missing
    assert missing.rate is None
    assert ratio(working, missing) is None


@pytest.fixture
def empty_cache() -> Iterator[None]:
    """Clear the cache of `peers.missing` before and after the test."""
    peers.missing.cache_clear()
    yield
    peers.missing.cache_clear()


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, empty_cache: None) -> None:
    """Simulate a machine without CMake, Node and the C program."""
    monkeypatch.setattr(peers, "find", lambda program: "")
    monkeypatch.setattr(peers, "CEILING", Path("no such program"))


@pytest.mark.usefixtures("no_programs")
def test_rows_of_peers_without_their_programs_say_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["readrandom", "--records", "20", "--repeat", "1"])
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if "│" in line]
    assert ["not installed" in row for row in rows if "C program" in row or "Node" in row] == [True, True]
    assert "there is no cmake" in printed.err
    assert "there is no node" in printed.err


@pytest.mark.usefixtures("no_programs")
@pytest.mark.parametrize(("peer", "reason"), [("ceiling", "the C program is not built"), ("node", "there is no node")])
def test_a_peer_is_missing_if_it_may_not_be_installed(peer: Peer, reason: str) -> None:
    missing = peers.missing(peer, install=False)
    assert missing is not None
    assert reason in missing


@pytest.mark.usefixtures("empty_cache")
def test_a_failed_build_is_the_reason_of_a_missing_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find", lambda program: "false")
    assert "false -S" in str(peers.missing("ceiling", install=True))


def test_the_contenders_take_turns() -> None:
    messages: list[str] = []
    again = Contender("again", "build", "python")
    run(Comparison("build", (PYTHON, again)), records=10, repeat=2, on_progress=messages.append)
    assert messages[2:] == [
        f"build: run {turn} of 2, {contender.label}" for turn in (1, 2) for contender in (PYTHON, again)
    ]


def test_a_contender_with_a_smaller_share_gets_fewer_records() -> None:
    (result,) = run(Comparison("build", (Contender("a tenth", "build", share=0.1),)), records=50, repeat=1)
    assert result.records == 5
    assert result.rate == 5 / result.seconds[0]


def test_the_rate_is_that_of_the_median_run() -> None:
    slow, fast = _result(9.0, 2.0, 1.9), _result(0.5, 0.5, 0.1)
    assert slow.rate == 50
    assert ratio(fast, slow) == 4
    assert Result(PYTHON, 1, {"seconds": [1], "peak": [5, 7, 90]}).figure("peak") == 7


def test_a_contender_that_fails_stops_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    broken = Contender("broken", "no such workload", "python")
    with pytest.raises(RuntimeError, match=r"no such workload \(broken\) failed"):
        run(Comparison("broken", (broken,)), records=1, repeat=1)
    assert "KeyError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sorting"], "there is no workload 'sorting'; there are: build, "),
        (["--records", "0"], "at least 1, not 0"),
        (["--plot", "chart.bmp"], "must end in .svg or .png, not 'chart.bmp'"),
    ],
)
def test_an_invalid_argument_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_without_matplotlib_a_chart_is_refused_before_the_first_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        main(["--plot", "chart.svg"])
    assert (
        "--plot needs matplotlib, which is not installed: run pip install '.[bench]' in a checkout"
        in capsys.readouterr().err
    )
