"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson
from rich.console import Console

from .chart import KINDS, NoMatplotlibError, check_matplotlib, draw
from .plan import PLAN
from .report import as_json, as_markdown, as_table, missed, reasons
from .runner import run


def main(arguments: list[str] | None = None) -> None:
    """Run the workloads that the command line names, and print the results."""
    options = _parse(arguments)
    sizes = {"records": options.records, "repeat": options.repeat}
    errors = Console(stderr=True)
    with errors.status("") as status:
        results = [
            (comparison, run(comparison, **sizes, install=options.install, on_progress=status.update))
            for workload in options.workloads or PLAN
            for comparison in PLAN[workload]
        ]
    if options.json:
        print(orjson.dumps(as_json(results, **sizes), option=orjson.OPT_INDENT_2).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 140).print(as_table(results, **sizes))
    for reason in reasons(results):
        errors.print(f"not installed: {reason}", markup=False)
    if options.markdown:
        options.markdown.write_text(as_markdown(results, **sizes), encoding="utf-8")
    if options.plot:
        draw(results, options.plot, **sizes)
    if options.check and (missed_targets := missed(results)):
        sys.exit("\n".join(missed_targets))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="Run named workloads, and compare the implementations of each."
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload", help=f"one or more of: {', '.join(PLAN)}; default: all"
    )
    parser.add_argument("--records", type=_positive, default=100_000, help="records per run (default: 100,000)")
    parser.add_argument(
        "--repeat", type=_positive, default=5, help="runs of each contender, of which the median counts (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with every measurement, instead of a table")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown to FILE")
    parser.add_argument("--plot", type=_chart_path, metavar="FILE", help="draw a chart to FILE (.svg or .png)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument(
        "--no-install", dest="install", action="store_false", help="do not build or download missing peers"
    )
    options = parser.parse_args(arguments)
    for workload in options.workloads:
        if workload not in PLAN:
            parser.error(f"there is no workload {workload!r}; there are: {', '.join(PLAN)}")
    if options.plot:
        try:
            check_matplotlib()
        except NoMatplotlibError as error:
            parser.error(str(error))
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _chart_path(text: str) -> Path:
    path = Path(text)
    if path.suffix not in KINDS:
        raise argparse.ArgumentTypeError(f"the name must end in {' or '.join(KINDS)}, not {text!r}")
    return path


if __name__ == "__main__":
    main()
