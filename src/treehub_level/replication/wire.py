"""The messages of an exchange as bytes: JSON or NDJSON (``docs/protocol.md``, "Encoding").

The server copies stored log records into its reply. The client reads NDJSON into the same records:
it validates each value once and never decodes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from .. import _core
from ..engine.codec import decode_json
from ..errors import ProtocolError
from .manual import Part, canonical
from .messages import Forked, Keys, LogPage, Page, ParsedReply, Reply, Request, Reset, parse_reply

#: Rows that are joined into one chunk.
_JOINED = 200
#: Rows that one call of the core splits: it does not release the GIL.
_PART_ROWS = 2000


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

    The first line of NDJSON holds all fields except ``page``. Each row of ``page`` is a line of its
    own.
    """
    if isinstance(reply, LogPage):
        return _pieces(page_encoder(reply, len(reply.records), in_lines), _numbered(reply.records))
    return iter([orjson.dumps(reply.to_dict(), option=orjson.OPT_APPEND_NEWLINE if in_lines else None)])


def part_pieces(part: Part, in_lines: bool) -> Iterator[bytes]:
    """Yield a page of a manual pull in chunks of JSON or NDJSON.

    In JSON the changes have no CIDs, as in ``@treehub/level``.
    """
    rows = _numbered(part.records) if in_lines else (record for _, record in part.records)
    return _pieces(part_encoder(part, len(part.records), in_lines), rows)


def page_encoder(page: LogPage, count: int, in_lines: bool) -> RowsEncoder:
    """Return an encoder for a page with so many records: rows ``[cid,record]``."""
    return RowsEncoder(page.header(count), "page", in_lines)


def part_encoder(part: Part, count: int, in_lines: bool) -> RowsEncoder:
    """Return an encoder for a page of a manual pull: so many records, or in NDJSON their rows."""
    commits = [commit.to_list() for commit in part.commits]
    header = {"cid": part.cid, "has_more": part.has_more, "commits": commits}
    return RowsEncoder({**header, "count": count} if in_lines else header, "changes", in_lines)


def _pieces(encoder: RowsEncoder, rows: Iterable[bytes]) -> Iterator[bytes]:
    rows = iter(rows)
    yield encoder.start()
    while chunk := [*islice(rows, _JOINED)]:
        yield encoder.rows(chunk)
    yield encoder.end()


class RowsEncoder:
    """Encodes a JSON object with one array of rows, or NDJSON, while the rows arrive.

    Args:
        header: The fields of the object except one.
        name: The name of the remaining field, the array of rows.
        in_lines: True for NDJSON: the header on the first line, without the array, and each row on
            a line.
    """

    def __init__(self, header: dict[str, Any], name: str, in_lines: bool) -> None:
        self._header = header
        self._name = name
        self._in_lines = in_lines
        self._comma = b""

    def start(self) -> bytes:
        """Return the beginning, up to the first row."""
        if self._in_lines:
            return orjson.dumps(self._header, option=orjson.OPT_APPEND_NEWLINE)
        return orjson.dumps(self._header)[:-1] + b',"%b":[' % self._name.encode()

    def rows(self, rows: Sequence[bytes]) -> bytes:
        """Return the next rows. Each of them is encoded as JSON already."""
        if not rows:
            return b""
        if self._in_lines:
            return _lines(rows)
        text = b"".join((self._comma, b",".join(rows)))
        self._comma = b","
        return text

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


def _numbered(records: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Return each record of the log as the row ``[cid,record]``."""
    return (b"[%d,%b]" % record for record in records)


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
    if isinstance(message, (Keys, Reset, Forked)):
        return message
    if isinstance(message, Received):
        return _decode_lines(message.body, encoder) if message.in_lines else parse_reply(_parse(message.body), encoder)
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
    page = parse_reply({**header, "count": 0, "page": []}, encoder)
    return page if isinstance(page, Page) else None


def _decode_lines(body: bytes, encoder: _core.Encoder) -> ParsedReply:
    first, _, rest = body.partition(b"\n")
    header = _parse(first)
    if not isinstance(header, dict):
        return parse_reply(header, encoder)
    if rest and header.get("kind") != "page":
        raise ProtocolError("the reply has more than one line, but is not a page")
    texts = rest.removesuffix(b"\n").split(b"\n") if rest else []
    rows = _split_rows(texts)
    if rows is not None:
        return parse_reply({**header, "page": rows}, encoder, in_records=True)
    return parse_reply({**header, "page": [*map(_parse, texts)]}, encoder)


def _split_rows(texts: list[bytes]) -> list[tuple[int, bytes]] | None:
    """Return the rows, split some at a time, so that other threads run in between."""
    rows: list[tuple[int, bytes]] = []
    for start in range(0, len(texts), _PART_ROWS):
        part = _core.split_rows(texts[start : start + _PART_ROWS])
        if part is None:
            return None
        rows += part
    return rows


def _parse(text: bytes) -> Any:
    try:
        return decode_json(text)
    except ValueError as error:
        raise ProtocolError(f"the reply is not JSON: {error}") from error
