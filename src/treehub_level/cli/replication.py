"""The commands for synchronisation: ``sync dirty conflicts changes history``."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from ..blocking import Level
from ..blocking.client import Exchanger
from ..errors import StoreMismatchError, TransportError
from ..types import Change, Conflict, Mode, SyncReport
from .errors import CommandError
from .following import change_followed, check_prefixes
from .live import keep_in_sync, until_stopped
from .options import Backend, Dir, JSONOutput, Key, Limit, MetadataPrefix
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
from .remote import Insecure, TokenFile, is_url, remote_server
from .stores import created_level, display_name, existing_level, readable_level

_MAX_CID = 2**53 - 1
_RANGES = "Ranges"
#: Changes per read of the log.
_PAGE = 1000


class OnReset(enum.Enum):
    """The reaction of ``sync`` to a server that was restored from a backup."""

    RESET = "reset"
    RAISE = "raise"


def changes(
    directory: Dir,
    since: Annotated[
        int,
        typer.Option(
            "--since", min=0, max=_MAX_CID, help="Only changes with a CID greater than this one.", metavar="CID"
        ),
    ] = 0,
    limit: Limit = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print a server's change log in CID order.

    Each line has the CID, `put` or `del`, the key and the value, separated by tabs.
    """
    with readable_level(directory, backend=backend, prefix=metadata_prefix) as level:
        for change in read_log(level, since, limit):
            if as_json:
                print_json(change_document(change))
            else:
                print_line(str(change.cid), *change_fields(change))


def history(
    directory: Dir,
    key: Key,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the changes of a key that a server's change log still holds, oldest first.

    Each line has the CID, the time, the author, `put` or `del`, the key and the value, separated by
    tabs. An unknown time or author is shown as `-`.
    """
    with readable_level(directory, backend=backend, prefix=metadata_prefix) as level:
        found = level.history(key)
    for change in found:
        if as_json:
            print_json(change_document(change))
        else:
            when = "-" if change.at is None else change.at.isoformat(timespec="milliseconds")
            print_line(str(change.cid), when, change.by or "-", *change_fields(change))


def read_log(level: Level, since: int, limit: int | None = None) -> Iterator[Change]:
    """Yield the changes of a server after a CID. They are read in pages.

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
    """Print a client's dirty changes in key order.

    A change is dirty until the server has acknowledged it.
    """
    with readable_level(directory, backend=backend, prefix=metadata_prefix) as level:
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
        typer.Option(
            "--restore", metavar="KEY", help="Write the newest overwritten change of KEY again, as a new local change."
        ),
    ] = None,
    dismiss: Annotated[
        str | None, typer.Option("--dismiss", metavar="KEY", help="Remove all entries of KEY from the journal.")
    ] = None,
    key_prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="TEXT", help="Only conflicts over keys that begin with this.")
    ] = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print a client's conflict journal, or resolve a key's conflicts.

    The journal has the local changes that a change of the server has overwritten, oldest first.
    Each line has the key, the lost value and the kept one, then further facts where they are known,
    separated by tabs.
    With --restore or --dismiss, the entries of one key are removed from it and printed.
    """
    if restore is not None and dismiss is not None:
        raise typer.BadParameter("give --restore or --dismiss, not both")
    key = dismiss if restore is None else restore
    open_level = readable_level if key is None else existing_level
    with open_level(directory, backend=backend, prefix=metadata_prefix) as level:
        found = level.conflicts(prefix=key_prefix)
        if key is not None:
            found = _resolve(level, found, key, restoring=restore is not None)
    for conflict in found:
        if as_json:
            print_json(conflict_document(conflict))
        else:
            print_line(*conflict_fields(conflict, with_time=True))


def _resolve(level: Level, found: list[Conflict], key: str, *, restoring: bool) -> list[Conflict]:
    """Restore or dismiss the conflicts of a key, and return them."""
    of_key = [conflict for conflict in found if conflict.key == key]
    if not of_key:
        raise CommandError(
            f"the conflict journal of {level.name} has no entry for the key {key!r}", code="CLI_NO_CONFLICT"
        )
    for conflict in of_key[:-1] if restoring else of_key:
        level.dismiss(conflict)
    if restoring:
        level.restore(of_key[-1])
    return of_key


def sync(
    client: Annotated[
        str, typer.Argument(metavar="CLIENT", help="The client store; it is created if it does not exist.")
    ],
    server: Annotated[
        str,
        typer.Argument(metavar="SERVER", help="The server: a server store, or a URL http(s)://HOST[:PORT]/v1/NAME."),
    ],
    pull: Annotated[bool, typer.Option("--pull/--no-pull", help="Fetch the changes of the server.")] = True,
    push: Annotated[bool, typer.Option("--push/--no-push", help="Send the dirty changes of the client.")] = True,
    on_reset: Annotated[
        OnReset,
        typer.Option(
            help="If the server was restored from a backup: `reset` pulls the whole store again, "
            "`raise` stops with an error."
        ),
    ] = OnReset.RESET,
    follow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="Follow the keys that begin with PREFIX, too; a new client follows only these. Repeatable.",
            rich_help_panel=_RANGES,
        ),
    ] = None,
    unfollow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="Follow the keys that begin with PREFIX no longer, and remove them from the client. Repeatable.",
            rich_help_panel=_RANGES,
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Go on until the process is stopped (SIGTERM, Ctrl-C): pull changes as they are committed."
        ),
    ] = False,
    rebind: Annotated[
        bool,
        typer.Option(
            "--rebind", help="If the client belongs to another server, let it follow this one, with its local changes."
        ),
    ] = False,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Synchronise a client with a server.

    Pull and push until nothing is left to do. Conflicts are resolved in the server's favour. The
    overwritten local changes are printed, and kept in the client's conflict journal: see
    `conflicts`.

    A client follows all keys, or those with some prefixes: --follow and --unfollow change them, as
    the commands `follow` and `unfollow` do.

    With --live it runs until it is stopped, then with exit code 0. It waits for a server that is
    away. It prints a line when it is in sync, when the server is away, and why; with --json all
    events.
    """
    if not pull and not push:
        raise typer.BadParameter("--no-pull and --no-push leave nothing to do")
    if live and not (pull and push):
        raise typer.BadParameter("--live pulls and pushes: leave out --no-pull and --no-push")
    add, remove = follow or [], unfollow or []
    check_prefixes(metadata_prefix, add)
    check_prefixes(metadata_prefix, remove)
    if both := sorted({*add} & {*remove}):
        raise typer.BadParameter(f"--follow and --unfollow both name the prefix {both[0]!r}")
    peer: AbstractContextManager[Exchanger]
    if is_url(server):
        peer = remote_server(server, token_file=token_file, insecure=insecure, renewing=live)
    elif os.path.realpath(client) == os.path.realpath(server):
        raise typer.BadParameter(f"CLIENT and SERVER are the same store: {display_name(client, backend=backend)}")
    else:
        peer = existing_level(server, mode=Mode.SERVER, backend=backend, prefix=metadata_prefix)
    opened = created_level(
        client, mode=Mode.CLIENT, backend=backend, prefix=metadata_prefix, create_as=Mode.CLIENT, follow=follow
    )
    if live:
        with until_stopped(), peer as server_level, opened as client_level:
            change_followed(client_level, add, remove)
            if rebind:
                rebind_if_needed(client_level, server_level, on_reset.value)
            keep_in_sync(client_level, server_level, on_reset=on_reset.value, as_json=as_json)
        return
    with peer as server_level, opened as client_level, progress_bar("sync", None) as advance:
        change_followed(client_level, add, remove)
        if rebind:
            rebind_if_needed(client_level, server_level, on_reset.value)
        report = client_level.sync(
            server_level,
            pull=pull,
            push=push,
            on_reset=on_reset.value,
            progress=lambda so_far: advance(so_far.pulled + so_far.pushed),
        )
    if as_json:
        print_json(_report_document(report))
    else:
        _print_report(report)


def rebind_if_needed(client: Level, server: Exchanger, on_reset: Any) -> None:
    """Sync a client; if it belongs to another server, make it follow this one.

    A server that is away is left to the next sync.
    """
    try:
        client.sync(server, on_reset=on_reset)
    except StoreMismatchError:
        client.rebind(server)
    except TransportError:
        return


def _report_document(report: SyncReport) -> dict[str, object]:
    return {
        "pulled": report.pulled,
        "filled": report.filled,
        "pushed": report.pushed,
        "conflicts": [conflict_document(conflict) for conflict in report.conflicts],
        "rejected": report.rejected,
        "refused": report.refused,
        "consistent": report.consistent,
        "cid": report.cid,
        "rounds": report.rounds,
        "reset": report.reset,
    }


def _print_report(report: SyncReport) -> None:
    print_table(
        [
            ("pulled", f"{report.pulled:,}"),
            ("filled", f"{report.filled:,}"),
            ("pushed", f"{report.pushed:,}"),
            ("rejected", f"{len(report.rejected):,}"),
            ("refused", f"{len(report.refused):,}"),
            ("conflicts", f"{len(report.conflicts):,}"),
            ("consistent", "yes" if report.consistent else "no"),
            ("rounds", f"{report.rounds:,}"),
            ("reset", "yes: the server's history was another one" if report.reset else "no"),
            ("CID", f"{report.cid:,}"),
        ]
    )
    for conflict in report.conflicts:
        print_line(*conflict_fields(conflict))
