"""Servers that a command reaches over the network: the address, and a token that does not show in `ps`."""

from __future__ import annotations

import os
import re
import stat
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import CommandError

if TYPE_CHECKING:
    from ..http.blocking import RemoteServer

#: The environment variable that holds a token.
TOKEN_VARIABLE = "TREEHUB_LEVEL_TOKEN"

_REMOTE = "Over the network"

TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"A file that holds the token (default: the environment variable {TOKEN_VARIABLE}).",
        rich_help_panel=_REMOTE,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Send the token to another machine without encryption.", rich_help_panel=_REMOTE),
]


def is_url(name: str) -> bool:
    """Whether a server is named by an address rather than a directory."""
    return re.match(r"https?://", name, re.IGNORECASE) is not None


def server_at(url: str, *, token_file: str | None, insecure: bool) -> AbstractContextManager[RemoteServer]:
    """The server at an address.

    Raises:
        CommandError: The extra is missing, or the file of the token cannot be used.
        typer.BadParameter: An address or a token that cannot be one, or a token that others could
        read on its way.
    """
    try:
        from ..http.blocking import RemoteServer
    except ImportError as error:
        raise CommandError(str(error), code="CLI_MISSING_EXTRA") from error
    token = os.environ.get(TOKEN_VARIABLE) if token_file is None else _read_token(token_file)
    try:
        return RemoteServer(url, token=token or None, insecure=insecure)
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("say insecure=True", "say --insecure")) from error


def _read_token(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise CommandError(f"{path} holds a token, and others may read it: chmod 600 {path}", code="CLI_TOKEN_FILE")
        token = file.read(1 << 16).strip()
    if not token:
        raise CommandError(f"{path} holds no token", code="CLI_TOKEN_FILE")
    return token
