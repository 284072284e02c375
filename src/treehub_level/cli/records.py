"""The commands for records and ranges: ``get put delete query keys count``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..engine.codec import RepeatedMemberError
from ..types import MISSING, Mode
from .errors import CommandError
from .lines import parse_json
from .options import (
    At,
    Backend,
    Dir,
    Gt,
    Gte,
    JSONOutput,
    Key,
    Limit,
    Lt,
    Lte,
    MetadataPrefix,
    ModeOption,
    Prefix,
    Reverse,
    bounds,
)
from .output import print_json, print_line, print_value, value_text
from .stores import created_level, display_name, existing_level, readable_level, readable_state
from .streams import stdin


def get(
    directory: Dir,
    key: Key,
    at: At = None,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the value of a key as JSON.

    An absent key is an error.
    """
    with readable_state(directory, at, mode=mode, backend=backend, prefix=metadata_prefix) as state:
        value = state.get(key, MISSING)
    if value is MISSING:
        name, when = display_name(directory, backend=backend), "" if at is None else f" as of CID {at}"
        raise CommandError(f"{name} has no key {key!r}{when}", code="CLI_NO_KEY")
    if as_json:
        print_json(value)
    else:
        print_value(value)


def put(
    directory: Dir,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value as JSON; - reads it from stdin.")],
    string: Annotated[bool, typer.Option("--string", help="Store VALUE as a string, not as JSON.")] = False,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Store a value under a key.

    The store is created if it does not exist.
    """
    document = parse_value(value, string)
    with created_level(directory, mode=mode, backend=backend, prefix=metadata_prefix, create_as=Mode.NORMAL) as level:
        level.put(key, document)
        cid = level.info()["cid"]
    if as_json:
        print_json({"key": key, "cid": cid})


def parse_value(text: str, string: bool) -> Any:
    """Return the value that the argument VALUE of ``put`` stands for.

    Args:
        text: The argument; ``-`` reads stdin.
        string: True if the value is a string, not JSON.

    Raises:
        CommandError: The value is not JSON, names a member of an object twice, or is a string from
            stdin that is not UTF-8.
    """
    if string and text != "-":
        return text
    # Python decodes bytes of an argument that are not UTF-8 as lone surrogates: restore the bytes.
    given = stdin().read() if text == "-" else text.encode("utf-8", "surrogateescape")
    try:
        return given.decode() if string else parse_json(given)
    except ValueError as error:
        shown = given.decode("utf-8", "backslashreplace")[:80]
        if string:
            fault = f"is not UTF-8: {shown}"
        elif isinstance(error, RepeatedMemberError):
            fault = f"cannot be stored: {error}: remove one of them"
        else:
            fault = f"is not JSON ({error}): {shown}; --string stores it as a string"
        raise CommandError(f"the value {fault}", code="CLI_BAD_VALUE") from error


def delete(
    directory: Dir,
    key: Key,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Delete a key.

    Deleting an absent key is not an error.
    """
    with existing_level(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
        level.delete(key)
        cid = level.info()["cid"]
    if as_json:
        print_json({"key": key, "cid": cid})


def query(
    directory: Dir,
    gt: Gt = None,
    gte: Gte = None,
    lt: Lt = None,
    lte: Lte = None,
    prefix: Prefix = None,
    reverse: Reverse = False,
    limit: Limit = None,
    at: At = None,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the records of a range.

    Each line has a key, a tab and a JSON value.
    """
    within = bounds(gt, gte, lt, lte, prefix)
    with readable_state(directory, at, mode=mode, backend=backend, prefix=metadata_prefix) as state:
        for key, value in state.scan(**within, reverse=reverse, limit=limit):
            if as_json:
                print_json({"key": key, "value": value})
            else:
                print_line(key, value_text(value))


def keys(
    directory: Dir,
    gt: Gt = None,
    gte: Gte = None,
    lt: Lt = None,
    lte: Lte = None,
    prefix: Prefix = None,
    reverse: Reverse = False,
    limit: Limit = None,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the keys of a range, one per line."""
    within = bounds(gt, gte, lt, lte, prefix)
    with readable_level(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
        found = level.keys(**within, reverse=reverse, limit=limit)
    for key in found:
        if as_json:
            print_json(key)
        else:
            print_line(key)


def count(
    directory: Dir,
    gt: Gt = None,
    gte: Gte = None,
    lt: Lt = None,
    lte: Lte = None,
    prefix: Prefix = None,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the number of keys in a range."""
    within = bounds(gt, gte, lt, lte, prefix)
    with readable_level(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
        counted = level.count(**within)
    if as_json:
        print_json({"count": counted})
    else:
        print_line(str(counted))
