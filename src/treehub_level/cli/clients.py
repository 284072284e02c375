"""The command ``clients``: the clients that a server knows, and forgetting one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from ..engine.clock import utc_text
from ..replication.clients import client_document
from ..types import ClientInfo
from .errors import CommandError
from .options import Backend, JSONOutput, MetadataPrefix
from .output import print_json, print_line
from .remote import Insecure, TokenFile, is_url, remote_server
from .stores import existing_level, readable_level


def clients(
    server: Annotated[
        str,
        typer.Argument(
            metavar="STORE|URL", help="A server store, or the URL of a database (http://HOST:PORT/v1/NAME)."
        ),
    ],
    forget: Annotated[
        str | None,
        typer.Option("--forget", metavar="ID", help="Remove the records of this client, which is gone for good."),
    ] = None,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the clients that have pushed to a server.

    Each line has the id, the name of its token, the time and the CID of its last push, the changes
    of the server since then, and the number of changes that the server has refused. On a server
    at a URL this needs the token of an operator.
    """
    opened: AbstractContextManager[Any]
    if is_url(server):
        opened = remote_server(server, token_file=token_file, insecure=insecure)
    else:
        open_level = readable_level if forget is None else existing_level
        opened = open_level(server, backend=backend, prefix=metadata_prefix)
    with opened as level:
        found: list[ClientInfo] = level.clients() if forget is None else []
        is_known = forget is None or level.forget_client(forget)
    if not is_known:
        raise CommandError(f"{server} knows no client {forget}: see `treehub-level clients`", code="CLI_NO_CLIENT")
    if forget is not None:
        print_json({"forgotten": forget}) if as_json else print_line(f"forgot {forget}")
    for client in found:
        if as_json:
            print_json(client_document(client))
        else:
            print_line(*client_fields(client))


def client_fields(client: ClientInfo) -> list[str]:
    """Return a client as fields of a line."""
    if client.pushed_cid is None:
        pushed = "nothing accepted"
    else:
        at = "at an unknown time" if client.pushed_at is None else utc_text(client.pushed_at)
        pushed = f"pushed {at}, CID {client.pushed_cid}"
    return [client.id, client.name or "-", pushed, f"{client.behind} behind", f"{client.refused} refused"]
