"""The report of the results: a table for the terminal, Markdown, or JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.table import Table

from .plan import Comparison, Figure, Target
from .runner import Result, ratio

Results = list[tuple[Comparison, list[Result]]]

_HEADINGS = ("workload", "implementation", "records/s", "µs/record", "fastest to slowest", "first ÷", "target")
_CAPTION = (
    "first ÷: the rate of the first row of the section, divided by that of this row; target: the bounds of that ratio"
)
_VERDICTS: Final[dict[bool | None, str]] = {True: "reached", False: "missed", None: ""}


@dataclass(frozen=True)
class _Line:
    """One row of the table, as text."""

    workload: str
    implementation: str
    rate: str = ""
    micros: str = ""
    spread: str = ""
    ratio: str = ""
    target: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        return self.workload, self.implementation, self.rate, self.micros, self.spread, self.ratio, self.target


def as_table(results: Results, *, records: int, repeat: int) -> Table:
    """Return the table, with a section for each comparison."""
    table = Table(title=title(records, repeat), caption=_CAPTION)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in _HEADINGS[:2] else "right")
    for comparison, rows in results:
        for line in _lines(comparison, rows):
            table.add_row(*line.cells)
        table.add_section()
    return table


def as_markdown(results: Results, *, records: int, repeat: int) -> str:
    """Return the table as Markdown."""
    rows = [line.cells for comparison, rows in results for line in _lines(comparison, rows)]
    table = [f"| {' | '.join(cells)} |" for cells in (_HEADINGS, *rows)]
    table.insert(1, "|---|---|" + "---:|" * (len(_HEADINGS) - 2))
    return "\n".join([f"{title(records, repeat)}.", "", *table, "", f"{_CAPTION}.", ""])


def _lines(comparison: Comparison, rows: list[Result]) -> Iterator[_Line]:
    """Yield a line for each contender, followed by a line for each of its figures."""
    for result in rows:
        yield _line(comparison, result, rows[0])
        for figure in comparison.figures:
            value = result.figure(figure.name)
            if value is not None:
                yield _figure_line(figure, value, figure.target if result is rows[0] else None)


def _line(comparison: Comparison, result: Result, first: Result) -> _Line:
    contender = result.contender
    workload = comparison.measurement if result is first else ""
    label = contender.label if contender.share == 1 else f"{contender.label} ({result.records:,} records)"
    if result.rate is None:
        return _Line(workload, label, "not installed")
    faster = None if result is first else ratio(first, result)
    return _Line(
        workload,
        label,
        f"{result.rate:,.0f}",
        f"{1e6 / result.rate:.2f}",
        f"{min(result.seconds):.3f} to {max(result.seconds):.3f} s",
        "" if faster is None else f"{faster:.2f}",
        _verdict(comparison.target, result.rate, "/s") if result is first else _verdict(contender.target, faster),
    )


def _figure_line(figure: Figure, value: float, target: Target | None) -> _Line:
    unit = f" {figure.unit}".rstrip()
    return _Line("", f"· {figure.label}", f"{_number(value)}{unit}", target=_verdict(target, value, unit))


def _verdict(target: Target | None, value: float | None, unit: str = "") -> str:
    """Return the target, and ``reached`` or ``missed``."""
    if target is None:
        return ""
    bounds = [
        f"{sign} {_number(bound)}{unit}"
        for sign, bound in (("≥", target.at_least), ("≤", target.at_most))
        if bound is not None
    ]
    return f"{' and '.join(bounds)} {_VERDICTS[target.reached(value)]}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def reasons(results: Results) -> list[str]:
    """Return the reasons why contenders are missing, each reason once."""
    return list(dict.fromkeys(result.missing for _, rows in results for result in rows if result.missing))


def missed(results: Results) -> list[str]:
    """Return a line for each missed target."""
    return [
        f"{line.implementation}: {line.target}"
        for comparison, rows in results
        for line in _lines(comparison, rows)
        if line.target.endswith(_VERDICTS[False])
    ]


def as_json(results: Results, *, records: int, repeat: int) -> dict[str, Any]:
    """Return the results as a JSON object, with every measurement."""
    return {
        "machine": _machine(),
        "records": records,
        "repeat": repeat,
        "results": [_result_json(comparison, result, rows[0]) for comparison, rows in results for result in rows],
    }


def _result_json(comparison: Comparison, result: Result, first: Result) -> dict[str, Any]:
    is_first = result is first
    faster = ratio(first, result)
    return {
        "workload": comparison.measurement,
        "implementation": result.contender.label,
        "missing": result.missing,
        "records": result.records,
        "seconds": result.seconds,
        "median_seconds": median(result.seconds) if result.seconds else None,
        "records_per_second": result.rate,
        "first_is_faster_by": faster,
        "target": _target_json(comparison.target, result.rate)
        if is_first
        else _target_json(result.contender.target, faster),
        "figures": [
            {
                "figure": figure.label,
                "unit": figure.unit,
                "runs": result.figures.get(figure.name, []),
                "median": result.figure(figure.name),
                "target": _target_json(figure.target, result.figure(figure.name)) if is_first else None,
            }
            for figure in comparison.figures
        ],
    }


def _target_json(target: Target | None, value: float | None) -> dict[str, Any] | None:
    if target is None:
        return None
    return {"at_least": target.at_least, "at_most": target.at_most, "reached": target.reached(value)}


def title(records: int, repeat: int) -> str:
    """Return the title: the number of records and runs, and the machine."""
    return f"{records:,} records, median of {repeat} runs, {_machine()}"


def _machine() -> str:
    return f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
