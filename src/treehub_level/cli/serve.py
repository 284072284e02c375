"""The commands of a server: ``serve``, and ``token`` for access to it."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Annotated, Final, TextIO

import typer

from ..backends.holder import announce
from ..engine.retention import Retention
from ..extras import missing
from ..http import Hub, Limits, Token, Tokens
from ..http.server.backups import KEEP
from ..http.server.identities import ALL_DATABASES
from ..http.server.tokens import TemporaryToken
from ..replication.rules import Check, require_check
from .durations import parse_duration
from .errors import CommandError
from .options import Backend, JSONOutput, MetadataPrefix
from .output import print_json, print_line
from .quotas import parse_quotas
from .remote import TOKEN_VARIABLE
from .streams import OutputError, ReaderGoneError, flush_stdout

logger = logging.getLogger("treehub_level.http")
_DAY_SECONDS = 24 * 60 * 60
_LISTEN = "Listening"
_SECURITY = "Security"
_BACKUPS = "Backups"
_RETENTION = "What is kept"

TokensFile = Annotated[str, typer.Argument(metavar="FILE", help="The token file of the server.")]


def serve(
    root: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URL",
            envvar="TREEHUB_LEVEL_ROOT",
            help="A server store, or a directory of server stores; for --backend postgres, a database URL.",
        ),
    ],
    create: Annotated[
        list[str] | None,
        typer.Option("--create", metavar="NAME", help="Create the store NAME if it does not exist; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.", rich_help_panel=_LISTEN)] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free port.", rich_help_panel=_LISTEN),
    ] = 8421,
    tls_cert: Annotated[
        str | None,
        typer.Option(metavar="PEM", help="The file with the TLS certificate chain.", rich_help_panel=_LISTEN),
    ] = None,
    tls_key: Annotated[
        str | None,
        typer.Option(
            metavar="PEM", help="The file with the private key of the TLS certificate.", rich_help_panel=_LISTEN
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The token file; requests then need a token (see `token`).", rich_help_panel=_SECURITY
        ),
    ] = None,
    temporary_token: Annotated[
        bool,
        typer.Option(
            "--temporary-token",
            help="Make a token for all stores, print it, and require it until this server stops.",
            rich_help_panel=_SECURITY,
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A host name that requests may be addressed to (`Host` header); repeatable.",
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A web origin whose pages may send requests (CORS); repeatable.",
            rich_help_panel=_SECURITY,
        ),
    ] = None,
    compressed_requests: Annotated[
        bool, typer.Option("--compressed-requests", help="Accept compressed request bodies.", rich_help_panel=_SECURITY)
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen to other machines without tokens or TLS.", rich_help_panel=_SECURITY),
    ] = False,
    max_open: Annotated[int, typer.Option(min=1, help="The maximum number of stores open at a time.")] = 32,
    idle: Annotated[float, typer.Option(min=0, help="Seconds without requests after which a store is closed.")] = 300,
    max_connections: Annotated[int, typer.Option(min=1, help="The maximum number of connections at a time.")] = 2000,
    max_per_address: Annotated[
        int,
        typer.Option(min=1, help="The maximum number of them from one address; raise it behind a reverse proxy."),
    ] = 1000,
    grace: Annotated[
        int, typer.Option(min=0, help="Seconds that running requests may take to finish when the server stops.")
    ] = 10,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="The function that may refuse the changes of clients, as package.module:name.",
        ),
    ] = None,
    backup_to: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Back up each store to the folder DIR/NAME, when an operator asks, and every --backup-every.",
            rich_help_panel=_BACKUPS,
        ),
    ] = None,
    backup_every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="The time between two backups of a store: 6h, 30m, 1d.", rich_help_panel=_BACKUPS
        ),
    ] = None,
    keep: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="The number of backups to keep of each store.", rich_help_panel=_BACKUPS),
    ] = KEEP,
    compact_every: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The time between two compactions of each log, such as 1h; 0 keeps every log whole.",
            rich_help_panel=_RETENTION,
        ),
    ] = "1h",
    keep_history: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The time for which changes stay in the log after later ones of the same key supersede them.",
            rich_help_panel=_RETENTION,
        ),
    ] = "7d",
    keep_changes: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="The most changes that are kept for that time.", rich_help_panel=_RETENTION
        ),
    ] = 1_000_000,
    keep_clients: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The time without a sync after which a client may have to take all entries again.",
            rich_help_panel=_RETENTION,
        ),
    ] = "90d",
    quota: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE",
            help="The most bytes of entries in the store NAME (* for all), such as notes=10GB; also keys, as in "
            "notes=1000000keys, and changes a minute, as in notes=6000/min; repeatable.",
            rich_help_panel=_RETENTION,
        ),
    ] = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Serve stores over HTTP until interrupted.

    The name of a store is the name of its directory, of its file or in its database. A store that
    is added while the server runs is served too. Stores cannot be created over HTTP.

    Without --tokens or --temporary-token, every user and program of this machine can read and write
    the stores.

    Several servers may serve the same stores of the backends sqlite and postgres. Give a URL that
    contains a password in the environment variable TREEHUB_LEVEL_ROOT: other users of the machine
    can see the arguments of a process.
    """
    try:
        from ..http.server.run import ListenAddress
        from ..http.server.run import serve as run
    except ModuleNotFoundError as error:
        raise CommandError(missing("a server", error.name, "server"), code="CLI_MISSING_EXTRA") from error
    if tls_key is not None and tls_cert is None:
        raise typer.BadParameter("--tls-key needs the certificate of the key: give --tls-cert too")
    if tokens is not None and temporary_token:
        raise typer.BadParameter("--tokens and --temporary-token: give one of them")
    if backup_every is not None and backup_to is None:
        raise typer.BadParameter("--backup-every needs a folder for the backups: give --backup-to DIR too")
    period = None if backup_every is None else parse_duration(backup_every)
    retain = retention_of(compact_every, keep_history, keep_changes, keep_clients)
    required = TemporaryToken() if temporary_token else None if tokens is None else Tokens(tokens)
    try:
        hub = Hub(
            root,
            create=create or (),
            backend=backend,
            prefix=metadata_prefix,
            max_open=max_open,
            idle_seconds=idle,
            check=None if check is None else _imported(check),
            backup_to=backup_to,
            keep_backups=keep,
            retain=retain,
            quota=parse_quotas(quota or ()),
        )
        if period is not None:
            hub.back_up_every(period)
        run(
            hub,
            ListenAddress(host=host, port=port, certificate=tls_cert, key=tls_key, insecure=insecure),
            tokens=required,
            hosts=allow_host or (),
            origins=allow_origin or (),
            compressed_requests=compressed_requests,
            grace_seconds=grace,
            limits=Limits(connections=max_connections, address_connections=max_per_address),
            on_listening=lambda url: _announce(url, hub, required, retain),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _imported(reference: str) -> Check:
    """Return the function that ``package.module:name`` refers to.

    Raises:
        typer.BadParameter: There is no such function, its module cannot be imported, or a server
            cannot call it.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise typer.BadParameter(f"{reference!r} is not package.module:function", param_hint="--check")
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # the module may raise anything
        fault = f"{type(error).__name__}: {error!s:.300}"
        raise typer.BadParameter(f"{reference} cannot be imported: {fault}", param_hint="--check") from error
    try:
        check = require_check(found)
    except TypeError as error:
        raise typer.BadParameter(f"{reference}: {error}", param_hint="--check") from error
    if check is None:
        raise typer.BadParameter(f"{reference} is None, and not a function", param_hint="--check")
    return check


def retention_of(compact_every: str, keep_history: str, keep_changes: int, keep_clients: str) -> Retention | None:
    """Return the retention that the options ask for; ``None`` if each log is kept whole.

    Raises:
        typer.BadParameter: A duration is malformed, or too long.
    """
    every = parse_duration(compact_every)
    if not every:
        return None
    try:
        return Retention(
            superseded_after=parse_duration(keep_history),
            max_changes=keep_changes,
            clients_unseen_after=parse_duration(keep_clients),
            every=every,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _announce(url: str, hub: Hub, tokens: Tokens | None, retain: Retention | None) -> None:
    """Print the URL and a temporary token. A server without a usable stdout serves all the same."""
    logger.info("%s", "every log is kept whole" if retain is None else retain.description)
    announce(url=url)  # in the lock files of the stores, for other processes that need them
    names = hub.names()
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    try:
        print_line(f"serving {listed or 'nothing yet'} at {url}")
        if isinstance(tokens, TemporaryToken):
            print_line(f"{TOKEN_VARIABLE}={tokens.credentials}")
        elif tokens is None:
            print_line("every user and program of this machine can read and write: see --temporary-token and --tokens")
        flush_stdout()
    except (OutputError, ReaderGoneError) as error:
        if isinstance(tokens, TemporaryToken):
            raise  # no client could use the server
        logger.warning("the URL %s could not be printed: %s", url, error or "the reader of stdout is gone")


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
    os.fsync(stream.fileno())


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
