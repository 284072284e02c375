"""Progress bars: on stderr, for work that may take long, and only where somebody looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

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
#: Items between two lines, where there is no terminal.
_LINE_EVERY = 100_000


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


class StepsProgress:
    """A bar for one step after another; where stderr is no terminal, a line for each, and more if it takes long.

    Each step after the first is taken to have as many items as the one before.

    Args:
        lines: Whether to print lines where there is no terminal.
    """

    def __init__(self, *, lines: bool) -> None:
        self._lines = lines and not sys.stderr.isatty()
        self._bar = ExitStack()
        self._step = ""
        self._done = 0

    def __enter__(self) -> StepsProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def advance(self, step: str, done: int) -> None:
        """Tell how many items of a step are done."""
        if step != self._step:
            self._end()
            self._advance = self._bar.enter_context(progress_bar(step, self._done or None))
            self._step, self._done = step, 0
        self._advance(done)
        before, self._done = self._done, done
        if done // _LINE_EVERY > before // _LINE_EVERY:
            self._print_line()

    def _end(self) -> None:
        self._bar.close()
        if self._step:
            self._print_line()

    def _print_line(self) -> None:
        if self._lines:
            sys.stderr.write(f"{self._step}: {self._done:,}\n")
