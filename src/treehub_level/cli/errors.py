"""The errors of the command line itself. The store's errors are in `treehub_level.errors`."""

from __future__ import annotations

import os
import traceback
from typing import Final

#: The environment variable that makes an unexpected error print its traceback on stderr.
TRACEBACK_VARIABLE: Final = "TREEHUB_LEVEL_TRACEBACK"
#: The exit code of an unexpected error: ``EX_SOFTWARE`` of ``sysexits.h``.
EX_SOFTWARE: Final = 70
_ISSUES: Final = "https://github.com/treehub/treehub-level/issues"


class CommandError(Exception):
    """An error that ends a command with one line on stderr and exit code 1.

    Args:
        message: The subject, the problem and the remedy.
        code: A stable name for programs: ``CLI_…``, or the code of the `LevelError` that caused it.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


def is_usage_error(error: Exception) -> bool:
    """Return True if typer raised an error or an exit, and will handle it."""
    return type(error).__module__.partition(".")[0] in ("typer", "click")


def unexpected(error: Exception) -> CommandError:
    """Return the error to print for an exception that no command expects.

    With the environment variable `TRACEBACK_VARIABLE`, its traceback is printed first.
    """
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
        hint = "with the traceback above"
    else:
        hint = f"with the traceback, which {TRACEBACK_VARIABLE}=1 prints"
    return CommandError(
        f"an unexpected {type(error).__name__}: {error!s:.200}; this is a fault of treehub-level, please report it at "
        f"{_ISSUES} {hint}",
        code="CLI_INTERNAL",
    )
