"""Responses: JSON or NDJSON, sent in chunks, compressed if the client accepts it."""

from __future__ import annotations

import asyncio
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
from . import zstd
from .content_coding import accepted_codings
from .refusals import RefusedError

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

#: The approximate size of a chunk of a response, in bytes.
CHUNK_BYTES: Final = 256 << 10
#: Responses of fewer bytes are not compressed: they would not become smaller.
_MIN_COMPRESSED_BYTES: Final = 1 << 10


class StreamedResponse(Response):
    """A response in chunks, each produced once the client has taken the one before.

    A response of a single chunk has a ``Content-Length``, unless it is compressed.

    Args:
        request: The request. Its headers select the compression.
        chunks: The body.
        status: The HTTP status.
        media_type: The media type of the body.
    """

    def __init__(self, request: Request, chunks: Iterable[bytes], *, status: int = 200, media_type: str = JSON) -> None:
        chunks = iter(chunks)
        head = [*islice(chunks, 2)]
        self._chunks = chain(head, chunks)
        self._is_large = len(head) > 1
        self._compressor = None
        self.status_code = status
        self.background = None
        self.raw_headers = [(b"content-type", media_type.encode()), (b"vary", b"accept, accept-encoding")]
        if self._is_large or sum(map(len, head)) >= _MIN_COMPRESSED_BYTES:
            encoding, self._compressor = _compression_for(request)
            self.raw_headers += encoding
        if not self._is_large and self._compressor is None:
            self.raw_headers.append((b"content-length", b"%d" % sum(map(len, head))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for chunk in self._chunks:
            await send({"type": "http.response.body", "body": await self._compressed(chunk), "more_body": True})
        last = b"" if self._compressor is None else self._compressor.flush()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _compressed(self, chunk: bytes) -> bytes:
        if self._compressor is None:
            return chunk
        if self._is_large:
            # In a thread, so that compressing a large response does not block the event loop.
            return await asyncio.to_thread(self._compressor.compress, chunk)
        return self._compressor.compress(chunk)


def accepts_ndjson(request: Request) -> bool:
    """Return True if the client asks for NDJSON."""
    return NDJSON in request.headers.get("accept", "").lower()


def json_response(request: Request, content: Any, *, status: int = 200) -> StreamedResponse:
    """Return a response with ``content`` encoded as JSON."""
    return StreamedResponse(request, [orjson.dumps(content)], status=status)


def bytes_response(request: Request, content: bytes, *, media_type: str = JSON) -> StreamedResponse:
    """Return a response with ``content`` as its body."""
    return StreamedResponse(request, [content], media_type=media_type)


def refusal_response(refusal: RefusedError) -> Response:
    """Return the response for a refusal."""
    return Response(orjson.dumps(refusal.body()), refusal.status, refusal.headers, JSON)


def streamed_response(request: Request, encode: Callable[[bool], Iterable[bytes]]) -> StreamedResponse:
    """Return a response in NDJSON if the client asks for it, otherwise in JSON.

    Args:
        request: The request.
        encode: Returns the parts of the body; its argument is True for NDJSON.
    """
    as_lines = accepts_ndjson(request)
    return StreamedResponse(request, _join_parts(encode(as_lines)), media_type=NDJSON if as_lines else JSON)


def reply_response(request: Request, reply: Reply) -> StreamedResponse:
    """Return the response to an exchange. Records of the log are copied without being decoded."""
    if isinstance(reply, LogPage):
        return streamed_response(request, partial(reply_pieces, reply))
    # 409 for the replies after which a client cannot go on from its present state.
    return json_response(request, reply.to_dict(), status=409 if reply.kind in ("reset", "forked") else 200)


def _join_parts(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts to chunks of about `CHUNK_BYTES`."""
    chunk: list[bytes] = []
    size = 0
    for part in parts:
        chunk.append(part)
        size += len(part)
        if size >= CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def _compression_for(request: Request) -> tuple[list[tuple[bytes, bytes]], zstd.Compressor | None]:
    """Return the ``Content-Encoding`` header and a compressor for the best coding of the client."""
    accepted = accepted_codings(request.headers.get("accept-encoding", ""))
    if "zstd" in accepted and zstd.AVAILABLE:
        return [(b"content-encoding", b"zstd")], zstd.compressor()
    if "gzip" in accepted:
        return [(b"content-encoding", b"gzip")], zlib.compressobj(level=4, wbits=16 + zlib.MAX_WBITS)
    return [], None
