"""What the demo shows while it runs and at its end: progress bars, on a terminal, and tables."""

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

#: Lost changes that are printed of each kind.
SHOWN = 3

# Keys and values are printed as they are: brackets are no markup, colons no emoji codes.
console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 120)


class Step:
    """Something that takes time: how many records, how long."""

    def __init__(self, what: str, advance: Callable[[int], object]) -> None:
        self.what = what
        self.advance = advance
        self.records = 0
        self.seconds = 0.0


class Steps:
    """Times what happens, shows a bar meanwhile (on a terminal), and all of it in a table at the end."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    @contextmanager
    def timed(self, what: str, total: int | None = None) -> Iterator[Step]:
        """Time the block; its step wants to be told the number of records."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            task = bars.add_task(what, total=total)
            step = Step(what, lambda done: bars.update(task, completed=done))
            began = time.perf_counter()
            yield step
            step.seconds = time.perf_counter() - began
        self._steps.append(step)

    def show(self) -> None:
        """Print the table."""
        table = new_table("What was done", [""], ["records", "seconds", "records/s"])
        for step in self._steps:
            rate = step.records / step.seconds
            table.add_row(step.what, f"{step.records:,}", f"{step.seconds:.2f}", f"{rate:,.0f}")
        console.print(table)


def show_cut(carried: int) -> None:
    """What the bad network has done, when it does it."""
    console.print(f"✂ Connections cut after {carried / 1e6:.1f} MB from the server; the client goes on by itself")


def show_syncs(edited: dict[str, int], reports: dict[str, SyncReport]) -> None:
    """What each client sent and got once everybody had edited."""
    table = new_table(
        "The syncs after the edits", ["client"], ["edited offline", "pushed", "pulled", "lost", "exchanges"]
    )
    for name, report in reports.items():
        numbers = edited[name], report.pushed, report.pulled, len(report.conflicts), report.rounds
        table.add_row(name, *(f"{number:,}" for number in numbers))
    console.print(table)


def show_lost(reports: dict[str, SyncReport]) -> None:
    """Local changes that lost: of each client and each kind the first ones, since there are hundreds."""
    title = f"Local changes that lost (the first {SHOWN} of each kind)"
    table = new_table(title, ["client", "key", "what lost", "what the server had"], [])
    for name, report in reports.items():
        seen: Counter[tuple[str, str]] = Counter()
        for conflict in report.conflicts:
            fate = what(conflict.local), what(conflict.remote)
            seen[fate] += 1
            if seen[fate] <= SHOWN:
                table.add_row(name, conflict.key, *fate)
    console.print(table)


def what(change: Change | None) -> str:
    """A change in a word or two."""
    if change is None or change.deleted:
        return "deleted"
    return f"checked by {change.value['checked_by']}" if isinstance(change.value, dict) else repr(change.value)


def say(holds: bool, statement: str) -> None:
    """Print a statement of the proof."""
    console.print(f"{'✓' if holds else '✗'} {statement}", soft_wrap=True)


def new_table(title: str, texts: list[str], numbers: list[str]) -> Table:
    """A table with columns of text, and then columns of numbers."""
    table = Table(*texts, title=title, title_justify="left", title_style="bold")
    for number in numbers:
        table.add_column(number, justify="right")
    return table
