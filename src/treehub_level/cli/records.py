"""The commands that read and write single records and ranges."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..types import MISSING, Mode
from .errors import CommandError
from .lines import parse_json
from .options import (
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
from .output import print_json, print_line, value_text
from .stores import level_at


def get(
    directory: Dir,
    key: Key,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the value of a key, as JSON. A key that is absent is an error."""
    with level_at(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
        value = level.get(key, MISSING)
    if value is MISSING:
        raise CommandError(f"{level.name} has no key {key!r}", code="CLI_NO_KEY")
    if as_json:
        print_json(value)
    else:
        sys.stdout.buffer.write(value_text(value, indent=True).encode() + b"\n")


def put(
    directory: Dir,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The value, as JSON; - reads it from stdin.")],
    string: Annotated[bool, typer.Option("--string", help="VALUE is a string as it stands, not JSON.")] = False,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Store a value under a key. The store is made if there is none."""
    document = _value(value, string)
    with level_at(directory, mode=mode, backend=backend, prefix=metadata_prefix, fresh=Mode.NORMAL) as level:
        level.put(key, document)
        cid = level.info()["cid"]
    if as_json:
        print_json({"key": key, "cid": cid})


def _value(text: str, string: bool) -> object:
    if string and text != "-":
        return text
    # The bytes as they were typed: what is no UTF-8 reaches Python as lone surrogates.
    given = sys.stdin.buffer.read() if text == "-" else text.encode("utf-8", "surrogateescape")
    try:
        return given.decode() if string else parse_json(given)
    except ValueError as error:
        shown = given.decode("utf-8", "backslashreplace")[:80]
        fault = (
            f"is not UTF-8: {shown}" if string else f"is not JSON ({error}): {shown}; --string stores it as a string"
        )
        raise CommandError(f"the value {fault}", code="CLI_BAD_VALUE") from error


def delete(
    directory: Dir,
    key: Key,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Remove a key. That it is absent is no error."""
    with level_at(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
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
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the records of a range: key and value, a record a line."""
    within = bounds(gt, gte, lt, lte, prefix)
    with level_at(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
        for key, value in level.scan(**within, reverse=reverse, limit=limit):
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
    """Print the keys of a range, a key a line."""
    within = bounds(gt, gte, lt, lte, prefix)
    with level_at(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
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
    """Print how many keys a range has."""
    within = bounds(gt, gte, lt, lte, prefix)
    with level_at(directory, mode=mode, backend=backend, prefix=metadata_prefix) as level:
        counted = level.count(**within)
    if as_json:
        print_json({"count": counted})
    else:
        print_line(str(counted))
