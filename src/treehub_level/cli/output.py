"""The output of commands: JSON for programs, lines and tables for people, always in UTF-8.

A terminal gets escapes for controls, bidirectional overrides and invisible characters, which a JSON
parser reads back as the same value. A pipe or a file gets JSON byte for byte; in lines for people,
controls are escaped there too, since they would break the lines.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson

from .. import Change, Conflict
from ..escapes import escape_controls, escape_unsafe
from ..redaction import redact_text
from .streams import require_stdout, write_stderr, write_stdout

#: The table width in columns if stdout is no terminal: rich folds nothing.
_UNLIMITED = 10_000


def print_json(document: object) -> None:
    """Write one JSON document on a line of stdout."""
    try:
        line = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a name of a file with lone surrogates, which stand for bytes that are not UTF-8
        line = json.dumps(document).encode() + b"\n"
    write_stdout(line)


def print_line(*fields: str) -> None:
    """Write fields on a line of stdout: separated by tabs, control characters escaped."""
    write_stdout(_encode("\t".join(map(escape_controls, fields))) + b"\n")


def print_block(text: str) -> None:
    """Write a text of several lines on stdout: controls but line breaks are escaped."""
    write_stdout(b"".join(_encode(escape_controls(line)) + b"\n" for line in text.splitlines()))


def print_value(value: object) -> None:
    """Write a value as JSON on several lines of stdout."""
    write_stdout(value_text(value, indent=True).encode() + b"\n")


def print_table(rows: Iterable[tuple[str, str]], *, title: str | None = None) -> None:
    """Write a table of names and values on stdout."""
    from rich.console import Console  # a tenth of the time of a command, which most do not need
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    require_stdout()
    is_terminal = sys.stdout.isatty()
    for name, value in rows:
        table.add_row(name, Text(escape_unsafe(value) if is_terminal else escape_controls(value)))
    # The table itself has the controls of the terminal, so it is not escaped as a whole.
    text = io.StringIO()
    width = Console(file=sys.stdout).width if is_terminal else _UNLIMITED
    Console(file=text, highlight=False, force_terminal=is_terminal, width=width).print(table)
    sys.stdout.buffer.write(_encode(text.getvalue()))


def _encode(text: str) -> bytes:
    """Encode text. A lone surrogate stands for a byte of an argument that was not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return escape_unsafe(text).encode()


def print_error(message: str, code: str, *, as_json: bool) -> None:
    """Write an error on one line of stderr."""
    message = redact_text(message)
    # A key from the command line may contain lone surrogates. json escapes them; orjson raises.
    write_stderr(json.dumps({"code": code, "message": message}) if as_json else f"error: {printable(message)}")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 row``, ``2,500 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return ``text`` as one line that is safe on a terminal, with escapes as in JSON."""
    return escape_unsafe(text)


def value_text(value: object, *, indent: bool = False) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()


def change_fields(change: Change) -> list[str]:
    """Return a change as fields of a line: ``put``, key and value, or ``del`` and key."""
    return ["del", change.key] if change.deleted else ["put", change.key, value_text(change.value)]


def change_document(change: Change) -> dict[str, Any]:
    """Return a change as a JSON object: key, value or ``"deleted": true``.

    The CID comes first, the author and the time last, each if it is known.
    """
    cid = {} if change.cid is None else {"cid": change.cid}
    by = {} if change.by is None else {"by": change.by}
    at = {} if change.at is None else {"at": change.at.isoformat(timespec="milliseconds")}
    value = {"deleted": True} if change.deleted else {"value": change.value}
    return {**cid, "key": change.key, **value, **by, **at}


def conflict_fields(conflict: Conflict, *, with_time: bool = False) -> list[str]:
    """Return a conflict as fields of a line.

    The key, the overwritten local value and the server's value; then, where known, the base value,
    the reason of a refusal, and the author and the time of the server's change.

    Args:
        conflict: The conflict.
        with_time: True to add the time at which the client noticed the conflict.
    """
    fields = [conflict.key, f"lost: {_outcome_text(conflict.local)}", f"kept: {_outcome_text(conflict.remote)}"]
    if conflict.base is not None:
        fields.append(f"base: {'nothing' if conflict.base.deleted else value_text(conflict.base.value)}")
    if conflict.kind == "refused":
        fields.append("refused" if conflict.reason is None else f"refused: {conflict.reason}")
    if conflict.by is not None:
        fields.append(f"by: {conflict.by}")
    if conflict.at is not None:
        fields.append(f"at: {_time_text(conflict.at)}")
    if with_time and conflict.noticed_at is not None:
        fields.append(f"noticed: {_time_text(conflict.noticed_at)}")
    return fields


def conflict_document(conflict: Conflict) -> dict[str, Any]:
    """Return a conflict as a JSON object.

    ``"remote"`` is null if a reset removed the key, each other member if it is unknown. The times
    are in UTC, in the form of RFC 3339.
    """
    return {
        "id": conflict.id,
        "key": conflict.key,
        "kind": conflict.kind,
        "local": change_document(conflict.local),
        "remote": None if conflict.remote is None else change_document(conflict.remote),
        "base": None if conflict.base is None else change_document(conflict.base),
        "reason": conflict.reason,
        "by": conflict.by,
        "at": None if conflict.at is None else _time_text(conflict.at),
        "noticed_at": None if conflict.noticed_at is None else _time_text(conflict.noticed_at),
    }


def _time_text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _outcome_text(change: Change | None) -> str:
    if change is None:
        return "nothing (removed by a reset)"
    return "delete" if change.deleted else value_text(change.value)
