"""The results as a table for people, or as JSON for machines."""

from __future__ import annotations

import platform
from statistics import median
from typing import Any

from rich.table import Table

from .plan import Comparison
from .runner import Result, ratio

Results = list[tuple[Comparison, list[Result]]]


def as_table(results: Results, *, records: int, repeat: int) -> Table:
    """One section for each comparison. The ratio is that of the first row's rate to the row's own."""
    table = Table(
        title=f"{records:,} records, median of {repeat} runs, {_machine()}",
        caption="first ÷: how many times as fast as this row the first row of its section is",
    )
    table.add_column("workload")
    table.add_column("implementation")
    for column in ("records/s", "µs/record", "fastest to slowest", "first ÷"):
        table.add_column(column, justify="right")
    for comparison, rows in results:
        for result in rows:
            table.add_row(comparison.measurement if result is rows[0] else "", *_cells(result, rows[0]))
        table.add_section()
    return table


def _cells(result: Result, first: Result) -> list[str]:
    label = result.contender.label
    if result.rate is None:
        return [label, "not installed", "", "", ""]
    faster = ratio(first, result)
    spread = f"{min(result.seconds):.3f} to {max(result.seconds):.3f} s"
    return [
        label,
        f"{result.rate:,.0f}",
        f"{1e6 / result.rate:.2f}",
        spread,
        "" if faster is None or result is first else f"{faster:.2f}",
    ]


def as_json(results: Results, *, records: int, repeat: int) -> dict[str, Any]:
    """The same with every single measurement."""
    return {
        "machine": _machine(),
        "records": records,
        "repeat": repeat,
        "results": [
            {
                "workload": comparison.measurement,
                "implementation": result.contender.label,
                "missing": result.missing,
                "seconds": result.seconds,
                "median_seconds": median(result.seconds) if result.seconds else None,
                "records_per_second": result.rate,
                "first_is_faster_by": ratio(rows[0], result),
            }
            for comparison, rows in results
            for result in rows
        ],
    }


def _machine() -> str:
    return f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
