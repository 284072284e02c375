"""What goes wrong in the command line itself. The store's own errors are in `treehub_level.errors`."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot go on. It becomes one line on stderr and exit code 1.

    Args:
        message: What was wrong, with what, and what to do now.
        code: A stable name for programs: ``CLI_…``, or the code of the `LevelError` that stands
            behind it.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
