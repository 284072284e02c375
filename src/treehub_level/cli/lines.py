"""JSON Lines: one JSON document per line, read and written in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn

import orjson

from .. import _core
from ..engine.codec import LONG_NUMBER, RepeatedMemberError, is_complete, unique_members
from .errors import CommandError

#: The longest line that is read. A file without line ends cannot exhaust the memory.
MAX_LINE_BYTES = 64 << 20
#: The longest line that begins as `write_record` begins it: LevelDB stores values of up to 4 GiB.
MAX_RECORD_BYTES = 5 << 30
#: The beginning of a line of `write_record`.
_RECORD_START = b'{"key":'
#: The size of a batch in bytes of input, after which it is written although it has few records.
BATCH_BYTES = 8 << 20


class BadLineError(CommandError):
    """A line that cannot be stored. The message names the file and the line.

    Args:
        source: The name of the file, or ``stdin``.
        line: The number of the line, from 1.
        reason: The problem with the line.
        code: The error code; see `CommandError`.
    """

    def __init__(self, source: str, line: int, reason: str, *, code: str = "CLI_BAD_LINE") -> None:
        super().__init__(f"{source}, line {line}: {reason}", code=code)


class InputRecord(NamedTuple):
    """The record that a line of input describes.

    Attributes:
        line: The number of the line, from 1.
        size: The length of the line in bytes.
        key: The key of the record.
        value: The value of the record: a `JSONBytes` of the core if the line has the form that
            ``dump`` writes, else a Python object.
    """

    line: int
    size: int
    key: str
    value: Any


def parse_json(text: bytes) -> Any:
    """Parse one JSON document. Integers of any size are exact.

    Raises:
        RepeatedMemberError: An object names a member twice; the message names it.
        ValueError: ``text`` is not JSON; the message gives the reason.
    """
    try:
        if not LONG_NUMBER.search(text):
            document = orjson.loads(text)
            if _has_all_members(document, text):
                return document
        return json.loads(text.decode(), object_pairs_hook=unique_members, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _has_all_members(document: object, text: bytes) -> bool:
    try:
        return is_complete(document, text)
    except TypeError:  # orjson reads deeper documents than it writes
        return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def read_records(stream: BinaryIO, source: str, key_field: str | None) -> Iterator[InputRecord]:
    """Yield the records of a stream, line by line. Blank lines are skipped.

    Args:
        stream: The input.
        source: The name of the input for error messages.
        key_field: The field of each line that holds the key; the whole line is the value. ``None``
            if each line is ``{"key": …, "value": …}``.

    Raises:
        BadLineError: A line is not JSON, names a member of an object twice, is truncated, is longer
            than `MAX_LINE_BYTES`, or has no usable key.
    """
    number = 0
    while text := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(text) > MAX_LINE_BYTES:
            if not text.startswith(_RECORD_START):
                raise BadLineError(source, number, f"longer than {MAX_LINE_BYTES >> 20} MiB: is this JSON Lines?")
            if not text.endswith(b"\n"):
                text += stream.readline(MAX_RECORD_BYTES)
            if not text.endswith(b"\n"):
                raise BadLineError(
                    source, number, f"longer than {MAX_LINE_BYTES >> 20} MiB, and without an end: it was truncated"
                )
        if text.isspace():
            continue
        pair = _core.json_line(text) if key_field is None else None
        if pair is None:
            try:
                document = parse_json(text)
            except ValueError as error:
                if isinstance(error, RepeatedMemberError):
                    raise BadLineError(source, number, f"{error}: remove one of them") from error
                truncated = "" if text.endswith(b"\n") else "; the file ends within this line: it was truncated"
                raise BadLineError(source, number, f"not JSON ({error}){truncated}") from error
            try:
                pair = _key_and_value(document) if key_field is None else (_key_from(document, key_field), document)
            except ValueError as error:
                raise BadLineError(source, number, str(error)) from error
        yield InputRecord(number, len(text), *pair)


def _key_and_value(document: object) -> tuple[str, Any]:
    if not isinstance(document, dict) or document.keys() != {"key", "value"}:
        raise ValueError(
            'not an object of "key" and "value"; --key FIELD stores whole lines, under the key in one of their fields'
        )
    key = document["key"]
    if not isinstance(key, str):
        raise ValueError(f'"key" must be a string, not {key!r:.80}')
    return key, document["value"]


def _key_from(document: object, field: str) -> str:
    if not isinstance(document, dict):
        raise ValueError(f"not an object, so it has no field {field!r}")
    if field not in document:
        raise ValueError(f"no field {field!r} (there are: {', '.join(map(repr, document)):.200})")
    key = document[field]
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if not isinstance(key, str):
        raise ValueError(f"the field {field!r} must be a string or an integer to be a key, not {key!r:.80}")
    return key


def batched(records: Iterable[InputRecord], size: int) -> Iterator[list[InputRecord]]:
    """Group records into batches of at most ``size`` records and about `BATCH_BYTES` bytes."""
    batch: list[InputRecord] = []
    batch_bytes = 0
    for record in records:
        batch.append(record)
        batch_bytes += record.size
        if len(batch) >= size or batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def write_record(stream: BinaryIO, key: str, value: object) -> None:
    """Write the line ``{"key": …, "value": …}``."""
    stream.write(orjson.dumps({"key": key, "value": value}, option=orjson.OPT_APPEND_NEWLINE))
