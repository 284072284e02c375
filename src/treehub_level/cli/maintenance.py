"""The commands about a store as a whole: what it is, making it smaller, changing what it is."""

from __future__ import annotations

import enum
import os
from typing import Annotated, Final

import typer

from .. import _core
from ..backends import create
from ..backends._directory import DirectoryBackend
from ..blocking import Level
from ..blocking import upgrade as upgrade_store
from ..types import Mode
from .errors import CommandError
from .options import Backend, Dir, JSONOutput, MetadataPrefix
from .output import counted, print_json, print_line, print_table
from .progress import progress_bar
from .replication import log
from .stores import found_mode, level_at


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
            raise typer.BadParameter(f"--drop-deletes-before is for servers; {directory} is a {level.mode.value} store")
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
        raise CommandError(f"there is no store at {path}", code="CLI_NO_STORE")
    with progress_bar(f"upgrade {path}", None) as advance:
        rewritten = upgrade_store(path, backend=backend, prefix=metadata_prefix, progress=advance)
    if as_json:
        print_json({"rewritten": rewritten})
    else:
        print_line(f"rewrote {counted(rewritten, 'change')}" if rewritten else "there was nothing to do")


#: What to do with a repaired store, for each mode.
_AFTER_REPAIR: Final = {
    Mode.NORMAL: "look through it",
    Mode.SERVER: "let no client sync with it, as its log may have holes; dump it, and load that into a new server",
    Mode.CLIENT: "sync a new client, and write there what `treehub-level dirty` lists here",
}


def repair(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Make a damaged LevelDB store one that opens, with what can still be read. It cannot be undone: copy it first."""
    damaged = create(backend, directory, {})
    if not isinstance(damaged, DirectoryBackend):
        raise CommandError(f"the backend {backend!r} cannot repair a store", code="CLI_NO_REPAIR")
    damaged.repair(directory)
    mode = found_mode(directory, backend=backend, prefix=metadata_prefix) or Mode.NORMAL
    if as_json:
        print_json({"mode": mode.value})
    else:
        print_line(f"{directory} opens again, as a {mode.value} store; records may be lost, and older values be back")
        print_line(f"{_AFTER_REPAIR[mode]}; what was replaced is in {os.path.join(directory, 'lost')}")


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
        raise CommandError(f"there is no store at {directory}", code="CLI_NO_STORE")
    with progress_bar(f"adopt {directory}", None) as advance:
        Level.adopt(directory, mode=Mode(mode.value), backend=backend, prefix=metadata_prefix, progress=advance)
    if as_json:
        print_json({"mode": mode.value})
    else:
        print_line(f"{directory} is a {mode.value} now")
