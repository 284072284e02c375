"""The command ``check``: the effect of an upgrade on a store, before the upgrade."""

from __future__ import annotations

import typer

from ..backends import create
from ..maintenance.upgrade_check import UpgradeCheck, check_upgrade
from .options import Backend, Dir, JSONOutput, MetadataPrefix
from .output import print_json, print_table
from .stores import check_prefix, no_store_error


def check(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Tell if this version opens a store, its changes in doing so, and if the way back stays open.

    Run it with the new version before an upgrade. Nothing on disk is changed, and a server may have
    the store open. The exit code is 1 if this version does not open the store.
    """
    check_prefix(metadata_prefix)
    if not create(backend, directory, {}).exists():
        raise no_store_error(directory, backend=backend)
    result = check_upgrade(directory, backend=backend, prefix=metadata_prefix)
    if as_json:
        print_json(_document(result))
    else:
        print_table(_rows(result))
    if result.problem is not None:
        raise typer.Exit(1)


def _document(result: UpgradeCheck) -> dict[str, object]:
    return {
        "mode": None if result.mode is None else result.mode.value,
        "written_by": result.written_by,
        "format": result.format,
        "reads": result.reads,
        "opens": result.problem is None,
        "problem": result.problem,
        "changes": [*result.changes],
        "returns": result.returns,
    }


def _rows(result: UpgradeCheck) -> list[tuple[str, str]]:
    number = "" if result.format is None else f", format {result.format}"
    mode = "unknown" if result.mode is None else result.mode.value
    back = "the version that wrote the store opens it afterwards, if it reads this format"
    return [
        ("mode", mode),
        ("written by", f"{result.written_by or 'any version'}{number}"),
        ("this version", f"reads formats up to {result.reads}"),
        ("opens", "yes" if result.problem is None else f"no: {result.problem}"),
        ("changes", "; ".join(result.changes) or "none by the opening itself"),
        ("way back", back if result.returns else "closed by these changes: copy the store first"),
    ]
