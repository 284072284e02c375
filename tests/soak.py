"""The long runs, one after another: every row of docs/reliability.md at its full size.

    python -m tests.soak                    all rows: about six hours
    python -m tests.soak T2 T8              some rows
    python -m tests.soak --part 0.01        all rows, a hundredth of each

The output of each row is also written to ``build/soak``. A failed row does not stop the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

FOLDER: Final = Path("build/soak")


class Row(NamedTuple):
    """One row of docs/reliability.md.

    Attributes:
        fault: The fault that it provokes.
        module: The module to run.
        option: The option for the size of the run; None if the module has none.
        figure: The full size.
        more: Further arguments.
    """

    fault: str
    module: str
    option: str | None = None
    figure: int = 1
    more: tuple[str, ...] = ()

    def command(self, part: float) -> list[str]:
        """Return the command line for a part of the full size."""
        size = [] if self.option is None else [self.option, str(max(1, round(self.figure * part)))]
        return [sys.executable, "-m", self.module, *size, *self.more]


ROWS: Final = {
    "T1": Row("the protocol", "tests.simulation.model", "--schedules", 1_000_000),
    "T2": Row("the real code under any interleaving", "tests.simulation.product", "--schedules", 200_000),
    "T2-sqlite": Row("the same over SQLite", "tests.simulation.product", "--schedules", 5000, ("--over", "sqlite")),
    "T2-postgres": Row("and over PostgreSQL", "tests.simulation.product", "--schedules", 500, ("--over", "postgres")),
    "T2-js": Row("the same with clients in JavaScript", "tests.js.simulated", "--schedules", 20_000),
    "T2-live": Row("whole programs, in virtual time", "tests.simulation.live", "--schedules", 20_000),
    "T2-controls": Row("the controls of T1 and T2, the rare ones too", "tests.simulation.controls"),
    "T3": Row("differences between cores, backends, APIs", "tests.stateful", "--examples", 100_000),
    "T4": Row("a process killed at any moment", "tests.crash", "--cycles", 1000),
    "T4-merging": Row("a process killed while it merges", "tests.crash.merging", "--cycles", 200),
    "T4-backups": Row("backups of a busy store, killed", "tests.backups.busy", "--kills", 400),
    "T5": Row("a power cut", "tests.crash", "--cycles", 1000, ("--power-cut",)),
    "T5-backups": Row("power cuts during backups", "tests.backups.busy", "--kills", 200, ("--power-cut",)),
    "T6": Row("a full disk, I/O errors", "tests.crash.failing", "--last", 300),
    "T7": Row("damaged files", "tests.crash.damage", "--cycles", 3000),
    "T7-records": Row("damaged records", "tests.crash.records", "--stores", 20_000),
    "T8": Row("a bad network", "tests.http.chaos", "--seconds", 3600, ("--clients", "8")),
    "T9": Row("several servers on one database", "tests.replicas.soak", "--seconds", 3600),
    "T10": Row("hostile input", "tests.fuzz", "--together", 10_000_000),
    "T11": Row("memory errors", "tests.sanitizers"),
    "T11-leaks": Row("leaked memory and handles", "tests.leaks", "--calls", 100_000),
    "T12": Row("closing and cancelling", "tests.closing", "--rounds", 500),
    "T12-counters": Row("lost updates", "tests.sharing.counters", "--increments", 10_000),
    "T13": Row("many clients", "tests.http.many_clients", "--seconds", 60, ("--clients", "200")),
    "T14": Row("the event loop", "benchmarks", "--records", 1_000_000, ("lag", "--check", "--no-install")),
    "T15": Row("the clock", "pytest", more=("tests/clock", "-q")),
    "T16": Row("hostile load", "tests.http.hostile", "--seconds", 20),
    "T16-control": Row("the same without the defences", "tests.http.hostile", "--seconds", 20, ("--control",)),
    "T17": Row("interrupts", "tests.interrupts", "--interrupts", 100_000),
    "T18": Row("second event loops", "tests.second_loops", "--rounds", 100),
    "T19": Row("consistency models", "tests.histories", "--operations", 100_000),
    "T19-replicas": Row("the same with several servers", "tests.histories", "--operations", 50_000, ("--replicas",)),
    "T19-control": Row("the same with faults put in", "tests.histories", more=("--control",)),
    "T20": Row("lost wake-ups", "tests.http.waking", "--races", 20_000),
    "T21": Row("a log that grows", "tests.replication.flat_log", "--writes", 1_000_000),
    "T21-control": Row("the same without retention", "tests.replication.flat_log", "--writes", 100_000, ("--control",)),
    "pairs": Row("all pairs of API and backend", "pytest", more=("-q", "-m", "repeated", "--numprocesses=4")),
}


def run(name: str, part: float) -> int:
    """Run a row, show and store its output, and return its exit code."""
    command = ROWS[name].command(part)
    with (
        open(FOLDER / f"{name}.txt", "w", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])},
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            kept.write(line)
    return process.returncode


def main() -> None:
    """Run the rows of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; without any, all of them")
    parser.add_argument("--part", type=float, default=1.0, help="the part of each figure to run")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    table = Table("row", "fault", "took", "verdict")
    failed = False
    for name in arguments.rows or ROWS:
        print(f"== {name}: {ROWS[name].fault}", flush=True)
        start = time.monotonic()
        code = run(name, arguments.part)
        failed |= code != 0
        table.add_row(
            name, ROWS[name].fault, f"{time.monotonic() - start:.0f} s", "FAILED" if code else "nothing found"
        )
    Console().print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
