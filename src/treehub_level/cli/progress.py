"""Progress bars for commands that can take long. They are on stderr, if it is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ..redaction import redact_text
from .output import printable
from .streams import write_stderr

#: Sets the amount of work done so far, in bytes or items. (Not an increment.)
Advance = Callable[[int], None]
#: Items between two lines of progress if stderr is no terminal.
LINE_EVERY = 100_000


@contextmanager
def progress_bar(title: str, total: int | None, *, in_bytes: bool = False, shown: bool = True) -> Iterator[Advance]:
    """Show a progress bar while the block runs. Nothing is shown if stderr is no terminal.

    Args:
        title: The text before the bar.
        total: The amount of work, in bytes or items; ``None`` if it is unknown.
        in_bytes: True if the work is counted in bytes.
        shown: False to show no bar on a terminal either.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich import progress  # a tenth of the time of a command without it
    from rich.console import Console

    amount = progress.DownloadColumn() if in_bytes else progress.MofNCompleteColumn()
    with progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        amount,
        progress.TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    ) as bars:
        task = bars.add_task(printable(redact_text(title)), total=total)
        yield lambda done: bars.update(task, completed=done)


class StepsProgress:
    """The progress of work in several steps: a bar for each, or lines if stderr is no terminal.

    A line is printed at the end of each step and after every `LINE_EVERY` items. The total of a
    step is unknown; its bar takes the number of items of the step before.

    Args:
        lines: False to print nothing if stderr is no terminal.
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
        """Set the number of items of a step that are done; a new name begins a new step."""
        if step != self._step:
            self._end()
            self._advance = self._bar.enter_context(progress_bar(step, self._done or None))
            self._step, self._done = step, 0
        self._advance(done)
        before, self._done = self._done, done
        if done // LINE_EVERY > before // LINE_EVERY:
            self._print_line()

    def _end(self) -> None:
        self._bar.close()
        if self._step:
            self._print_line()

    def _print_line(self) -> None:
        if self._lines:
            write_stderr(f"{printable(self._step)}: {self._done:,}")
