"""The command ``copy``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..backends import create
from ..blocking import copy as copy_store
from ..redaction import redact_url
from ..types import Mode
from .options import JSONOutput, MetadataPrefix
from .output import counted, print_json, print_line
from .progress import StepsProgress
from .stores import check_prefix

#: The last line of the report, by mode. A copy has the identity of its source, so only one of the
#: two may take part in synchronisation from now on.
_IDENTITY: Final = {
    Mode.NORMAL: "{source} is unchanged",
    Mode.SERVER: "{target} has the identity of {source}, so clients take it for the same server: "
    "serve {target} instead of {source}, and do not write to {source} any more",
    Mode.CLIENT: "{target} has the identity of {source}, so the server takes it for the same client: "
    "sync {target} instead of {source}, and do not sync {source} any more",
}

_FROM, _TO = "Source", "Target"


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy; it is only read.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="A new or empty store, or an unfinished copy of SRC to continue.")
    ],
    from_backend: Annotated[str, typer.Option(help="The backend of SRC.", rich_help_panel=_FROM)] = "leveldb",
    to_backend: Annotated[str, typer.Option(help="The backend of DST.", rich_help_panel=_TO)] = "leveldb",
    from_store: Annotated[
        str | None, typer.Option(help="The name of the store SRC in its PostgreSQL database.", rich_help_panel=_FROM)
    ] = None,
    to_store: Annotated[
        str | None, typer.Option(help="The name of the store DST in its PostgreSQL database.", rich_help_panel=_TO)
    ] = None,
    as_json: JSONOutput = False,
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Copy a store to another place or another backend.

    The copy has the same records, change log, metadata and identity. Both stores are compared row
    by row at the end. To continue an interrupted copy, run the same command again. DST cannot be
    opened before the copy is complete.
    """
    check_prefix(metadata_prefix)
    try:
        source_backend = create(from_backend, source, _options(from_store))
        target_backend = create(to_backend, target, _options(to_store))
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    with StepsProgress(lines=not as_json) as steps:
        report = copy_store(
            source,
            target,
            from_backend=lambda _: source_backend,
            to_backend=lambda _: target_backend,
            prefix=metadata_prefix,
            progress=steps.advance,
        )
    if as_json:
        print_json({"mode": report.mode.value, "rows": report.rows, "written": report.written, "sha256": report.sha256})
        return
    already_copied = report.rows - report.written
    # Names of backends, not the arguments: a URL in an argument may contain a password. That of a
    # directory is the argument.
    names = {"source": redact_url(source_backend.name), "target": redact_url(target_backend.name)}
    print_line(
        f"copied {counted(report.rows, 'row')} from {names['source']} to {names['target']}"
        + (f", of which {already_copied:,} were there already" if already_copied > 0 else "")
    )
    print_line(f"compared both: they are equal, SHA-256 {report.sha256}")
    print_line(_IDENTITY[report.mode].format(**names))


def _options(store: str | None) -> dict[str, str]:
    return {} if store is None else {"store": store}
