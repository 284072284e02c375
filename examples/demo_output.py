"""The output of the demo: tables, and progress bars if stdout is a terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from treehub_level import Change, SyncReport

#: The number of overwritten changes printed for each pair of values.
EXAMPLES = 3

# Keys and values contain brackets and colons: no markup, no emoji codes.
console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 120)


class Step:
    """A timed step: the number of records, and the duration in seconds."""

    def __init__(self, name: str, advance: Callable[[int], object]) -> None:
        self.name = name
        self.advance = advance
        self.records = 0
        self.seconds = 0.0


class Steps:
    """A log of timed steps. A bar shows the progress of a step; a table shows all steps."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    @contextmanager
    def timed(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Time the block. The caller sets the number of records of the step."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            task = bars.add_task(name, total=total)
            step = Step(name, lambda done: bars.update(task, completed=done))
            began = time.perf_counter()
            yield step
            step.seconds = time.perf_counter() - began
        self._steps.append(step)

    def show(self) -> None:
        """Print the table of all steps."""
        table = new_table("Steps", [""], ["records", "seconds", "records/s"])
        for step in self._steps:
            rate = step.records / step.seconds
            table.add_row(step.name, f"{step.records:,}", f"{step.seconds:.2f}", f"{rate:,.0f}")
        console.print(table)


def show_cut(relayed_bytes: int) -> None:
    """Print that the relay has cut the connections."""
    console.print(f"✂ Connections cut after {relayed_bytes / 1e6:.1f} MB from the server; the client reconnects")


def show_syncs(edited: dict[str, int], reports: dict[str, SyncReport]) -> None:
    """Print the totals of each client's syncs after the offline edits."""
    table = new_table(
        "Syncs after the edits", ["client"], ["edited offline", "pushed", "pulled", "overwritten", "exchanges"]
    )
    for name, report in reports.items():
        numbers = edited[name], report.pushed, report.pulled, len(report.conflicts), report.rounds
        table.add_row(name, *(f"{number:,}" for number in numbers))
    console.print(table)


def show_lost(reports: dict[str, SyncReport]) -> None:
    """Print the first overwritten changes of each client and each pair of values."""
    title = f"Overwritten local changes (the first {EXAMPLES} of each kind)"
    table = new_table(title, ["client", "key", "local change", "server's change"], [])
    for name, report in reports.items():
        seen: Counter[tuple[str, str]] = Counter()
        for conflict in report.conflicts:
            values = describe(conflict.local), describe(conflict.remote)
            seen[values] += 1
            if seen[values] <= EXAMPLES:
                table.add_row(name, conflict.key, *values)
    console.print(table)


def show_batches(reports: dict[str, SyncReport]) -> None:
    """Print the fate of the batches and of the refused edit: see ``demo.edit_together``."""
    table = new_table("Batches that stay together, and a rule", ["client", "key", "local change", "fate"], [])
    for name, report in reports.items():
        table.add_row(name, "", "", f"{report.pushed} changes accepted")
        for conflict in report.conflicts:
            fate = f"refused: {conflict.reason}" if conflict.kind == "refused" else "lost, with its batch"
            table.add_row("", conflict.key, describe(conflict.local), fate)
    console.print(table)


def describe(change: Change | None) -> str:
    """Return a change in a few words."""
    if change is None or change.deleted:
        return "deleted"
    if not isinstance(change.value, dict):
        return repr(change.value)
    return f"checked by {change.value['checked_by']}" if "checked_by" in change.value else "written"


def print_claim(holds: bool, claim: str) -> None:
    """Print a claim of the proof with a mark: ✓ if it holds, else ✗."""
    console.print(f"{'✓' if holds else '✗'} {claim}", soft_wrap=True)


def new_table(title: str, texts: list[str], numbers: list[str]) -> Table:
    """Return an empty table with columns of text, followed by columns of numbers."""
    table = Table(*texts, title=title, title_justify="left", title_style="bold")
    for number in numbers:
        table.add_column(number, justify="right")
    return table
