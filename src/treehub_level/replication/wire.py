"""The messages of an exchange as bytes: JSON, or NDJSON (``protocol.md``, "As bytes").

Records of the log go in as they are stored, and come out of NDJSON as they are: a value is validated once, by the
client, and never decoded.
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
from .messages import Forked, Keys, LogPage, Page, ParsedReply, Reply, Request, Reset, read_reply

#: Rows that are joined at a time: enough to make the cost of a call vanish.
_JOINED = 200


@dataclass(frozen=True, slots=True)
class Received:
    """A reply as it came, not looked into yet.

    Attributes:
        body: Its bytes.
        in_lines: Whether they are NDJSON; else they are JSON.
    """

    body: bytes
    in_lines: bool


def request_to_json(request: Request) -> bytes:
    """A request as JSON."""
    return orjson.dumps(request.to_dict())


def reply_pieces(reply: Reply, in_lines: bool) -> Iterator[bytes]:
    """A reply as JSON; or as NDJSON: a line of all its fields, but for ``page``, whose rows are a line each."""
    if isinstance(reply, LogPage):
        return rows_pieces(reply.header(len(reply.records)), "page", _numbered(reply.records), in_lines)
    return iter([orjson.dumps(reply.to_dict(), option=orjson.OPT_APPEND_NEWLINE if in_lines else None)])


def part_pieces(part: Part, in_lines: bool) -> Iterator[bytes]:
    """A page of the seed's pull, in the same forms. Its changes bear no CIDs in JSON, as the seed has it."""
    rows = _numbered(part.records) if in_lines else (record for _, record in part.records)
    return rows_pieces({"cid": part.cid, "has_more": part.has_more}, "changes", rows, in_lines)


def rows_pieces(header: dict[str, Any], name: str, rows: Iterable[bytes], in_lines: bool) -> Iterator[bytes]:
    """A JSON object of some fields, and one more that holds rows of JSON; or a line of the fields, and one a row."""
    rows = iter(rows)
    if in_lines:
        yield orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE)
        while chunk := [*islice(rows, _JOINED)]:
            yield _lines(chunk)
        return
    yield orjson.dumps(header)[:-1] + b',"%b":[' % name.encode()
    comma = b""
    while chunk := [*islice(rows, _JOINED)]:
        yield comma + b",".join(chunk)
        comma = b","
    yield b"]}"


def _lines(rows: Sequence[bytes]) -> bytes:
    text = b"\n".join(rows)
    if text.count(b"\n") >= len(rows) or b"\r" in text:
        text = b"\n".join(map(one_line, rows))
    return text + b"\n"


def _numbered(records: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Records of the log, each with its CID."""
    return (b"[%d,%b]" % record for record in records)


def one_line(row: bytes) -> bytes:
    """A row of JSON without line breaks. This library writes none, but a log of the original's may have been edited."""
    return canonical(row) if b"\n" in row or b"\r" in row else row


def read_answer(message: object, encoder: _core.Encoder) -> ParsedReply:
    """Read a server's reply, however it came.

    Args:
        message: Bytes as they were `Received`; what was decoded from JSON; or a `Reply`, from a server in this process.
        encoder: What makes entries of changes, for the client's key space.

    Raises:
        ProtocolError: It is none, or impossible.
    """
    if isinstance(message, LogPage):
        return message.pulled(encoder)
    if isinstance(message, (Keys, Reset, Forked)):
        return message
    if isinstance(message, Received):
        return _read_lines(message.body, encoder) if message.in_lines else read_reply(_parse(message.body), encoder)
    return read_reply(message, encoder)


def read_head(message: object, encoder: _core.Encoder) -> Page | None:
    """What a page says of itself, its changes not looked at; ``None`` if this is none, or came in another form.

    Raises:
        ProtocolError: See `read_answer`.
    """
    if isinstance(message, LogPage):
        return message
    if not isinstance(message, Received) or not message.in_lines:
        return None
    header = _parse(message.body[: message.body.find(b"\n") + 1])
    if not isinstance(header, dict) or header.get("kind") != "page":
        return None
    page = read_reply({**header, "count": 0, "page": []}, encoder)
    return page if isinstance(page, Page) else None


def _read_lines(body: bytes, encoder: _core.Encoder) -> ParsedReply:
    first, _, rest = body.partition(b"\n")
    header = _parse(first)
    if not isinstance(header, dict):
        return read_reply(header, encoder)
    if rest and header.get("kind") != "page":
        raise ProtocolError("the reply goes on behind its first line, and is no page")
    texts = rest.removesuffix(b"\n").split(b"\n") if rest else []
    rows = _core.split_rows(texts)
    if rows is not None:
        return read_reply({**header, "page": rows}, encoder, in_records=True)
    return read_reply({**header, "page": [*map(_parse, texts)]}, encoder)


def _parse(text: bytes) -> Any:
    try:
        return decode_json(text)
    except ValueError as error:
        raise ProtocolError(f"the reply is not JSON: {error}") from error
