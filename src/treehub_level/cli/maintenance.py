"""The commands for a whole store: ``info verify compact adopt upgrade repair``."""

from __future__ import annotations

import enum
from contextlib import suppress
from typing import Annotated, Any

import typer

from .. import _core
from ..backends import create
from ..blocking import Level, Verification
from ..blocking import repair as repair_store
from ..blocking import upgrade as upgrade_store
from ..blocking import verify as verify_store
from ..types import Mode
from .following import followed_documents, followed_fields
from .options import Backend, Dir, JSONOutput, MetadataPrefix
from .output import counted, print_json, print_line, print_table
from .progress import progress_bar
from .replication import read_log
from .stores import check_prefix, display_name, existing_level, mode_of_store, no_store_error, readable_level
from .streams import ReaderGoneError, flush_stdout


def info(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print a store's mode, identity, size and number of records."""
    with readable_level(directory, backend=backend, prefix=metadata_prefix) as level:
        facts = {**level.info(), "core": _core.CORE, "records": level.count(), **_counts(level)}
        ranges = level.followed() if level.mode is Mode.CLIENT else None
    if as_json:
        print_json(facts if ranges is None else {**facts, "followed": followed_documents(ranges)})
        return
    rows = [(name, _fact_text(value)) for name, value in facts.items() if value is not None]
    rows += [("followed", "{} ({})".format(*followed_fields(item))) for item in ranges or []]
    print_table(rows)


def _counts(level: Level) -> dict[str, int]:
    if level.mode is Mode.SERVER:
        return {"log": sum(1 for _ in read_log(level, 0))}
    if level.mode is Mode.CLIENT:
        return {"dirty": level.pending(), "conflicts": len(level.conflicts())}
    return {}


def _fact_text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def compact(
    directory: Dir,
    drop_deletes_before: Annotated[
        int | None,
        typer.Option(
            metavar="CID",
            min=0,
            help="Server stores: also drop deletes with a CID below this one; a client that has not pulled them yet "
            "must pull the whole store again.",
        ),
    ] = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Reclaim disk space.

    On a server store, first drop the changes that a later change of the same key supersedes. Then
    compact the files of the storage engine.
    """
    with existing_level(directory, backend=backend, prefix=metadata_prefix) as level:
        before = level.info()["bytes"]
        dropped = 0
        if level.mode is Mode.SERVER:
            dropped = level.compact_log(drop_deletes_before=drop_deletes_before)
        elif drop_deletes_before is not None:
            raise typer.BadParameter(
                f"--drop-deletes-before is for server stores; {level.name} is a {level.mode.value} store"
            )
        level.compact_range()
        after = level.info()["bytes"]
    if as_json:
        print_json({"dropped": dropped, "bytes_before": before, "bytes_after": after})
    else:
        print_line(f"dropped {counted(dropped, 'change')} from the log")
        if before is not None and after is not None:
            print_line(f"{before:,} bytes on disk before, {after:,} after")


def upgrade(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A store made by the npm package @treehub/level.")],
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Convert the change log of a server store made by @treehub/level.

    The npm package @treehub/level sorts changes 10 and later before change 2. Converting is safe to
    interrupt and to run again. Other stores are not changed.
    """
    if mode_of_store(path, backend=backend, prefix=metadata_prefix) is None:
        raise no_store_error(path, backend=backend)
    with progress_bar(f"upgrade {display_name(path, backend=backend)}", None) as advance:
        rewritten = upgrade_store(path, backend=backend, prefix=metadata_prefix, progress=advance)
    if as_json:
        print_json({"rewritten": rewritten})
    else:
        print_line(f"rewrote {counted(rewritten, 'change')}" if rewritten else "there was nothing to do")


def verify(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Check every row of a store, and report faults.

    Nothing on disk is changed. The exit code is 1 if there is a fault.
    """
    check_prefix(metadata_prefix)
    if not create(backend, directory, {}).exists():
        raise no_store_error(directory, backend=backend)
    result = verify_store(directory, backend=backend, prefix=metadata_prefix)
    with suppress(ReaderGoneError):  # the exit code tells of faults, even if the output is not read
        if as_json:
            print_json(_verification(result))
        else:
            _print_verification(display_name(directory, backend=backend), result)
        flush_stdout()
    if not result.ok:
        raise typer.Exit(1)


def _verification(result: Verification) -> dict[str, Any]:
    mode = result.mode and result.mode.value
    return {"ok": result.ok, "mode": mode, "found": result.found, "faults": result.faults}


def _print_verification(name: str, result: Verification) -> None:
    print_line(f"{name} is a {result.mode.value} store" if result.mode else f"{name} cannot be opened")
    for sentence in result.found:
        print_line(f"  {sentence}")
    print_line("nothing is wrong" if result.ok else f"{counted(len(result.faults), 'fault')}:")
    for sentence in result.faults:
        print_line(f"  {sentence}")


def repair(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Rebuild a damaged LevelDB store from its readable data.

    A repair cannot be undone: copy the directory first. Records may be lost, and older values may
    come back.
    """
    check_prefix(metadata_prefix)
    result = repair_store(directory, backend=backend, prefix=metadata_prefix)
    with suppress(ReaderGoneError):
        if as_json:
            print_json({"mode": result.mode.value, "done": result.done, "verified": _verification(result.verification)})
        else:
            print_line(f"{directory} opens again; records may be lost, and older values be back")
            for sentence in result.done:
                print_line(f"  {sentence}")
            _print_verification(directory, result.verification)
        flush_stdout()
    if not result.verification.ok:
        raise typer.Exit(1)


class AdoptedMode(enum.Enum):
    """The modes that a normal store can be converted to."""

    SERVER = "server"
    CLIENT = "client"


def adopt(
    directory: Dir,
    mode: Annotated[AdoptedMode, typer.Option("--mode", help="The new mode of the store.")],
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Convert a normal store to a server or a client store.

    In a server store, each existing key gets an entry in the change log. In a client store, each
    existing key is marked dirty, so that the next sync pushes it. The conversion cannot be undone.
    """
    if mode_of_store(directory, backend=backend, prefix=metadata_prefix) is None:
        raise no_store_error(directory, backend=backend)
    name = display_name(directory, backend=backend)
    with progress_bar(f"adopt {name}", None) as advance:
        Level.adopt(directory, mode=Mode(mode.value), backend=backend, prefix=metadata_prefix, progress=advance)
    if as_json:
        print_json({"mode": mode.value})
    else:
        print_line(f"{name} is a {mode.value} now")
