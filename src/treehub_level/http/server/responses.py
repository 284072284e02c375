"""Responses: JSON or NDJSON, sent in pieces, compressed if the client accepts it."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...engine.log import ROW_BYTES
from ...replication.wire import RowsEncoder
from . import zstd
from .content_coding import accepted_codings
from .disconnect import check_present
from .refusals import RefusedError
from .response_budget import PIECE_BYTES, ResponseHold

R = TypeVar("R", bound=tuple[object, bytes | None])

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

#: Responses of fewer bytes are not compressed: they would not become smaller.
_MINPART_BYTES: Final = 1 << 10
#: Pages of more rows are sent in parts, also if they are short.
_SMALL_ROWS: Final = 1000
#: The approximate bytes that are encoded, and compressed in a thread, at a time.
PART_BYTES: Final = 256 << 10


class PieceResponse(Response):
    """A response whose body is produced piece by piece, each once the client has taken the last.

    Args:
        request: The request. Its headers select the compression.
        hold: The response's share of the budget. It is closed at the end.
        next_part: Returns the next part of the body; ``None`` after the last.
        status: The HTTP status.
        length: The size of the body in bytes, if it is known.
        media_type: The media type of the body.
    """

    def __init__(
        self,
        request: Request,
        hold: ResponseHold,
        next_part: Callable[[], Awaitable[bytes | None]],
        *,
        status: int = 200,
        length: int | None = None,
        media_type: str = JSON,
    ) -> None:
        self._hold = hold
        self._next_part = next_part
        self.status_code = status
        self.background = None
        self.raw_headers = [(b"content-type", media_type.encode()), VARY]
        encoding, self._compressor = _compression_for(request)
        if self._compressor is not None and not hold.take_compressor():
            encoding, self._compressor = [], None
        self.raw_headers += encoding
        if self._compressor is None and length is not None:
            self.raw_headers.append((b"content-length", b"%d" % length))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        Raises:
            DisconnectedError: The client closed the connection.
        """
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (part := await self._next_part()) is not None:
                for start in range(0, len(part), PART_BYTES):
                    check_present(scope)
                    await send_in_pieces(send, await self._compressed(part[start : start + PART_BYTES]))
                del part
            last = b"" if self._compressor is None else self._compressor.flush()
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            self._hold.close()

    async def _compressed(self, chunk: bytes) -> bytes:
        if self._compressor is None:
            return chunk
        # In a thread, so that compressing a large response does not block the event loop.
        async with self._hold.turn():
            return await asyncio.to_thread(self._compressor.compress, chunk)


async def send_in_pieces(send: Send, data: bytes) -> None:
    """Send a part of a body, and return once the client has taken most of it.

    uvicorn waits for room in its buffer before it takes a message, and not after it. The last,
    empty message adds nothing to the body, and waits.
    """
    for start in range(0, len(data), PIECE_BYTES):
        await send({"type": "http.response.body", "body": data[start : start + PIECE_BYTES], "more_body": True})
    if data:
        await send({"type": "http.response.body", "body": b"", "more_body": True})


def accepts_ndjson(request: Request) -> bool:
    """Return True if the client asks for NDJSON."""
    return NDJSON in request.headers.get("accept", "").lower()


def json_response(request: Request, content: Any, *, status: int = 200) -> Response:
    """Return a small response with ``content`` encoded as JSON."""
    return small_response(request, orjson.dumps(content), status=status)


def small_response(request: Request, body: bytes, *, status: int = 200, media_type: str = JSON) -> Response:
    """Return a response that is sent in one piece."""
    headers = [(b"content-type", media_type.encode()), VARY]
    if len(body) >= _MINPART_BYTES:
        encoding, compressor = _compression_for(request)
        if compressor is not None:
            headers += encoding
            body = compressor.compress(body) + compressor.flush()
    response = Response(body, status)
    response.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]
    return response


def bytes_response(
    request: Request, hold: ResponseHold, content: bytes, *, status: int = 200, media_type: str = JSON
) -> Response:
    """Return a response with ``content`` as its body."""
    if len(content) <= PIECE_BYTES:
        return small_response(request, content, status=status, media_type=media_type)
    rest = [content]

    async def next_part() -> bytes | None:
        return rest.pop() if rest else None

    return PieceResponse(request, hold, next_part, status=status, length=len(content), media_type=media_type)


def refusal_response(refusal: RefusedError, request_id: str | None = None) -> Response:
    """Return the response for a refusal, whose body names the request, too, if its id is known."""
    body = refusal.body() if request_id is None else {**refusal.body(), "request_id": request_id}
    return Response(orjson.dumps(body), refusal.status, refusal.headers, JSON)


def rows_response(
    request: Request,
    hold: ResponseHold,
    encoder: Callable[[bool], RowsEncoder],
    rows: list[R],
    row_encoder: Callable[[bool], Callable[[R], bytes]],
) -> Response:
    """Return a page in NDJSON if the client asks for it, otherwise in JSON.

    Args:
        request: The request.
        hold: The response's share of the budget.
        encoder: Returns an encoder of the page; its argument is True for NDJSON.
        rows: The rows of the page.
        row_encoder: Returns the function that encodes a row; its argument is True for NDJSON. The
            function is called for each row of a page.
    """
    in_lines = accepts_ndjson(request)
    media_type = NDJSON if in_lines else JSON
    encode = row_encoder(in_lines)
    if len(rows) <= _SMALL_ROWS:
        encoded = [*map(encode, rows)]
        if sum(map(len, encoded)) + len(encoded) <= PIECE_BYTES:
            return small_response(request, encoder(in_lines).whole(encoded), media_type=media_type)
        del encoded
    parts = _PageParts(encoder(in_lines), rows, encode, hold)
    return PieceResponse(request, hold, parts.next, media_type=media_type)


class _PageParts(Generic[R]):
    """The parts of a page, each encoded when the client has taken the one before.

    So a page of 65,536 rows does not block the event loop, and a part is freed once it is sent.
    """

    def __init__(self, encoder: RowsEncoder, rows: list[R], encode: Callable[[R], bytes], hold: ResponseHold) -> None:
        self._encoder = encoder
        self._rows = deque(rows)
        rows.clear()
        self._encode = encode
        self._left = hold.size
        self._hold = hold
        self._head: bytes | None = encoder.start()

    async def next(self) -> bytes | None:
        """Return the next part; ``None`` after the last."""
        self._hold.shrink(max(self._left, 0))  # the client has taken the parts before this one
        if self._head is None:
            return None
        rows: list[bytes] = []
        size = 0
        while self._rows and size < PART_BYTES:
            rows.append(self._encode(self._rows.popleft()))
            size += len(rows[-1]) + ROW_BYTES
        self._left -= size
        part = self._head + (self._encoder.rows(rows) if rows else self._encoder.end())
        self._head = b"" if rows else None
        return part


#: Caches must not give a response in one form to a client that asked for another.
VARY: Final = (b"vary", b"accept, accept-encoding")


def _compression_for(request: Request) -> tuple[list[tuple[bytes, bytes]], zstd.Compressor | None]:
    """Return the ``Content-Encoding`` header and a compressor for the best coding of the client."""
    accepted = accepted_codings(request.headers.get("accept-encoding", ""))
    if "zstd" in accepted and zstd.AVAILABLE:
        return [(b"content-encoding", b"zstd")], zstd.compressor()
    if "gzip" in accepted:
        return [(b"content-encoding", b"gzip")], zlib.compressobj(level=4, wbits=16 + zlib.MAX_WBITS)
    return [], None
