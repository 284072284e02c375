"""``treehub-level``: the table of commands, and the one place that turns errors into exit codes."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import BackendNotFoundError, LevelError, __version__, _core
from ..backends import create
from ..backends.holder import announce
from ..redaction import redact_text
from . import (
    backup,
    clients,
    copying,
    databases,
    following,
    maintenance,
    records,
    replication,
    serve,
    tokens,
    transfer,
    upgrading,
)
from .errors import EX_SOFTWARE, CommandError, is_usage_error, unexpected
from .options import JSON_WANTED
from .output import print_error, print_line, printable
from .streams import OutputError, ReaderGoneError, flush_stdout, prepare_streams, require_stdout

#: The base of all usage errors, which typer does not export.
_USAGE_ERROR: Any = typer.BadParameter.__base__


class ErrorHandlingGroup(TyperGroup):
    """A group that turns an error of a command into one line on stderr and an exit code.

    Exit codes: 0 success, also if the reader of stdout closes the pipe; 1 error; 2 usage error
    (raised by typer); 70 an exception that no command expects; 130 interrupted.
    """

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable_usage_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage_errors():
                result = super().invoke(ctx)
            flush_stdout()
            return result
        except ReaderGoneError as error:
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


@contextmanager
def _printable_usage_errors() -> Iterator[None]:
    """Escape and redact the messages of usage errors, which quote arguments."""
    try:
        yield
    except _USAGE_ERROR as error:
        message = error.format_message()
        error.format_message = lambda: printable(redact_text(message))
        raise


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


#: Commands that print nothing without --json.
_SILENT = (records.put, records.delete)
#: Commands that print once their work is done, so that it stays done if they cannot print.
_REPORTING = (
    records.put,
    records.delete,
    transfer.load,
    replication.sync,
    following.follow,
    following.unfollow,
    maintenance.compact,
    maintenance.adopt,
    maintenance.upgrade,
    maintenance.repair,
    copying.copy,
    backup.backup,
    backup.restore,
    databases.create,
    databases.rename,
    databases.drop,
    databases.undrop,
    backup.backup,
    backup.restore,
    clients.clients,
    tokens.revoke,
)


def _checked(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that checks stdout before its work, and flushes it afterwards.

    A command that could not print its result does nothing. A server prints to its operator only.
    """

    @functools.wraps(command)
    def checked(*args: Any, **options: Any) -> None:
        if command is not serve.serve and (command not in _SILENT or options.get("as_json")):
            require_stdout()
        try:
            command(*args, **options)
            flush_stdout()
        except OutputError as error:
            if command not in _REPORTING:
                raise
            done = "the command has done its work, and only its report is lost"
            raise CommandError(f"{error}; {done}", code=error.code) from error

    return checked


_COMMANDS = {
    "Records": (records.get, records.put, records.delete, records.query, records.keys, records.count),
    "Import and export": (transfer.load, transfer.dump),
    "Synchronisation": (
        replication.sync,
        following.follow,
        following.unfollow,
        following.followed,
        replication.dirty,
        replication.conflicts,
        replication.changes,
        replication.history,
    ),
    "Maintenance": (
        maintenance.info,
        maintenance.verify,
        maintenance.compact,
        backup.backup,
        backup.restore,
        copying.copy,
        maintenance.adopt,
        upgrading.check,
        maintenance.upgrade,
        maintenance.repair,
    ),
    "Server": (
        serve.serve,
        databases.create,
        databases.rename,
        databases.drop,
        databases.undrop,
        databases.list_,
        clients.clients,
    ),
}

for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        # ``put KEY -5``: a negative number is a value, not an unknown option.
        _settings: dict[str, object] = {"ignore_unknown_options": _command is records.put}
        if _command is serve.serve:
            _settings["auto_envvar_prefix"] = serve.VARIABLE_PREFIX
        _name = _command.__name__.rstrip("_")  # `list_`: the name of a built-in type is taken
        app.command(_name, rich_help_panel=_panel, help=_help_of(_command), context_settings=_settings)(
            _checked(_command)
        )
for _name, _token_command in tokens.TOKEN_COMMANDS.items():
    tokens.token.command(_name, help=_help_of(_token_command))(_checked(_token_command))
app.add_typer(tokens.token, rich_help_panel="Server")


def _commands_by_name() -> set[str]:
    """Return the names of the commands: an argument that is none of them may be private."""
    return {command.name for command in app.registered_commands if command.name is not None}


def main() -> None:
    """Run the command line with the arguments of the process, and exit."""
    prepare_streams()
    announce(program=" ".join(["treehub-level", *filter(_commands_by_name().__contains__, sys.argv[1:2])]))
    # psycopg logs each lost connection. Without a handler, logging would print these records on
    # stderr, beside our errors, which report the same.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    _log_to_stderr()
    code: Any = 0
    try:
        try:
            app()
        except SystemExit as ended:
            code = ended.code
        flush_stdout()  # the output of --help and --version, which end before `invoke`
    except ReaderGoneError:
        pass
    except OutputError as error:
        print_error(str(error), error.code, as_json=False)
        code = code or 1
    sys.exit(code)


def _log_to_stderr() -> None:
    """Print the warnings of the library as errors are printed: one line each, without secrets."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_WarningFormatter())
    logging.getLogger("treehub_level").addHandler(handler)


class _WarningFormatter(logging.Formatter):
    """Formats a warning of the library on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {printable(redact_text(super().format(record)))}"
