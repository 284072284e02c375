"""The commands of a server: `serve`, and `token` for those who may use it."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from typing import Annotated

import typer

from ..http import Hub, Tokens
from ..http.server.tokens import EVERY, Token
from .errors import CommandError
from .options import Backend, JSONOutput, MetadataPrefix
from .output import print_json, print_line

_DAY_SECONDS = 24 * 60 * 60
_LISTEN = "Listening"
_SAFETY = "Safety"

TokensFile = Annotated[str, typer.Argument(metavar="FILE", help="The file of tokens.")]


def serve(
    root: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URL",
            envvar="TREEHUB_LEVEL_ROOT",
            help="A server store, or a directory of them; for --backend postgres, the URL of a database.",
        ),
    ],
    create: Annotated[
        list[str] | None,
        typer.Option("--create", metavar="NAME", help="Make the store NAME if it is not there. Repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.", rich_help_panel=_LISTEN)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any.", rich_help_panel=_LISTEN)] = 8421,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="PEM", help="The TLS certificate chain.", rich_help_panel=_LISTEN)
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="PEM", help="The certificate's key.", rich_help_panel=_LISTEN)
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="FILE", help="Who may do what: see `token`.", rich_help_panel=_SAFETY)
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A name that clients know this server by. Repeatable.", rich_help_panel=_SAFETY
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A web site whose pages may call. Repeatable.", rich_help_panel=_SAFETY),
    ] = None,
    compressed_requests: Annotated[
        bool, typer.Option("--compressed-requests", help="Take compressed requests.", rich_help_panel=_SAFETY)
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let other machines in without tokens and TLS.", rich_help_panel=_SAFETY),
    ] = False,
    max_open: Annotated[int, typer.Option(min=1, help="The most databases to have open.")] = 32,
    idle: Annotated[float, typer.Option(min=0, help="Seconds after which an unused database is closed.")] = 300,
    grace: Annotated[int, typer.Option(min=0, help="Seconds that requests have to finish when it stops.")] = 10,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Serve stores over HTTP until it is interrupted: each under the name of its directory, file, or in its table.

    They are looked up when they are asked for, so new stores are served, too. Nobody can make one
    over HTTP. Any number of servers may serve the same stores of the backends sqlite and postgres.
    A URL with a password is better given in the environment, as TREEHUB_LEVEL_ROOT: others can see
    the arguments of a process.
    """
    try:
        from ..http.server.run import ListenAddress
        from ..http.server.run import serve as run
    except ModuleNotFoundError as error:
        raise CommandError(
            f'a server needs {error.name}, which is not installed: pip install "treehub-level[server]"',
            code="CLI_MISSING_EXTRA",
        ) from error
    if tls_key is not None and tls_cert is None:
        raise typer.BadParameter("--tls-key is the key of a --tls-cert: give that, too")
    try:
        hub = Hub(
            root,
            create=create or (),
            backend=backend,
            prefix=metadata_prefix,
            max_open=max_open,
            idle_seconds=idle,
        )
        run(
            hub,
            ListenAddress(host=host, port=port, certificate=tls_cert, key=tls_key, insecure=insecure),
            tokens=None if tokens is None else Tokens(tokens),
            hosts=allow_host or (),
            origins=allow_origin or (),
            compressed_requests=compressed_requests,
            grace_seconds=grace,
            listening=lambda url: _announce(url, hub),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _announce(url: str, hub: Hub) -> None:
    names = hub.names()
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    print_line(f"serving {shown or 'nothing yet'} at {url}")
    sys.stdout.flush()


token = typer.Typer(name="token", help="Who may do what with a server: the tokens in a file.", no_args_is_help=True)


@token.command()
def add(
    file: TokensFile,
    database: Annotated[list[str], typer.Option(metavar="NAME", help="A database it is for; * for all. Repeatable.")],
    write: Annotated[bool, typer.Option("--write", help="It may write, too.")] = False,
    name: Annotated[
        str | None,
        typer.Option(help="Whose it is. A new token of the same name takes over the clients of an old one."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="It is only for keys that start so.")] = "",
    days: Annotated[float | None, typer.Option(min=0, help="Days after which it expires.")] = None,
    as_json: JSONOutput = False,
) -> None:
    """Make a token and print it. It cannot be shown again: the file has a hash of it."""
    expires = None if days is None else time.time() + days * _DAY_SECONDS
    try:
        made = Tokens(file).add(databases=database, write=write, name=name, prefix=prefix, expires=expires)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        print_json({"token": made})
    else:
        print_line(made)


@token.command(name="list")
def list_(file: TokensFile, as_json: JSONOutput = False) -> None:
    """Print the tokens: id, name, what it may do, with which databases and keys, and until when."""
    for item in Tokens(file).all():
        if as_json:
            print_json(_document(item))
        else:
            print_line(*_fields(item))


@token.command()
def revoke(
    file: TokensFile, id: Annotated[str, typer.Argument(metavar="ID", help="What `list` prints first.")]
) -> None:
    """Make a token worthless. A running server knows it from the next request on."""
    if not Tokens(file).revoke(id):
        raise CommandError(f"there is no token {id} in {file}: see `token list`", code="CLI_NO_TOKEN")
    print_line(f"revoked {id}")


def _document(item: Token) -> dict[str, object]:
    return {
        "id": item.id,
        "name": item.name,
        "databases": item.databases,
        "write": item.write,
        "prefix": item.prefix,
        "expires": _time(item.expires),
        "expired": item.is_expired(),
        "created": _time(item.created),
    }


def _fields(item: Token) -> list[str]:
    databases = "all databases" if EVERY in item.databases else ", ".join(item.databases)
    until = (
        "for ever" if item.expires is None else f"{'expired' if item.is_expired() else 'until'} {_time(item.expires)}"
    )
    keys = f"keys from {item.prefix!r}" if item.prefix else "all keys"
    return [item.id, item.name, "write" if item.write else "read", databases, keys, until]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
