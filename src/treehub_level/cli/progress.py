"""Progress bars: on stderr, for work that may take long, and only where somebody looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

#: Tells how far the work has come, in all: in bytes or in items, as the bar was made.
Advance = Callable[[int], None]


@contextmanager
def progress_bar(title: str, total: int | None, *, in_bytes: bool = False, shown: bool = True) -> Iterator[Advance]:
    """Show a bar while the block runs; nothing where stderr is no terminal.

    Args:
        title: What is going on.
        total: What is to be done, in bytes or items; ``None`` if that is not known.
        in_bytes: Whether it counts bytes.
        shown: Whether to show anything at all.
    """
    amount: ProgressColumn = DownloadColumn() if in_bytes else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        amount,
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not (shown and sys.stderr.isatty()),
    ) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.update(task, completed=done)
