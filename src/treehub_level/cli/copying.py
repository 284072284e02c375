"""``copy``: a whole store, to another place or another backend."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..backends import create
from ..blocking import copy as copy_store
from ..types import Mode
from .options import JSONOutput, MetadataPrefix
from .output import counted, print_json, print_line
from .progress import StepsProgress
from .stores import check_prefix

#: What its owner has to know of a copy, by its mode: it is the same store to everybody who knew the
#: first.
_IDENTITY: Final = {
    Mode.NORMAL: "{source} was left as it is",
    Mode.SERVER: "{target} is that server now, to its clients too: serve it in the place of {source}, and write to "
    "{source} no more",
    Mode.CLIENT: "{target} is that client now, to its server too: sync it in the place of {source}, which must not be "
    "synced any more",
}

_FROM, _TO = "Source", "Target"


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy. It is only read.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="A new store, an empty one, or a copy of SRC that was interrupted.")
    ],
    from_backend: Annotated[str, typer.Option(help="The backend of SRC.", rich_help_panel=_FROM)] = "leveldb",
    to_backend: Annotated[str, typer.Option(help="The backend of DST.", rich_help_panel=_TO)] = "leveldb",
    from_store: Annotated[
        str | None, typer.Option(help="The name of SRC in its database (postgres).", rich_help_panel=_FROM)
    ] = None,
    to_store: Annotated[
        str | None, typer.Option(help="The name of DST in its database (postgres).", rich_help_panel=_TO)
    ] = None,
    as_json: JSONOutput = False,
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Copy a store with its log, metadata and identity, to any backend, and compare the two row by row.

    If it is interrupted, run it again: it goes on, and DST cannot be opened until it has finished.
    """
    check_prefix(metadata_prefix)
    try:
        old = create(from_backend, source, _options(from_store))
        new = create(to_backend, target, _options(to_store))
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    with StepsProgress(lines=not as_json) as shown:
        report = copy_store(
            source,
            target,
            from_backend=lambda _: old,
            to_backend=lambda _: new,
            prefix=metadata_prefix,
            progress=shown.advance,
        )
    if as_json:
        print_json({"mode": report.mode.value, "rows": report.rows, "written": report.written, "sha256": report.sha256})
        return
    there = report.rows - report.written
    print_line(
        f"copied {counted(report.rows, 'row')} from {old.name} to {new.name}"  # a URL as given may hold a password
        + (f", of which {there:,} were there already" if there > 0 else "")
    )
    print_line(f"compared both: they are equal, SHA-256 {report.sha256}")
    print_line(_IDENTITY[report.mode].format(source=old.name, target=new.name))


def _options(store: str | None) -> dict[str, str]:
    return {} if store is None else {"store": store}
