"""The command ``serve``."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Annotated, Final

import typer

from ..backends.holder import announce
from ..engine.retention import Retention
from ..extras import missing
from ..http import Hub, Limits, Tokens
from ..http.server.backups import KEEP
from ..http.server.logs import LogFormat, LogLevel, LogSettings
from ..http.server.tokens import TemporaryToken
from ..replication.rules import Check, require_check
from .configuration import (
    CheckConfig,
    Config,
    PrintConfig,
    configuration_text,
    report_changed_options,
    warn_of_unknown_variables,
)
from .durations import parse_duration
from .errors import CommandError
from .options import Backend, MetadataPrefix
from .output import print_block, print_line
from .quotas import parse_quotas
from .remote import TOKEN_VARIABLE
from .streams import OutputError, ReaderGoneError, flush_stdout

logger = logging.getLogger("treehub_level.http")
#: The begin of the environment variables of the options of ``serve``.
VARIABLE_PREFIX: Final = "TREEHUB_LEVEL_SERVE"
_LISTEN = "Listening"
_SECURITY = "Security"
_LOG = "Log"
_RETENTION = "What is kept"
_BACKUPS = "Backups"


def serve(
    context: typer.Context,
    root: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR|URL",
            envvar="TREEHUB_LEVEL_ROOT",
            help="A server store, or a directory of server stores; for --backend postgres, a database URL.",
        ),
    ] = None,
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
    log_format: Annotated[
        LogFormat, typer.Option(help="The format of the log on stderr.", rich_help_panel=_LOG)
    ] = "text",
    log_level: Annotated[
        LogLevel, typer.Option(help="The lowest level of log lines; requests are info.", rich_help_panel=_LOG)
    ] = "info",
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="Log each request.", rich_help_panel=_LOG)
    ] = True,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS|NETWORK",
            help="A reverse proxy whose header X-Forwarded-For gives the address of a client; repeatable.",
            rich_help_panel=_LOG,
        ),
    ] = None,
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
    config: Config = None,
    check_config: CheckConfig = False,
    print_config: PrintConfig = False,
) -> None:
    """Serve stores over HTTP until interrupted.

    The name of a store is the name of its directory, of its file or in its database. A store that
    is added while the server runs is served too. Stores cannot be created over HTTP.

    Without --tokens or --temporary-token, every user and program of this machine can read and write
    the stores.

    Several servers may serve the same stores of the backends sqlite and postgres. Give a URL that
    contains a password in the environment variable TREEHUB_LEVEL_ROOT: other users of the machine
    can see the arguments of a process.

    Each option may also stand in a file (--config) or in an environment variable: --max-open in
    TREEHUB_LEVEL_SERVE_MAX_OPEN. SIGHUP reads the token file and the certificate again.
    """
    warn_of_unknown_variables(context)
    if print_config:
        print_block(configuration_text(context))
        return
    if root is None:
        raise typer.BadParameter("give DIR or a URL, or `root` in a configuration file", param_hint="DIR|URL")
    try:
        from ..http.server.run import ListenAddress, check_server
        from ..http.server.run import serve as run
    except ModuleNotFoundError as error:
        raise CommandError(missing("a server", error.name, "server"), code="CLI_MISSING_EXTRA") from error
    if tls_key is not None and tls_cert is None:
        raise typer.BadParameter("--tls-key needs the certificate of the key: give --tls-cert too")
    if tokens is not None and temporary_token:
        raise typer.BadParameter("--tokens and --temporary-token: give one of them")
    retain = retention_of(compact_every, keep_history, keep_changes, keep_clients)
    if backup_every is not None and backup_to is None:
        raise typer.BadParameter("--backup-every needs a folder for the backups: give --backup-to DIR too")
    period = None if backup_every is None else parse_duration(backup_every)
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
            retain=retain,
            backup_to=backup_to,
            keep_backups=keep,
            quota=parse_quotas(quota or ()),
        )
        if period is not None:
            hub.back_up_every(period)
        address = ListenAddress(host=host, port=port, certificate=tls_cert, key=tls_key, insecure=insecure)
        if check_config:
            check_server(hub, address, required)
            print_line("the configuration is valid")
            return
        run(
            hub,
            address,
            tokens=required,
            hosts=allow_host or (),
            origins=allow_origin or (),
            compressed_requests=compressed_requests,
            grace_seconds=grace,
            limits=Limits(connections=max_connections, address_connections=max_per_address),
            proxies=trust_proxy or (),
            log=LogSettings(format=log_format, level=log_level, access_log=access_log),
            on_listening=lambda url: _announce(url, hub, required, retain),
            on_reload=lambda: report_changed_options(context),
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
