"""The options that several commands share, each described once."""

from __future__ import annotations

from typing import Annotated, TypedDict

import typer

from .. import Mode

#: Where the root context keeps whether JSON was asked for: errors are printed after a command's own
#: context is gone.
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
        help="The store: for LevelDB its directory, for SQLite its file, for PostgreSQL a URL with ?store=NAME.",
    ),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key. One that starts with '-' goes behind '--'.")]
JSONOutput = Annotated[
    bool,
    typer.Option("--json", callback=_remember_json, help="Print JSON: one document a line, errors on stderr too."),
]

ModeOption = Annotated[
    Mode | None,
    typer.Option(
        "--mode",
        help="Open it in this mode (default: the one it was made in; a new store is normal).",
        rich_help_panel=_STORE,
    ),
]
Backend = Annotated[str, typer.Option("--backend", help="The registered name of the backend.", rich_help_panel=_STORE)]
MetadataPrefix = Annotated[
    str,
    typer.Option("--metadata-prefix", help="What the store's metadata keys start with.", rich_help_panel=_STORE),
]

Gt = Annotated[str | None, typer.Option("--gt", help="Only keys above this one.", rich_help_panel=_RANGE)]
Gte = Annotated[str | None, typer.Option("--gte", help="Only keys from this one on.", rich_help_panel=_RANGE)]
Lt = Annotated[str | None, typer.Option("--lt", help="Only keys below this one.", rich_help_panel=_RANGE)]
Lte = Annotated[str | None, typer.Option("--lte", help="Only keys up to this one.", rich_help_panel=_RANGE)]
Prefix = Annotated[str | None, typer.Option("--prefix", help="Only keys that start so.", rich_help_panel=_RANGE)]
Reverse = Annotated[bool, typer.Option("--reverse", help="From the last key down.", rich_help_panel=_RANGE)]
Limit = Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.", rich_help_panel=_RANGE)]


class RangeOptions(TypedDict):
    """The bounds of a key range, as ``Level.scan`` and ``Level.count`` take them."""

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


def bounds(gt: str | None, gte: str | None, lt: str | None, lte: str | None, prefix: str | None) -> RangeOptions:
    """The bounds of a key range.

    Raises:
        typer.BadParameter: Two options name the same end.
    """
    if gt is not None and gte is not None:
        raise typer.BadParameter("--gt and --gte both say where the range begins: give one of them")
    if lt is not None and lte is not None:
        raise typer.BadParameter("--lt and --lte both say where the range ends: give one of them")
    return {"gt": gt, "gte": gte, "lt": lt, "lte": lte, "prefix": prefix}
