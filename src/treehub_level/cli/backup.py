"""The commands ``backup`` and ``restore``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..backends import create
from ..blocking import restore as restore_store
from ..redaction import redact_url
from ..types import BackupReport, Mode
from .options import Backend, JSONOutput, MetadataPrefix
from .output import print_json, print_line
from .progress import StepsProgress
from .remote import Insecure, TokenFile, is_url, remote_server
from .stores import check_prefix, display_name, readable_level

#: The last line of the report of ``restore``, by mode.
_IDENTITY = {
    Mode.NORMAL: "{name} is a store of its own",
    Mode.SERVER: "{name} is the same server: serve it instead of the old one. Clients that are ahead of it notice that "
    "at their next sync, and keep what it lacks in their journals: see `treehub-level conflicts`",
    Mode.CLIENT: "{name} is the same client: sync it instead of the old one. If both sync, the server notices, and one "
    "of them goes on under a new id",
}


def backup(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="The store, which other processes may have open; or a database of a server: http(s)://HOST/v1/NAME.",
        ),
    ],
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="The new backup; with --keep a folder of backups. A server has a folder of its own."
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="N", min=1, help="Add a backup to the folder DIR, and keep the newest N backups in it."
        ),
    ] = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
    token_file: TokenFile = None,
    insecure: Insecure = False,
) -> None:
    """Make a consistent, verified copy of a store that may be in use.

    The backup opens as the same store: with its identity, change log and journal. With --keep, only
    new tables of a LevelDB store are copied; the others are hard links to those of the backup
    before. To continue an interrupted backup, run the same command again. `restore` makes a store
    of a backup.
    """
    if is_url(store):
        _backup_remotely(store, directory, keep, as_json=as_json, token_file=token_file, insecure=insecure)
        return
    if directory is None:
        raise typer.BadParameter("name the backup to make", param_hint="DIR")
    level = readable_level(store, backend=backend, prefix=metadata_prefix)
    with level, StepsProgress(lines=False) as steps:
        report = level.backup(directory, keep=keep, progress=steps.advance)
    if as_json:
        print_json(_document(report))
        return
    name = display_name(store, backend=backend)
    shared = report.bytes - report.new_bytes
    at = "" if report.cid is None else f" at CID {report.cid:,}"
    print_line(f"backed up {name}{at} to {report.path}, and verified it")
    print_line(f"{report.bytes:,} bytes" + (f", {shared:,} of them shared with the backup before" if shared else ""))


def _document(report: BackupReport) -> dict[str, Any]:
    return {
        "path": report.path,
        "mode": report.mode.value,
        "cid": report.cid,
        "bytes": report.bytes,
        "new_bytes": report.new_bytes,
    }


def _backup_remotely(
    url: str, directory: str | None, keep: int | None, *, as_json: bool, token_file: str | None, insecure: bool
) -> None:
    """Let a server back up a database to its own folder."""
    if directory is not None or keep is not None:
        raise typer.BadParameter(
            "a server backs up to its own folder, that of its option --backup-to: leave out DIR and --keep"
        )
    with remote_server(url, token_file=token_file, insecure=insecure) as server:
        found = server.backup()
    if as_json:
        print_json(found)
    else:
        print_line(f"the server backed up CID {found['cid']:,} as {found['name']}, and verified it")
        print_line(f"{found['bytes']:,} bytes, {found['new_bytes']:,} of them new")


def restore(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="The backup; or a folder of backups, of which the newest is restored.")
    ],
    store: Annotated[str, typer.Argument(metavar="STORE", help="The new store. Nothing that exists is replaced.")],
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Make a new store of a backup, on any backend, and verify it.

    The store is the one that was backed up, as it was then. The backup is only read. If the command
    is interrupted, run it again.
    """
    check_prefix(metadata_prefix)
    try:
        target = create(backend, store, {})
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    with StepsProgress(lines=False) as steps:
        report = restore_store(
            directory, store, backend=lambda _: target, prefix=metadata_prefix, progress=steps.advance
        )
    if as_json:
        print_json({"path": report.path, "mode": report.mode.value, "cid": report.cid})
        return
    name = redact_url(target.name)
    at = "" if report.cid is None else f" at CID {report.cid:,}"
    print_line(f"restored {report.path}{at} to {name}, and verified it")
    print_line(_IDENTITY[report.mode].format(name=name))
