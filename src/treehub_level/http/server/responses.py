"""Answers: JSON, or lines of JSON, in small pieces, compressed if the client takes that."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...replication.messages import LogPage, Reply
from ...replication.wire import reply_pieces
from . import zstd as _zstd
from .refusals import RefusedError

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"

#: About how many bytes are sent at a time.
PIECE: Final = 256 << 10
#: Smaller answers do not become smaller.
_WORTH_COMPRESSING: Final = 1 << 10


class StreamedResponse(Response):
    """An answer in pieces. A single one has a length; several are sent one after the other, as the client takes them.

    Args:
        request: What is answered: it says what the client understands.
        pieces: The body.
        status: The HTTP status.
        media_type: What the body is.
    """

    def __init__(self, request: Request, pieces: Iterable[bytes], *, status: int = 200, media_type: str = JSON) -> None:
        pieces = iter(pieces)
        head = [*islice(pieces, 2)]
        self._pieces = chain(head, pieces)
        self._is_large = len(head) > 1
        self._compressor = None
        self.status_code = status
        self.background = None
        self.raw_headers = [(b"content-type", media_type.encode()), (b"vary", b"accept, accept-encoding")]
        if self._is_large or sum(map(len, head)) >= _WORTH_COMPRESSING:
            encoding, self._compressor = _compression_for(request)
            self.raw_headers += encoding
        if not self._is_large and self._compressor is None:
            self.raw_headers.append((b"content-length", b"%d" % sum(map(len, head))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": await self._packed(piece), "more_body": True})
        last = b"" if self._compressor is None else self._compressor.flush()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _packed(self, piece: bytes) -> bytes:
        if self._compressor is None:
            return piece
        if self._is_large:
            # In a thread: all of it at once would keep everybody else waiting.
            return await asyncio.to_thread(self._compressor.compress, piece)
        return self._compressor.compress(piece)


def wants_lines(request: Request) -> bool:
    """Whether the client asks for NDJSON."""
    return LINES in request.headers.get("accept", "").lower()


def json_response(request: Request, content: Any, *, status: int = 200) -> StreamedResponse:
    """A document."""
    return StreamedResponse(request, [orjson.dumps(content)], status=status)


def raw_response(request: Request, content: bytes, *, media_type: str = JSON) -> StreamedResponse:
    """Bytes as they are."""
    return StreamedResponse(request, [content], media_type=media_type)


def refusal_response(refusal: RefusedError) -> Response:
    """A refusal."""
    return Response(orjson.dumps(refusal.body()), refusal.status, refusal.headers, JSON)


def streamed_response(request: Request, pieces: Callable[[bool], Iterable[bytes]]) -> StreamedResponse:
    """What ``pieces`` makes: lines if they are asked for, else a document."""
    in_lines = wants_lines(request)
    return StreamedResponse(request, _packed(pieces(in_lines)), media_type=LINES if in_lines else JSON)


def reply_response(request: Request, reply: Reply) -> StreamedResponse:
    """The answer to an exchange. The log's records go through as they are."""
    if isinstance(reply, LogPage):
        return streamed_response(request, partial(reply_pieces, reply))
    # A client goes on from a page or from keys; these two tell it that something is wrong between it and this server.
    return json_response(request, reply.to_dict(), status=409 if reply.kind in ("reset", "forked") else 200)


def _packed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about `PIECE`."""
    piece: list[bytes] = []
    size = 0
    for part in parts:
        piece.append(part)
        size += len(part)
        if size >= PIECE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


def _compression_for(request: Request) -> tuple[list[tuple[bytes, bytes]], _zstd.Compressor | None]:
    """The best compression that the client takes: the header that names it, and a compressor."""
    accepted = request.headers.get("accept-encoding", "").lower()
    taken = {name for name, weight in _ACCEPTED.findall(accepted) if not weight or weight.strip("0.")}
    if "zstd" in taken and _zstd.AVAILABLE:
        return [(b"content-encoding", b"zstd")], _zstd.compressor()
    if "gzip" in taken:
        return [(b"content-encoding", b"gzip")], zlib.compressobj(level=4, wbits=16 + zlib.MAX_WBITS)
    return [], None


#: A content coding, and the weight that the client gives it; 0 is a refusal.
_ACCEPTED: Final = re.compile(r"(?:^|,)\s*([a-z]+)\s*(?:;\s*q\s*=\s*([0-9.]+))?\s*(?=,|$)")
