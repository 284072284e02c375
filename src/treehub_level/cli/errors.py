"""The errors of the command line itself. The store's errors are in `treehub_level.errors`."""

from __future__ import annotations


class CommandError(Exception):
    """An error that ends a command with one line on stderr and exit code 1.

    Args:
        message: The subject, the problem and the remedy.
        code: A stable name for programs: ``CLI_…``, or the code of the `LevelError` that caused it.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
