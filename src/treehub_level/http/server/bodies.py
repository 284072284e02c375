"""The body of a request: read up to a limit and within a time, decoded, and parsed with care."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request

from ...engine.codec import decode_json
from . import zstd as _zstd
from .limits import Limits
from .refusals import RefusedError, malformed, too_many

#: From this size on a body is decoded and parsed in a thread.
_LARGE: Final = 256 << 10


class DisconnectedError(Exception):
    """The client went away, so there is nobody to answer."""


class Bodies:
    """Reads the bodies of requests, and knows how many bytes of them are held at the moment.

    Args:
        limits: How large they may be, and how slow.
        compressed: Whether they may be compressed. A small one may become a large one, so this has to be wanted.
    """

    def __init__(self, limits: Limits, *, compressed: bool) -> None:
        self._limits = limits
        self._compressed = compressed
        self.held = 0

    async def json(self, request: Request, hold: Callable[[int], None]) -> Any:
        """The document in the body of a request.

        Args:
            request: The request.
            hold: Called with each number of bytes that are held until the request is over.

        Raises:
            RefusedError: It is not JSON, is too large or too slow, or says something twice.
            DisconnectedError: The client went away.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(
                415, "LEVEL_CONTENT_TYPE", "the body must be JSON: send `Content-Type: application/json`"
            )
        decode = self._decoder(request.headers.get("content-encoding", "identity").strip().lower())
        body = await self._read(request, hold)
        if decode is not None:
            body = await asyncio.to_thread(decode, body, self._limits.body_bytes)
            if len(body) > self._limits.body_bytes:
                raise self._too_large()
        return await asyncio.to_thread(parse, body) if len(body) >= _LARGE else parse(body)

    def _decoder(self, encoding: str) -> Callable[[bytes, int], bytes] | None:
        if encoding == "identity":
            return None
        if self._compressed and encoding in _DECODERS:
            return _DECODERS[encoding]
        what = f"may be {' or '.join(_DECODERS)}" if self._compressed else "is not decoded here"
        raise RefusedError(415, "LEVEL_CONTENT_ENCODING", f"the body cannot be read as it is encoded: it {what}")

    async def _read(self, request: Request, hold: Callable[[int], None]) -> bytes:
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > self._limits.body_bytes:
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
                    f"{len(body)} bytes of the body came in {allowed:.0f} seconds: that is too slow",
                    headers={"connection": "close"},
                ) from error
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > self._limits.body_bytes:
                raise self._too_large()
            if self.held + len(chunk) > self._limits.held_bytes:
                raise too_many(503, "LEVEL_BUSY", "too much is being written at the moment: try again later")
            hold(len(chunk))
            body += chunk
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "LEVEL_TOO_LARGE", f"the body has more than {self._limits.body_bytes} bytes")


def parse(body: bytes) -> Any:
    """A JSON document of which nothing is lost by decoding it.

    Raises:
        RefusedError: It is not JSON, says something twice, holds an integer beyond 64 bits, or is nested too deep.
    """
    try:
        return decode_json(body)
    except ValueError as error:
        raise malformed(f"the body is not JSON as it should be: {error!s:.200}") from None


def _gunzip(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise malformed(f"the body is not gzip: {error}") from None
    if len(plain) <= limit and (not decompressor.eof or decompressor.unused_data):
        raise malformed("the body is not one whole gzip stream")
    return plain


def _unzstd(data: bytes, limit: int) -> bytes:
    try:
        return _zstd.decompress(data, limit)
    except ValueError as error:
        raise malformed(f"the body is not zstd: {error}") from None


_DECODERS: Final = {"gzip": _gunzip, **({"zstd": _unzstd} if _zstd.AVAILABLE else {})}
