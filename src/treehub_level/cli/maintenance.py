"""The commands about a store as a whole: what it is, making it smaller, changing what it is."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from .. import _core
from ..backends import create
from ..blocking import Level, Verification
from ..blocking import repair as repair_store
from ..blocking import upgrade as upgrade_store
from ..blocking import verify as verify_store
from ..types import Mode
from .options import Backend, Dir, JSONOutput, MetadataPrefix
from .output import counted, print_json, print_line, print_table
from .progress import progress_bar
from .replication import log
from .stores import check_prefix, found_mode, level_at, no_store, shown


def info(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print what a store is and how much it holds."""
    with level_at(directory, mode=None, backend=backend, prefix=metadata_prefix) as level:
        facts = {**level.info(), "core": _core.CORE, "records": level.count(), **_counts(level)}
    if as_json:
        print_json(facts)
    else:
        print_table((name, _fact(value)) for name, value in facts.items() if value is not None)


def _counts(level: Level) -> dict[str, int]:
    if level.mode is Mode.SERVER:
        return {"log": sum(1 for _ in log(level, 0))}
    if level.mode is Mode.CLIENT:
        return {"dirty": level.pending(), "conflicts": len(level.conflicts())}
    return {}


def _fact(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def compact(
    directory: Dir,
    drop_deletes_before: Annotated[
        int | None,
        typer.Option(
            metavar="CID",
            min=0,
            help="Servers: also forget deletes below this CID. Clients that had not pulled them yet start anew.",
        ),
    ] = None,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Give space back: drop superseded changes from the log, on a server, and compact the engine."""
    with level_at(directory, mode=None, backend=backend, prefix=metadata_prefix) as level:
        before = level.info()["bytes"]
        dropped = 0
        if level.mode is Mode.SERVER:
            dropped = level.compact_log(drop_deletes_before=drop_deletes_before)
        elif drop_deletes_before is not None:
            raise typer.BadParameter(
                f"--drop-deletes-before is for servers; {level.name} is a {level.mode.value} store"
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
    path: Annotated[str, typer.Argument(metavar="PATH", help="A store of @treehub/level, the original.")],
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Put the log of a server store made by the original in order.

    Safe to interrupt and to run again; harmless for other stores.
    """
    if found_mode(path, backend=backend, prefix=metadata_prefix) is None:
        raise no_store(path, backend=backend)
    with progress_bar(f"upgrade {shown(path, backend=backend)}", None) as advance:
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
    """Look at every row of a store, and say what is wrong: exit code 1 if anything is. Nothing on disk is changed."""
    check_prefix(metadata_prefix)
    if not create(backend, directory, {}).exists():
        raise no_store(directory, backend=backend)
    result = verify_store(directory, backend=backend, prefix=metadata_prefix)
    if as_json:
        print_json(_verification(result))
    else:
        _print_verification(shown(directory, backend=backend), result)
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
    """Make a damaged LevelDB store one that opens, with what can still be read. It cannot be undone: copy it first."""
    check_prefix(metadata_prefix)
    result = repair_store(directory, backend=backend, prefix=metadata_prefix)
    if as_json:
        print_json({"mode": result.mode.value, "done": result.done, "verified": _verification(result.verification)})
    else:
        print_line(f"{directory} opens again; records may be lost, and older values be back")
        for sentence in result.done:
            print_line(f"  {sentence}")
        _print_verification(directory, result.verification)
    if not result.verification.ok:
        raise typer.Exit(1)


class Adopted(enum.Enum):
    """What a normal store can become."""

    SERVER = "server"
    CLIENT = "client"


def adopt(
    directory: Dir,
    mode: Annotated[Adopted, typer.Option("--mode", help="What it becomes.")],
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Make a normal store a server, which logs its keys, or a client, which marks them dirty. It cannot be undone."""
    if found_mode(directory, backend=backend, prefix=metadata_prefix) is None:
        raise no_store(directory, backend=backend)
    name = shown(directory, backend=backend)
    with progress_bar(f"adopt {name}", None) as advance:
        Level.adopt(directory, mode=Mode(mode.value), backend=backend, prefix=metadata_prefix, progress=advance)
    if as_json:
        print_json({"mode": mode.value})
    else:
        print_line(f"{name} is a {mode.value} now")
