"""The output of commands: JSON for programs, lines and tables for people, always in UTF-8."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import Change, Conflict

#: Characters that would break a line, a column or the terminal itself.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: The table width in columns if stdout is no terminal: rich folds nothing.
_UNLIMITED = 10_000


def print_json(document: object) -> None:
    """Write one JSON document on a line of stdout."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))


def print_line(*fields: str) -> None:
    """Write fields on a line of stdout: separated by tabs, control characters escaped."""
    sys.stdout.buffer.write("\t".join(map(printable, fields)).encode() + b"\n")


def print_table(rows: Iterable[tuple[str, str]], *, title: str | None = None) -> None:
    """Write a table of names and values on stdout."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(printable(value)))
    sys.stdout.flush()
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED).print(table)


def print_error(message: str, code: str, *, as_json: bool) -> None:
    """Write an error on one line of stderr."""
    # A key from the command line may contain lone surrogates. json escapes them; orjson raises.
    line = json.dumps({"code": code, "message": message}) if as_json else f"error: {printable(message)}"
    sys.stderr.write(line + "\n")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 row``, ``2,500 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return ``text`` with its control characters escaped as in JSON."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def value_text(value: object, *, indent: bool = False) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()


def change_fields(change: Change) -> list[str]:
    """Return a change as fields of a line: ``put``, key and value, or ``del`` and key."""
    return ["del", change.key] if change.deleted else ["put", change.key, value_text(change.value)]


def change_document(change: Change) -> dict[str, Any]:
    """Return a change as a JSON object: CID (if known), key, and value or ``"deleted": true``."""
    cid = {} if change.cid is None else {"cid": change.cid}
    return {**cid, "key": change.key, **({"deleted": True} if change.deleted else {"value": change.value})}


def conflict_fields(conflict: Conflict) -> list[str]:
    """Return a conflict as fields of a line: key, overwritten local value, server's value."""
    return [conflict.key, f"lost: {_outcome_text(conflict.local)}", f"kept: {_outcome_text(conflict.remote)}"]


def conflict_document(conflict: Conflict) -> dict[str, Any]:
    """Return a conflict as a JSON object. ``"remote"`` is null if a reset removed the key."""
    remote = None if conflict.remote is None else change_document(conflict.remote)
    return {"id": conflict.id, "key": conflict.key, "local": change_document(conflict.local), "remote": remote}


def _outcome_text(change: Change | None) -> str:
    if change is None:
        return "nothing (removed by a reset)"
    return "delete" if change.deleted else value_text(change.value)
