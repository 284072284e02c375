"""The commands for the ranges of keys that a client follows: ``follow unfollow followed``.

Each one is named after the method that it calls. ``sync`` has the first two as options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .. import _core
from ..blocking import Level
from ..engine.key_ranges import encode_prefix
from ..replication.messages import prefixes_fault
from ..types import Followed
from .errors import CommandError
from .options import Backend, Dir, JSONOutput, MetadataPrefix
from .output import print_json, print_line
from .stores import check_prefix, existing_level, readable_level

Prefixes = Annotated[
    list[str], typer.Argument(metavar="PREFIX", help="The prefixes of the keys; an empty one stands for all keys.")
]


def follow(
    directory: Dir,
    prefixes: Prefixes,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Let a client follow the keys that begin with a prefix, from its next sync on.

    The followed ranges are printed as by `followed`.
    """
    check_prefixes(metadata_prefix, prefixes)
    with existing_level(directory, backend=backend, prefix=metadata_prefix) as level:
        follow_also(level, prefixes)
        found = level.followed()
    print_followed(found, as_json=as_json)


def unfollow(
    directory: Dir,
    prefixes: Prefixes,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Let a client follow the keys that begin with a prefix no longer, and remove them from it.

    Only this store loses the keys. Its local changes stay until they are pushed. The followed
    ranges are printed as by `followed`.
    """
    check_prefixes(metadata_prefix, prefixes)
    with existing_level(directory, backend=backend, prefix=metadata_prefix) as level:
        require_followed(level, prefixes)
        level.unfollow(*prefixes)
        found = level.followed()
    print_followed(found, as_json=as_json)


def followed(
    directory: Dir,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the ranges of keys that a client follows.

    Each line has the prefix and `complete` or `incomplete`, separated by a tab. A sync completes a
    range. The prefix of all keys is shown as ''.
    """
    with readable_level(directory, backend=backend, prefix=metadata_prefix) as level:
        found = level.followed()
    print_followed(found, as_json=as_json)


def change_followed(level: Level, add: Sequence[str], remove: Sequence[str]) -> None:
    """Change the ranges that a client follows, before a sync.

    Args:
        level: The client.
        add: The prefixes to follow.
        remove: The prefixes to follow no longer.

    Raises:
        CommandError: A range to follow is a part of one that stays followed: nothing would change.
        typer.BadParameter: There would be too many prefixes.
    """
    ranges = {item.prefix for item in level.followed()}
    for prefix in add:
        wider = [other for other in sorted(ranges - {*remove}) if prefix.startswith(other)]
        if prefix not in ranges and wider:
            raise CommandError(
                f"{level.name} follows all keys that begin with {wider[0]!r}, and so those that begin with {prefix!r}: "
                f"to follow only these, add --unfollow {wider[0]!r}",
                code="CLI_FOLLOWED",
            )
    if add:
        follow_also(level, add)
    if remove:
        level.unfollow(*remove)


def follow_also(level: Level, prefixes: Sequence[str]) -> None:
    """Follow further prefixes.

    Raises:
        typer.BadParameter: There would be too many prefixes.
    """
    try:
        level.follow(*prefixes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def require_followed(level: Level, prefixes: Sequence[str]) -> None:
    """Check that a client follows some prefixes.

    Raises:
        CommandError: It does not follow one of them.
    """
    ranges = [item.prefix for item in level.followed()]
    for prefix in prefixes:
        if prefix not in ranges:
            raise CommandError(
                f"{level.name} does not follow the prefix {prefix!r}, but {ranges!r:.200}: name one of these",
                code="CLI_FOLLOWED",
            )


def check_prefixes(metadata_prefix: str, prefixes: Sequence[str]) -> None:
    """Check the prefixes of a command line, before a store is opened or created.

    Args:
        metadata_prefix: The prefix of the store's metadata.
        prefixes: The prefixes.

    Raises:
        InvalidKeyError: No key can begin with a prefix.
        typer.BadParameter: There are too many prefixes, or ``metadata_prefix`` is invalid.
    """
    check_prefix(metadata_prefix)
    space = _core.KeySpace(metadata_prefix)
    for prefix in prefixes:
        encode_prefix(space, prefix)
    fault = prefixes_fault([*dict.fromkeys(prefixes)])
    if fault is not None:
        raise typer.BadParameter(fault)


def followed_documents(found: Sequence[Followed]) -> list[dict[str, Any]]:
    """Return followed ranges as JSON objects."""
    return [{"prefix": item.prefix, "complete": item.complete} for item in found]


def followed_fields(item: Followed) -> tuple[str, str]:
    """Return a followed range as fields of a line: its prefix, and its state."""
    return item.prefix or "''", "complete" if item.complete else "incomplete"


def print_followed(found: Sequence[Followed], *, as_json: bool) -> None:
    """Print followed ranges, one per line."""
    for item, document in zip(found, followed_documents(found), strict=True):
        if as_json:
            print_json(document)
        else:
            print_line(*followed_fields(item))
