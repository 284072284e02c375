"""The commands about changes: a server's log, a client's dirty set, what lost, and how both are brought together."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from ..blocking import Level
from ..blocking.client import Exchanger
from ..types import Change, Conflict, Mode, SyncReport
from .errors import CommandError
from .options import Backend, Dir, JSONOutput, Limit, MetadataPrefix
from .output import (
    change_document,
    change_fields,
    conflict_document,
    conflict_fields,
    print_json,
    print_line,
    print_table,
)
from .progress import progress_bar
from .remote import Insecure, TokenFile, is_url, server_at
from .stores import level_at, shown

_MAX_CID = 2**53 - 1
#: Changes that are read from the log at a time.
_PAGE = 1000


class OnReset(enum.Enum):
    """What to do when the server's history is not the one that the client has seen."""

    RESET = "reset"
    RAISE = "raise"


def changes(
    directory: Dir,
    since: Annotated[int, typer.Option("--since", min=0, max=_MAX_CID, help="Only changes after this CID.")] = 0,
    limit: Limit = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print a server's log, in CID order: the CID, what was done, the key, the value."""
    with level_at(directory, mode=None, backend=backend, prefix=metadata_prefix) as level:
        for change in log(level, since, limit):
            if as_json:
                print_json(change_document(change))
            else:
                print_line(str(change.cid), *change_fields(change))


def log(level: Level, since: int, limit: int | None = None) -> Iterator[Change]:
    """The changes of a server after a CID, a page at a time.

    Raises:
        LevelError: See ``Level.changes``.
    """
    left = _MAX_CID if limit is None else limit
    more = True
    while more:
        since, page, more = level.changes(since, limit=min(left, _PAGE))
        yield from page
        left -= len(page)
        more = more and left > 0


def dirty(
    directory: Dir,
    limit: Limit = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print a client's changes that no server has acknowledged, in key order."""
    with level_at(directory, mode=None, backend=backend, prefix=metadata_prefix) as level:
        found = level.dirty(limit)
    for change in found:
        if as_json:
            print_json(change_document(change))
        else:
            print_line(*change_fields(change))


def conflicts(
    directory: Dir,
    restore: Annotated[
        str | None,
        typer.Option("--restore", metavar="KEY", help="Write what lost under KEY again, as a new local change."),
    ] = None,
    dismiss: Annotated[str | None, typer.Option("--dismiss", metavar="KEY", help="Forget what lost under KEY.")] = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print a client's changes that lost to the server's, oldest first, or settle those of a key.

    If a key lost several times, --restore takes the newest.
    """
    if restore is not None and dismiss is not None:
        raise typer.BadParameter("give --restore or --dismiss, not both")
    with level_at(directory, mode=None, backend=backend, prefix=metadata_prefix) as level:
        found = level.conflicts()
        key = dismiss if restore is None else restore
        if key is not None:
            found = _settle(level, found, key, restoring=restore is not None)
    for conflict in found:
        if as_json:
            print_json(conflict_document(conflict))
        else:
            print_line(*conflict_fields(conflict))


def _settle(level: Level, found: list[Conflict], key: str, *, restoring: bool) -> list[Conflict]:
    """Restore or dismiss what lost under a key, and return it."""
    mine = [conflict for conflict in found if conflict.key == key]
    if not mine:
        raise CommandError(f"nothing that lost is kept for the key {key!r} in {level.name}", code="CLI_NO_CONFLICT")
    for conflict in mine[:-1] if restoring else mine:
        level.dismiss(conflict)
    if restoring:
        level.restore(mine[-1])
    return mine


def sync(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="The client. It is made if there is none.")],
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="The server: a store, or http(s)://HOST[:PORT]/v1/NAME.")
    ],
    pull: Annotated[bool, typer.Option("--pull/--no-pull", help="Take all that the server has.")] = True,
    push: Annotated[bool, typer.Option("--push/--no-push", help="Send what is dirty.")] = True,
    on_reset: Annotated[
        OnReset,
        typer.Option(help="If the server was restored from a backup: pull everything anew, or stop before that."),
    ] = OnReset.RESET,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Synchronise a client with a server, here or across the network, until both are drained.

    The server wins. What lost is printed, and kept on the client: see `conflicts`.
    """
    if not pull and not push:
        raise typer.BadParameter("--no-pull and --no-push leave nothing to do")
    found: AbstractContextManager[Exchanger]
    if is_url(server):
        found = server_at(server, token_file=token_file, insecure=insecure)
    elif os.path.realpath(client) == os.path.realpath(server):
        raise typer.BadParameter(f"CLIENT and SERVER are the same store: {shown(client, backend=backend)}")
    else:
        found = level_at(server, mode=Mode.SERVER, backend=backend, prefix=metadata_prefix)
    with (
        found as serving,
        level_at(client, mode=Mode.CLIENT, backend=backend, prefix=metadata_prefix, fresh=Mode.CLIENT) as syncing,
        progress_bar("sync", None) as advance,
    ):
        report = syncing.sync(
            serving,
            pull=pull,
            push=push,
            on_reset=on_reset.value,
            progress=lambda so_far: advance(so_far.pulled + so_far.pushed),
        )
    if as_json:
        print_json(_report_document(report))
    else:
        _print_report(report)


def _report_document(report: SyncReport) -> dict[str, object]:
    return {
        "pulled": report.pulled,
        "pushed": report.pushed,
        "conflicts": [conflict_document(conflict) for conflict in report.conflicts],
        "rejected": report.rejected,
        "cid": report.cid,
        "rounds": report.rounds,
        "reset": report.reset,
    }


def _print_report(report: SyncReport) -> None:
    print_table(
        [
            ("pulled", f"{report.pulled:,}"),
            ("pushed", f"{report.pushed:,}"),
            ("rejected", f"{len(report.rejected):,}"),
            ("conflicts", f"{len(report.conflicts):,}"),
            ("rounds", f"{report.rounds:,}"),
            ("reset", "yes: the server's history was another one" if report.reset else "no"),
            ("CID", f"{report.cid:,}"),
        ]
    )
    for conflict in report.conflicts:
        print_line(*conflict_fields(conflict))
