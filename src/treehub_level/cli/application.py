"""``treehub-level``: the table of commands, and the one place that turns errors into exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import BackendNotFoundError, LevelError, __version__, _core
from ..backends import create
from . import copying, maintenance, records, replication, serve, transfer
from .errors import EX_SOFTWARE, CommandError, is_usage_error, unexpected
from .options import JSON_WANTED
from .output import print_error, print_line


class ErrorHandlingGroup(TyperGroup):
    """A group that turns an error of a command into one line on stderr and an exit code.

    Exit codes: 0 success, also if the reader of stdout closes the pipe; 1 error; 2 usage error
    (raised by typer); 70 an exception that no command expects; 130 interrupted.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError as error:
            # Python flushes stdout once more at exit, which would raise again: discard the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except KeyboardInterrupt as error:
            message, code, status = str(error) or "interrupted", "CLI_INTERRUPTED", 130
        except (CommandError, LevelError) as error:
            message, code, status = str(error), error.code, 1
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            code, status = "CLI_IO", 1
        except Exception as error:
            if is_usage_error(error):
                raise
            message, code, status = str(unexpected(error)), "CLI_INTERNAL", EX_SOFTWARE
        print_error(message, code, as_json=ctx.meta.get(JSON_WANTED, False))
        raise typer.Exit(status)


app = typer.Typer(
    name="treehub-level",
    cls=ErrorHandlingGroup,
    help="An ordered key-value store that keeps working offline and synchronises.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # sub-commands inherit it
)


def _default_engine() -> str:
    """Return the name of the class behind the backend ``leveldb``, or ``none``."""
    try:
        return type(create("leveldb", "", {})).__name__
    except BackendNotFoundError:
        return "none"


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"treehub-level {__version__} (core: {_core.CORE}, engine: {_default_engine()})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, the core (c or python) and the LevelDB engine, and exit.",
        ),
    ] = False,
) -> None:
    pass


def _help_of(command: Callable[..., None]) -> str:
    """Return the docstring of a command, a paragraph per line: typer keeps single line breaks."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.__doc__ or "").split("\n\n"))


_COMMANDS = {
    "Records": (records.get, records.put, records.delete, records.query, records.keys, records.count),
    "Import and export": (transfer.load, transfer.dump),
    "Synchronisation": (replication.sync, replication.dirty, replication.conflicts, replication.changes),
    "Maintenance": (
        maintenance.info,
        maintenance.verify,
        maintenance.compact,
        copying.copy,
        maintenance.adopt,
        maintenance.upgrade,
        maintenance.repair,
    ),
    "Server": (serve.serve,),
}

for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        # ``put KEY -5``: a negative number is a value, not an unknown option.
        _settings = {"ignore_unknown_options": _command is records.put}
        app.command(rich_help_panel=_panel, help=_help_of(_command), context_settings=_settings)(_command)
app.add_typer(serve.token, rich_help_panel="Server")


def main() -> None:
    """Run the command line with the arguments of the process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    # psycopg logs each lost connection. Without a handler, logging would print these records on
    # stderr, beside our errors, which report the same.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    app()
