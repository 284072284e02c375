"""The messages of an exchange as bytes: JSON or NDJSON (``docs/protocol.md``, "Encoding").

The server copies stored log records into its reply. The client reads NDJSON into the same records:
it validates each value once and never decodes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from .. import _core
from ..engine.codec import decode_json
from ..errors import ProtocolError
from .canonical import canonical
from .fields import MAX_CHANGES
from .manual import Part
from .messages import Forked, LogPage, LogRow, Page, ParsedReply, Reply, Request, Reset, parse_reply

#: Rows that are joined into one chunk.
_JOINED = 200
#: Rows that one call of the core splits: it does not release the GIL.
_PART_ROWS = 2000
#: The most values in a reply beside its rows: the rejected keys, the epochs and the commits. Each
#: takes up to 90 bytes of memory. A commit and its change take 300 bytes of a page or more, and
#: nine values.
MAX_NODES: Final = 400_000
#: The most members of a reply in JSON: there are fewer than 30 now.
_MAX_FIELDS: Final = 100
#: The members of a reply that are arrays of rows.
_SECTIONS: Final = ("page", "values", "entries")
_SECTION: Final = re.compile(rb'"(page|values|entries)"[ \t\r\n]*:(.*)', re.DOTALL)
_CID: Final = re.compile(rb"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Received:
    """A reply as received, not parsed yet.

    Attributes:
        body: The bytes of the reply.
        in_lines: True for NDJSON, False for JSON.
    """

    body: bytes
    in_lines: bool


def request_to_json(request: Request) -> bytes:
    """Encode a request as JSON."""
    return orjson.dumps(request.to_dict())


def reply_pieces(reply: Reply, in_lines: bool) -> Iterator[bytes]:
    """Yield a reply in chunks of JSON or, if ``in_lines``, of NDJSON.

    The first line of NDJSON holds all fields except the arrays of rows. Each row of ``page``, then
    of ``values``, then of ``entries`` is a line of its own.
    """
    if isinstance(reply, LogPage):
        return _pieces(page_encoder(reply, in_lines), map(encode_row, reply.rows()))
    return iter([orjson.dumps(reply.to_dict(), option=orjson.OPT_APPEND_NEWLINE if in_lines else None)])


def part_pieces(part: Part, in_lines: bool) -> Iterator[bytes]:
    """Yield a page of a manual pull in chunks of JSON or NDJSON.

    In JSON the changes have no CIDs, as in ``@treehub/level``.
    """
    rows = map(encode_row, part.records) if in_lines else (record for _, record in part.records)
    return _pieces(part_encoder(part, len(part.records), in_lines), rows)


def page_encoder(page: LogPage, in_lines: bool) -> RowsEncoder:
    """Return an encoder for a page: its rows are those of `LogPage.rows`, encoded."""
    sections = {"page": len(page.records)}
    if page.values:
        sections["values"] = len(page.values)
    if page.fill is not None:
        sections["entries"] = len(page.fill.entries)
    return RowsEncoder(page.header(len(page.records)), sections, in_lines)


def part_encoder(part: Part, count: int, in_lines: bool) -> RowsEncoder:
    """Return an encoder for a page of a manual pull: so many records, or in NDJSON their rows."""
    commits = [commit.to_list() for commit in part.commits]
    header = {"cid": part.cid, "has_more": part.has_more, "commits": commits}
    return RowsEncoder({**header, "count": count} if in_lines else header, {"changes": count}, in_lines)


def _pieces(encoder: RowsEncoder, rows: Iterable[bytes]) -> Iterator[bytes]:
    rows = iter(rows)
    yield encoder.start()
    while chunk := [*islice(rows, _JOINED)]:
        yield encoder.rows(chunk)
    yield encoder.end()


class RowsEncoder:
    """Encodes a JSON object with arrays of rows, or NDJSON, while the rows arrive.

    Args:
        header: The fields of the object except the arrays.
        sections: The names of the arrays, in the order in which their rows arrive, and the number
            of rows in each.
        in_lines: True for NDJSON: the header on the first line, without the arrays, and each row on
            a line.
    """

    def __init__(self, header: dict[str, Any], sections: Mapping[str, int], in_lines: bool) -> None:
        self._header = header
        self._sections = [*sections.items()]
        self._in_lines = in_lines
        self._comma = b""
        self._left = 0

    def start(self) -> bytes:
        """Return the beginning, up to the first row."""
        if self._in_lines:
            return orjson.dumps(self._header, option=orjson.OPT_APPEND_NEWLINE)
        return orjson.dumps(self._header)[:-1] + self._next_section(b",")

    def _next_section(self, before: bytes) -> bytes:
        """Return the beginning of the next array that has rows, and the empty ones before it."""
        text = b""
        while self._sections and not self._left:
            name, self._left = self._sections.pop(0)
            text += before + b'"%b":[' % name.encode()
            before = b"],"
        self._comma = b""
        return text

    def rows(self, rows: Sequence[bytes]) -> bytes:
        """Return the next rows. Each of them is encoded as JSON already."""
        if not rows:
            return b""
        if self._in_lines:
            return _lines(rows)
        parts: list[bytes] = []
        start = 0
        while start < len(rows):
            assert self._left, "there are more rows than were announced"
            section = rows[start : start + self._left]
            parts += [self._comma, b",".join(section)]
            self._comma = b","
            start += len(section)
            self._left -= len(section)
            if not self._left:
                parts.append(self._next_section(b"],"))
        return b"".join(parts)

    def whole(self, rows: Sequence[bytes]) -> bytes:
        """Return the whole object."""
        return b"".join((self.start(), self.rows(rows), self.end()))

    def end(self) -> bytes:
        """Return the end, after the last row."""
        return b"" if self._in_lines else b"]}"


def _lines(rows: Sequence[bytes]) -> bytes:
    text = b"\n".join(rows)
    if text.count(b"\n") >= len(rows) or b"\r" in text:
        text = b"\n".join(map(one_line, rows))
    return text + b"\n"


def encode_row(row: LogRow) -> bytes:
    """Return a row of a page: ``[cid,record]`` for a change, ``[key,value]`` for an entry.

    An absent value is the row ``[key]``.
    """
    first, second = row
    if isinstance(first, bytes):
        return _core.join_record(first, second)
    assert second is not None, "each change of the log has a record"
    return b"[%d,%b]" % (first, second)


def one_line(row: bytes) -> bytes:
    """Return a row of JSON without line breaks.

    This library writes no line breaks, but the log of a store of ``@treehub/level`` may have been
    edited by hand.
    """
    return canonical(row) if b"\n" in row or b"\r" in row else row


def decode_reply(message: object, encoder: _core.Encoder) -> ParsedReply:
    """Decode and validate a server's reply.

    Args:
        message: A `Received` reply; a dict decoded from JSON; or a `Reply`, from a server in this
            process.
        encoder: The encoder for the client's key space.

    Raises:
        ProtocolError: The message is not a valid reply.
    """
    if isinstance(message, LogPage):
        return message.to_pulled(encoder)
    if isinstance(message, (Reset, Forked)):
        return message
    if isinstance(message, Received):
        decode = _decode_lines if message.in_lines else _decode_document
        return decode(message.body, encoder)
    return parse_reply(message, encoder)


def decode_header(message: object, encoder: _core.Encoder) -> Page | None:
    """Decode the fields of a page without decoding its changes.

    Returns:
        The page; ``None`` if the reply is of another kind, or is one JSON document instead of
        NDJSON.

    Raises:
        ProtocolError: The message is not a valid reply.
    """
    if isinstance(message, LogPage):
        return message
    if not isinstance(message, Received) or not message.in_lines:
        return None
    header = _parse(message.body[: message.body.find(b"\n") + 1])
    if not isinstance(header, dict) or header.get("kind") != "page":
        return None
    fields = {name: field for name, field in header.items() if name not in ("value_count", "fill")}
    page = parse_reply({**fields, "count": 0, "page": []}, encoder)
    return page if isinstance(page, Page) else None


def _decode_document(text: bytes, encoder: _core.Encoder) -> ParsedReply:
    """Decode a reply in JSON. Its rows stay encoded, as those of NDJSON do."""
    members = _core.split_items(text, b"{}", _MAX_FIELDS)
    if members is None:
        return parse_reply(_parse(text), encoder)
    sections: dict[str, list[bytes]] = {}
    others: list[bytes] = []
    for member in members:
        found = _SECTION.fullmatch(member)
        rows = None if found is None else _core.split_items(found[2], b"[]", MAX_CHANGES)
        if found is None or rows is None or found[1].decode() in sections:
            others.append(member)
        else:
            sections[found[1].decode()] = rows
    message = _parse(b"{%b}" % b",".join(others))
    for name in _SECTIONS:
        if name in message:
            fault = "it occurs twice" if name in sections else f"an array of at most {MAX_CHANGES} rows is needed"
            raise ProtocolError(f'the field "{name}" of the reply: {fault}')
    page = {"page": _split_rows(sections["page"])} if "page" in sections else {}
    return parse_reply({**message, **sections, **page}, encoder, in_records=True)


def _decode_lines(body: bytes, encoder: _core.Encoder) -> ParsedReply:
    first, _, rest = body.partition(b"\n")
    header = _parse(first)
    if not isinstance(header, dict):
        return parse_reply(header, encoder)
    if rest and header.get("kind") != "page":
        raise ProtocolError("the reply has more than one line, but is not a page")
    texts = rest.removesuffix(b"\n").split(b"\n") if rest else []
    ends = _section_ends(header, len(texts))
    values, entries = texts[ends[0] : ends[1]], texts[ends[1] :]
    message = {**header, "page": _split_rows(texts[: ends[0]])}
    if "value_count" in header:
        message["values"] = values
    if "fill" in header:
        message["entries"] = entries
    elif entries:
        raise ProtocolError("the reply has more lines than it announces")
    return parse_reply(message, encoder, in_records=True)


def _section_ends(header: dict[Any, Any], lines: int) -> tuple[int, int]:
    """Return the lines at which ``page`` and ``values`` end. `parse_reply` compares the counts."""
    count, values = header.get("count"), header.get("value_count", 0)
    if type(count) is not int or type(values) is not int or count < 0 or values < 0:
        return lines, lines
    return min(count, lines), min(count + values, lines)


def _split_rows(texts: list[bytes]) -> list[tuple[int, bytes]]:
    """Return the CID and the record of each row, split some at a time for other threads.

    No record is decoded, however a row is written: a hostile server cannot make it take more memory
    than its text.
    """
    rows: list[tuple[int, bytes]] = []
    for start in range(0, len(texts), _PART_ROWS):
        part = texts[start : start + _PART_ROWS]
        rows += _core.split_rows(part) or map(_split_row, part)
    return rows


def _split_row(text: bytes) -> tuple[int, bytes]:
    """Return the CID and the record of a row that is not written as this library does."""
    parts = _core.split_items(text, b"[]", 2)
    if parts is None or len(parts) != 2 or not _CID.fullmatch(parts[0]):
        raise ProtocolError(f'the field "page" of the reply: each item is [CID, change], not {text[:80]!r}')
    return int(parts[0]), parts[1]


def _parse(text: bytes) -> Any:
    """Decode a reply, or a part of one, beside its rows.

    Raises:
        ProtocolError: It is not JSON, or holds more than `MAX_NODES` values.
    """
    try:
        return decode_json(text, MAX_NODES)
    except ValueError as error:
        raise ProtocolError(f"the reply is not JSON: {error}") from error
