"""The server of a command that syncs over the network: its URL and its bearer token."""

from __future__ import annotations

import os
import re
import stat
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import CommandError

if TYPE_CHECKING:
    from ..http.blocking import RemoteServer

#: The environment variable that holds a token. An option would show the token in ``ps``.
TOKEN_VARIABLE = "TREEHUB_LEVEL_TOKEN"
#: The longest content of a token file that is read. Tokens have fewer than 100 characters.
_MAX_TOKEN_CHARACTERS = 1 << 16

_NETWORK = "Network"

TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"The file that contains the token (default: the environment variable {TOKEN_VARIABLE}).",
        rich_help_panel=_NETWORK,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Send the token to another machine over plain, unencrypted HTTP.", rich_help_panel=_NETWORK
    ),
]


def is_url(name: str) -> bool:
    """True if a server is named by an HTTP URL, not by a local store."""
    return re.match(r"https?://", name, re.IGNORECASE) is not None


def remote_server(
    url: str, *, token_file: str | None, insecure: bool, renewing: bool = False
) -> AbstractContextManager[RemoteServer]:
    """Return the server at a URL, not connected yet.

    Args:
        url: The URL, ``http(s)://HOST[:PORT]/v1/NAME``.
        token_file: The file with the token; ``None`` for the environment variable.
        insecure: True to send a token to another machine without TLS.
        renewing: True to read the token file again after the server has rejected the token.

    Raises:
        CommandError: The extra ``http`` is not installed, or the token file cannot be used.
        typer.BadParameter: The URL or the token is malformed, or the token would be sent without
            TLS and ``insecure`` is false.
    """
    try:
        from ..http.blocking import RemoteServer
    except ImportError as error:
        raise CommandError(str(error), code="CLI_MISSING_EXTRA") from error
    token = os.environ.get(TOKEN_VARIABLE) if token_file is None else _read_token(token_file)
    source = _RenewedToken(token_file, token) if renewing and token_file is not None and token else token or None
    try:
        return RemoteServer(url, token=source, insecure=insecure)
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("pass insecure=True", "pass --insecure")) from error


class _RenewedToken:
    """Returns the token in a file; the previous one while the file cannot be used."""

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        self._token = token

    def __call__(self) -> str:
        with suppress(OSError, CommandError):
            self._token = _read_token(self._path)
        return self._token


def _read_token(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
            raise CommandError(
                f"the token file {path} can be read by other users: run chmod 600 {path}", code="CLI_TOKEN_FILE"
            )
        token = file.read(_MAX_TOKEN_CHARACTERS).strip()
    if not token:
        raise CommandError(
            f"the token file {path} is empty: write the token into it that `treehub-level token add` printed",
            code="CLI_TOKEN_FILE",
        )
    return token
