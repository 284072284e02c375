"""``python -m benchmarks``: see the package."""

from __future__ import annotations

import argparse
import sys

import orjson
from rich.console import Console

from .plan import PLAN
from .report import as_json, as_table
from .runner import run


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line asks for, and print it."""
    options = _parse(arguments)
    sizes = {"records": options.records, "repeat": options.repeat}
    with Console(stderr=True).status("") as status:
        results = [
            (comparison, run(comparison, **sizes, say=status.update))
            for workload in options.workloads or PLAN
            for comparison in PLAN[workload]
        ]
    if options.json:
        print(orjson.dumps(as_json(results, **sizes), option=orjson.OPT_INDENT_2).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(as_table(results, **sizes))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure named workloads, core by core.")
    parser.add_argument(
        "workloads", nargs="*", metavar="workload", help=f"one or more of: {', '.join(PLAN)}; default: all"
    )
    parser.add_argument("--records", type=_positive, default=100_000, help="records of each run (default: 100,000)")
    parser.add_argument("--repeat", type=_positive, default=5, help="runs of each; the median counts (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every single measurement")
    options = parser.parse_args(arguments)
    for workload in options.workloads:
        if workload not in PLAN:
            parser.error(f"there is no workload {workload!r}; there are: {', '.join(PLAN)}")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    main()
