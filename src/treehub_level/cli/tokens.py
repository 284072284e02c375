"""The commands ``token``, which manage access to a server."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Annotated, Final, TextIO

import typer

from ..fsync import sync_descriptor
from ..http import Token, Tokens
from ..http.server.identities import ALL_DATABASES
from .errors import CommandError
from .options import JSONOutput
from .output import print_json, print_line
from .streams import OutputError, ReaderGoneError, flush_stdout

_DAY_SECONDS = 24 * 60 * 60

TokensFile = Annotated[str, typer.Argument(metavar="FILE", help="The token file of the server.")]

token = typer.Typer(name="token", help="Manage the tokens that give access to a server.", no_args_is_help=True)


def add(
    file: TokensFile,
    database: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A store that the token gives access to, * for all stores; repeatable."),
    ],
    write: Annotated[bool, typer.Option("--write", help="Allow writing as well as reading.")] = False,
    operator: Annotated[
        bool, typer.Option("--operator", help="Allow creating, renaming, dropping and backing up the stores.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            help="The owner of the token, the same for a token that replaces another one. Without it, a terminal is "
            "asked; elsewhere the name is the id of the token."
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only give access to keys that begin with this prefix.")] = "",
    max_writes_per_minute: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The most changes that may be written with the token in a minute."),
    ] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Days until the token expires (default: never).")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the token to FILE, readable by its owner only, instead of stdout: the --token-file of `sync`.",
        ),
    ] = None,
    as_json: JSONOutput = False,
) -> None:
    """Create a token and print it.

    The token cannot be printed again: the file has only a hash of it.
    """
    if name is None:
        name = _asked_name()
    expires = None if days is None else time.time() + days * _DAY_SECONDS
    tokens = Tokens(file)
    with _token_output(output, file) as write_token:
        try:
            made = tokens.add(
                databases=database,
                write=write,
                name=name,
                prefix=prefix,
                operator=operator,
                expires=expires,
                max_writes_per_minute=max_writes_per_minute,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        id = made.partition(".")[0]
        try:
            if write_token is not None:
                write_token(made)
            elif as_json:
                print_json({"token": made, "id": id, "name": name or id})
            else:
                print_line(made)
            flush_stdout()
        except BaseException as error:
            tokens.revoke(id)  # its holder has not received it
            if isinstance(error, ReaderGoneError):
                raise OutputError("was closed by its reader: the token was revoked again") from error
            raise
    if output is not None and as_json:
        print_json({"id": id, "name": name or id, "output": output})
    elif output is not None:
        print_line(f"wrote the token {id} of {name or id} to {output}")


def _asked_name() -> str | None:
    """Ask for the name of a token's owner; return ``None`` where there is no terminal to ask."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    answer: str = typer.prompt("Name of the owner (a token that replaces this one needs the same name)", err=True)
    return answer


@contextmanager
def _token_output(output: str | None, file: str) -> Iterator[Callable[[str], None] | None]:
    """Yield a function that writes a token to the file ``output``; ``None`` without such a file.

    The file is replaced at the end of the block, and only if a token was written. Opening it first
    shows that it can be written, before there is a token.

    Raises:
        typer.BadParameter: ``output`` cannot be replaced, or is the token file of the server.
    """
    if output is None:
        yield None
        return
    target = os.path.realpath(output)
    if target == os.path.realpath(file):
        raise typer.BadParameter(f"{output} is the token file of the server: give another file", param_hint="--output")
    if os.path.exists(target) and not os.path.isfile(target):
        raise typer.BadParameter(f"{output} is not a file", param_hint="--output")
    descriptor, scratch = tempfile.mkstemp(prefix=".token-", dir=os.path.dirname(target))  # its mode is 0600
    try:
        with open(descriptor, "w", encoding="ascii") as stream:
            yield lambda made: _write_durably(stream, made)
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise


def _write_durably(stream: TextIO, token: str) -> None:
    stream.write(token + "\n")
    stream.flush()
    sync_descriptor(stream.fileno())


def list_(file: TokensFile, as_json: JSONOutput = False) -> None:
    """Print the tokens of a file.

    Each line has the id, the name, `read` or `write` (then `operator` for one), the stores, the
    keys and the expiry.
    """
    for item in Tokens(file).all():
        if as_json:
            print_json(token_document(item))
        else:
            print_line(*token_fields(item))


def revoke(
    file: TokensFile,
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of the token: the first field of `token list`.")],
) -> None:
    """Revoke a token.

    A running server refuses the token from the next request on.
    """
    id = id.partition(".")[0]  # the whole token is accepted, and not repeated
    if not Tokens(file).revoke(id):
        raise CommandError(f"there is no token {id} in {file}: see `token list`", code="CLI_NO_TOKEN")
    print_line(f"revoked {id}")


TOKEN_COMMANDS: Final[dict[str, Callable[..., None]]] = {"add": add, "list": list_, "revoke": revoke}


def token_document(item: Token) -> dict[str, object]:
    """Return a token as a JSON object, without its hash."""
    return {
        "id": item.id,
        "name": item.name,
        "databases": item.databases,
        "write": item.write,
        "operator": item.operator,
        "prefix": item.prefix,
        "max_writes_per_minute": item.max_writes_per_minute,
        "expires": _time(item.expires),
        "expired": item.is_expired(),
        "created": _time(item.created),
    }


def token_fields(item: Token) -> list[str]:
    """Return a token as fields of a line, without its hash."""
    databases = "all databases" if ALL_DATABASES in item.databases else ", ".join(item.databases)
    until = (
        "for ever" if item.expires is None else f"{'expired' if item.is_expired() else 'until'} {_time(item.expires)}"
    )
    keys = f"keys from {item.prefix!r}" if item.prefix else "all keys"
    right = ("write" if item.write else "read") + (" operator" if item.operator else "")
    return [item.id, item.name, right, databases, keys, until]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
