"""Request bodies: read within limits of size and time, decompressed, and parsed strictly."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request

from ...engine.codec import decode_json
from . import zstd
from .limits import Limits
from .refusals import RefusedError, bad_request, retry_later

#: Bodies of at least this many bytes are parsed in a thread, so that the event loop is not blocked.
_THREAD_BYTES: Final = 256 << 10


class DisconnectedError(Exception):
    """The client closed the connection, so no response can be sent. Never leaves the server."""


class BodyReader:
    """Reads request bodies, and counts the bytes of them that are in memory.

    Args:
        limits: The limits on size and time.
        compressed: True to accept compressed bodies. They are off by default, since a small
            compressed body may decode to a large one.

    Attributes:
        buffered_bytes: The bytes of all request bodies in memory.
    """

    def __init__(self, limits: Limits, *, compressed: bool) -> None:
        self._limits = limits
        self._compressed = compressed
        self.buffered_bytes = 0

    async def read_json(self, request: Request, on_buffered: Callable[[int], None]) -> Any:
        """Read the body of a request and return the JSON document in it.

        Args:
            request: The request.
            on_buffered: Called with the size of each chunk before the chunk is kept in memory.

        Raises:
            RefusedError: The body is not JSON, too large or too slow, or has an object with a
                duplicate member; or the server holds too many bytes of bodies.
            DisconnectedError: The client closed the connection.
        """
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise RefusedError(
                415, "LEVEL_CONTENT_TYPE", "the body must be JSON: send `Content-Type: application/json`"
            )
        decode = self._content_decoder(request.headers.get("content-encoding", "identity").strip().lower())
        body = await self._read(request, on_buffered)
        if decode is not None:
            body = await asyncio.to_thread(decode, body, self._limits.body_bytes)
            if len(body) > self._limits.body_bytes:
                raise self._too_large()
        return await asyncio.to_thread(parse_json, body) if len(body) >= _THREAD_BYTES else parse_json(body)

    def _content_decoder(self, encoding: str) -> Callable[[bytes, int], bytes] | None:
        if encoding == "identity":
            return None
        if self._compressed and encoding in CONTENT_DECODERS:
            return CONTENT_DECODERS[encoding]
        remedy = f"use {' or '.join(CONTENT_DECODERS)}" if self._compressed else "send the body uncompressed"
        raise RefusedError(
            415, "LEVEL_CONTENT_ENCODING", f"this server does not accept the body's Content-Encoding: {remedy}"
        )

    async def _read(self, request: Request, on_buffered: Callable[[int], None]) -> bytes:
        content_length = request.headers.get("content-length", "")
        if content_length.isdigit() and int(content_length[:20]) > self._limits.body_bytes:
            raise self._too_large()
        body = bytearray()
        loop = asyncio.get_running_loop()
        start = loop.time()
        more = True
        while more:
            allowed = self._limits.body_seconds + len(body) / self._limits.body_rate
            try:
                message = await asyncio.wait_for(request.receive(), start + allowed - loop.time())
            except asyncio.TimeoutError as error:
                raise RefusedError(
                    408,
                    "LEVEL_TIMEOUT",
                    f"the body is too slow: only {len(body)} bytes arrived in {allowed:.0f} seconds",
                    headers={"connection": "close"},
                ) from error
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > self._limits.body_bytes:
                raise self._too_large()
            if self.buffered_bytes + len(chunk) > self._limits.held_bytes:
                raise retry_later(503, "LEVEL_BUSY", "the server is receiving too much data: try again later")
            on_buffered(len(chunk))
            body += chunk
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "LEVEL_TOO_LARGE", f"the body has more than {self._limits.body_bytes} bytes")


def parse_json(body: bytes) -> Any:
    """Parse a JSON document, and refuse one that the parser could not represent exactly.

    Raises:
        RefusedError: The body is not JSON, is nested too deep, or has a duplicate member or an
            integer beyond 64 bits.
    """
    try:
        return decode_json(body)
    except ValueError as error:
        raise bad_request(f"the body cannot be parsed as JSON: {error!s:.200}") from None


def _decode_gzip(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise bad_request(f"the body is not gzip: {error}") from None
    if len(plain) <= limit and (not decompressor.eof or decompressor.unused_data):
        raise bad_request("the body is not exactly one complete gzip stream")
    return plain


def _decode_zstd(data: bytes, limit: int) -> bytes:
    try:
        return zstd.decompress(data, limit)
    except ValueError as error:
        raise bad_request(f"the body is not zstd: {error}") from None


#: Decoders by content coding. A decoder may stop once it has more than ``limit`` bytes.
CONTENT_DECODERS: Final = {"gzip": _decode_gzip, **({"zstd": _decode_zstd} if zstd.AVAILABLE else {})}
