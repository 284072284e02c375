"""The command line, which needs the extra ``cli``. ``treehub-level --help`` lists its commands."""

from __future__ import annotations

import sys
from importlib import import_module

from ..extras import missing

__all__ = ["main"]

#: The modules that the extra ``cli`` installs.
_REQUIRED = ("typer", "rich")


def main() -> None:
    """Run the command line: the entry point of ``treehub-level`` and ``python -m treehub_level``.

    Raises:
        SystemExit: Always, with the exit code of the command; 1 if typer or rich is not installed.
    """
    try:
        for module in _REQUIRED:  # rich is else imported only by the commands that print with it
            import_module(module)
        from .application import main as run
    except ModuleNotFoundError as error:
        if error.name not in _REQUIRED:
            raise
        sys.exit(f"error: {missing('the command line', error.name, 'cli')}")
    run()
