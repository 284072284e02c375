"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, TypedDict

import typer

from .. import Mode

#: The key in ``meta`` of the root context that holds the value of ``--json``. Errors are printed
#: when the command's own context no longer exists.
JSON_WANTED = "treehub_level.json"


def _remember_json(context: typer.Context, wanted: bool) -> bool:
    context.meta[JSON_WANTED] = wanted
    return wanted


_STORE = "Store"
_RANGE = "Range"

Dir = Annotated[
    str,
    typer.Argument(
        metavar="DIR",
        help="The store: a directory (leveldb), a file (sqlite) or a URL with ?store=NAME (postgres).",
    ),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key; write '--' before a key that begins with '-'.")]
JSONOutput = Annotated[
    bool,
    typer.Option("--json", callback=_remember_json, help="Print JSON, one document per line; errors too, on stderr."),
]

ModeOption = Annotated[
    Mode | None,
    typer.Option(
        "--mode",
        help="The mode of the store: an existing store must have it, a new one is created in it (default: normal).",
        rich_help_panel=_STORE,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="The backend of the store: leveldb, sqlite, postgres or another registered name.",
        rich_help_panel=_STORE,
    ),
]
MetadataPrefix = Annotated[
    str,
    typer.Option(
        "--metadata-prefix",
        metavar="PREFIX",
        help="The prefix of the store's metadata keys, fixed when the store is created.",
        rich_help_panel=_STORE,
    ),
]

Gt = Annotated[
    str | None, typer.Option("--gt", metavar="KEY", help="Only keys greater than KEY.", rich_help_panel=_RANGE)
]
Gte = Annotated[
    str | None,
    typer.Option("--gte", metavar="KEY", help="Only keys greater than or equal to KEY.", rich_help_panel=_RANGE),
]
Lt = Annotated[str | None, typer.Option("--lt", metavar="KEY", help="Only keys less than KEY.", rich_help_panel=_RANGE)]
Lte = Annotated[
    str | None,
    typer.Option("--lte", metavar="KEY", help="Only keys less than or equal to KEY.", rich_help_panel=_RANGE),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", metavar="PREFIX", help="Only keys that begin with PREFIX.", rich_help_panel=_RANGE),
]
Reverse = Annotated[bool, typer.Option("--reverse", help="Descending order of keys.", rich_help_panel=_RANGE)]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=0, help="At most N results.", rich_help_panel=_RANGE)
]

At = Annotated[
    int | None,
    typer.Option(
        "--at",
        metavar="CID",
        min=0,
        max=2**53 - 1,
        help="Read a server as of this CID, if its change log covers it.",
        rich_help_panel=_STORE,
    ),
]


class RangeArguments(TypedDict):
    """The bounds of a key range: keyword arguments of ``Level.scan``, ``keys`` and ``count``."""

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


def bounds(gt: str | None, gte: str | None, lt: str | None, lte: str | None, prefix: str | None) -> RangeArguments:
    """Return the bounds of a key range as keyword arguments.

    Raises:
        typer.BadParameter: ``gt`` and ``gte`` are both given, or ``lt`` and ``lte``.
    """
    if gt is not None and gte is not None:
        raise typer.BadParameter("--gt and --gte both say where the range begins: give one of them")
    if lt is not None and lte is not None:
        raise typer.BadParameter("--lt and --lte both say where the range ends: give one of them")
    return {"gt": gt, "gte": gte, "lt": lt, "lte": lte, "prefix": prefix}
