"""``treehub-level``: the commands, and the one door through which errors leave."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import BackendNotFoundError, LevelError, __version__, _core
from ..backends import create
from . import copying, maintenance, records, replication, transfer
from . import serve as serving
from .errors import CommandError
from .options import JSON_WANTED
from .output import print_error, print_line


class ErrorHandlingGroup(TyperGroup):
    """Runs a command; what goes wrong becomes one line on stderr and an exit code, never a traceback.

    0 done, also if whoever read stdout went away; 1 an error; 2 a usage error (typer's own); 130
    interrupted.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError as error:
            # The reader has what it wanted. What is buffered still must not raise again when Python
            # flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except KeyboardInterrupt as error:
            message, code, status = str(error) or "interrupted", "CLI_INTERRUPTED", 130
        except (CommandError, LevelError) as error:
            message, code, status = str(error), error.code, 1
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            code, status = "CLI_IO", 1
        print_error(message, code, as_json=ctx.meta.get(JSON_WANTED, False))
        raise typer.Exit(status)


app = typer.Typer(
    name="treehub-level",
    cls=ErrorHandlingGroup,
    help="An ordered key-value store that keeps working offline and synchronises.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _engine() -> str:
    """The backend that stores on disk get here unless they ask for another."""
    try:
        return type(create("leveldb", "", {})).__name__
    except BackendNotFoundError:
        return "none"


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"treehub-level {__version__} (core: {_core.CORE}, engine: {_engine()})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print what is running.")
    ] = False,
) -> None:
    pass


for _command in (
    records.get,
    records.put,
    records.delete,
    records.query,
    records.keys,
    records.count,
    transfer.load,
    transfer.dump,
    maintenance.info,
    replication.changes,
    replication.dirty,
    replication.conflicts,
    replication.sync,
    maintenance.compact,
    maintenance.upgrade,
    copying.copy,
    maintenance.verify,
    maintenance.adopt,
    maintenance.repair,
    serving.serve,
):
    # To put a negative number is no unknown option.
    app.command(context_settings={"ignore_unknown_options": _command is records.put})(_command)
app.add_typer(serving.token)


def main() -> None:
    """Run the command line: the entry point ``treehub-level``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    # What psycopg logs of lost connections is in our errors, where it matters; stderr has a line
    # for each of those.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    app()
