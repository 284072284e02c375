"""The report of the results as a table, Markdown, JSON and a chart."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.chart import draw
from benchmarks.plan import Comparison, Contender, Figure, Target
from benchmarks.report import Results, as_json, as_markdown, as_table, missed
from benchmarks.runner import Result

pytestmark = pytest.mark.once

OURS = Contender("ours", "work", "c", "leveldb")
BEATEN = Contender("a slow peer", "work", target=Target(at_least=2))
UNBEATEN = Contender("a fast peer", "work", peer="ceiling", target=Target(at_least=0.8))
ABSENT = Contender("an absent peer", "work", peer="node", target=Target(at_least=3))
SMALL = Contender("a small peer", "work", share=0.1)

SIZES = {"records": 1000, "repeat": 1}


def results(*, rate: float | None = None, lag: float = 3.0) -> Results:
    """Return results in which OURS takes 1 s, BEATEN 4 s and UNBEATEN 0.5 s; ABSENT is missing."""
    comparison = Comparison(
        "work",
        (OURS, BEATEN, UNBEATEN, ABSENT, SMALL),
        (Figure("lag", "lag", "ms", target=Target(at_most=10)),),
        None if rate is None else Target(at_least=rate),
    )
    rows = [
        Result(OURS, 1000, {"seconds": [1.0], "lag": [lag]}),
        Result(BEATEN, 1000, {"seconds": [4.0], "lag": [99.0]}),
        Result(UNBEATEN, 1000, {"seconds": [0.5]}),
        Result(ABSENT, 1000, missing="there is no node"),
        Result(SMALL, 100, {"seconds": [0.1]}),
    ]
    return [(comparison, rows)]


def rows_of(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if "|" in line][2:]


def test_each_row_has_the_ratio_to_the_first_and_the_verdict_on_its_target() -> None:
    rows = {row[1]: row for row in rows_of(as_markdown(results(), **SIZES))}
    assert rows["ours"] == ["work", "ours", "1,000", "1000.00", "1.000 to 1.000 s", "", ""]
    assert rows["a slow peer"][-2:] == ["4.00", "≥ 2.00 reached"]
    assert rows["a fast peer"][-2:] == ["0.50", "≥ 0.80 missed"]
    assert rows["an absent peer"][2:] == ["not installed", "", "", "", ""]


def test_a_row_with_fewer_records_has_their_number() -> None:
    assert "a small peer (100 records)" in as_markdown(results(), **SIZES)


@pytest.mark.parametrize(("rate", "verdict"), [(900, "≥ 900/s reached"), (1001, "≥ 1,001/s missed")])
def test_a_target_rate_is_in_the_first_row(rate: float, verdict: str) -> None:
    assert rows_of(as_markdown(results(rate=rate), **SIZES))[0][-1] == verdict


@pytest.mark.parametrize(("lag", "verdict"), [(10.0, "≤ 10.00 ms reached"), (10.1, "≤ 10.00 ms missed")])
def test_each_figure_has_a_row_and_a_verdict_for_the_first_contender_only(lag: float, verdict: str) -> None:
    rows = [row for row in rows_of(as_markdown(results(lag=lag), **SIZES)) if "lag" in row[1]]
    assert [(row[2], row[-1]) for row in rows] == [(f"{lag:.2f} ms", verdict), ("99.00 ms", "")]


def test_missed_targets_are_listed() -> None:
    assert missed(results(lag=10.1)) == ["· lag: ≤ 10.00 ms missed", "a fast peer: ≥ 0.80 missed"]


def test_the_table_and_the_markdown_have_the_same_cells() -> None:
    console = Console(width=200, record=True, file=StringIO())
    console.print(as_table(results(), **SIZES))
    table = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in console.export_text().splitlines()
        if line.startswith("│")
    ]
    assert table == rows_of(as_markdown(results(), **SIZES))


def test_the_json_has_every_measurement_and_verdict() -> None:
    rows = as_json(results(rate=900), **SIZES)["results"]
    assert [row["seconds"] for row in rows] == [[1.0], [4.0], [0.5], [], [0.1]]
    assert [row["first_is_faster_by"] for row in rows] == [1, 4, 0.5, None, 1]
    assert [row["target"] and row["target"]["reached"] for row in rows] == [True, True, False, None, None]
    assert rows[3]["missing"] == "there is no node"
    (lag,) = rows[0]["figures"]
    assert (lag["median"], lag["target"]) == (3.0, {"at_least": None, "at_most": 10, "reached": True})


@pytest.mark.parametrize(("name", "magic"), [("chart.svg", b"<?xml"), ("chart.png", b"\x89PNG")])
def test_a_chart_has_the_format_of_its_suffix(name: str, magic: bytes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    draw(results(), tmp_path / name, **SIZES)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_chart_has_a_bar_for_each_contender_that_ran(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    draw(results(), tmp_path / "chart.svg", **SIZES)
    text = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert [label in text for label in ("ours", "a slow peer", "a fast peer", "an absent peer")] == [True] * 3 + [False]
    assert "250 (0.25 ×)" in text


def test_a_chart_leaves_out_comparisons_without_the_first_contender(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    ((comparison, rows),) = results()
    rows[0] = Result(OURS, 1000, missing="not built")
    draw([(comparison, rows)], tmp_path / "chart.svg", **SIZES)
    assert "a slow peer" not in (tmp_path / "chart.svg").read_text(encoding="utf-8")
