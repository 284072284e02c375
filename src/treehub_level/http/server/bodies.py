"""Request bodies: read within limits of size and time, decompressed, and parsed strictly."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final, TypeVar

from starlette.requests import Request

from ... import _core
from ...engine.codec import decode_json
from ...errors import InvalidValueError, LevelError
from . import zstd
from .body_memory import BodyAccount, BodyMemory, Turns
from .disconnect import DisconnectedError, check_present
from .limits import Limits
from .refusals import RefusedError, bad_request, forbidden

T = TypeVar("T")

#: Bodies of at least this many bytes are parsed in a thread, one at a time, so that they neither
#: block the event loop nor add up in memory.
_THREAD_BYTES: Final = 64 << 10
#: The most values of a document that is parsed only to explain the fault in it.
_EXPLAINED_NODES: Final = 200_000


class BodyReader:
    """Reads request bodies, and counts the bytes of them that are in memory.

    Args:
        limits: The limits on size and time.
        compressed: True to accept compressed bodies. They are off by default, since a small
            compressed body may decode to a large one.

    Attributes:
        memory: The memory for request bodies.
    """

    def __init__(self, limits: Limits, *, compressed: bool) -> None:
        self._limits = limits
        self._compressed = compressed
        self._turns = Turns()
        self.memory = BodyMemory(limits)

    async def read_json(self, request: Request, account: BodyAccount, parse: Callable[[bytes], T]) -> T:
        """Read the body of a request and return the JSON document in it.

        Args:
            request: The request.
            account: Counts the bytes in memory. The caller releases them.
            parse: Parses the document. It raises ValueError for a document that is malformed.

        Raises:
            RefusedError: The body is not JSON, too large or too slow; or the server, or the token,
                has too many bytes of bodies in memory.
            DisconnectedError: The client closed the connection.
            LevelError: ``parse`` raised it.
        """
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise RefusedError(
                415, "LEVEL_CONTENT_TYPE", "the body must be JSON: send `Content-Type: application/json`"
            )
        decode = self._content_decoder(request.headers.get("content-encoding", "identity").strip().lower())
        received = await self._read(request, account)
        if decode is None and len(received) < _THREAD_BYTES:
            return parse_body(bytes(received), parse)
        async with self._turns.take(account.token):
            check_present(request.scope)
            body = bytes(received)
            del received  # only the body whose turn it is has a copy
            if decode is not None:
                limit = self._limit_of(account)
                plain = await asyncio.to_thread(decode, body, limit)
                if len(plain) > limit:
                    raise self._too_large(account)
                account.add(len(plain) - len(body))
                body = plain
            return await asyncio.to_thread(parse_body, body, parse)

    def _content_decoder(self, encoding: str) -> Callable[[bytes, int], bytes] | None:
        if encoding == "identity":
            return None
        if self._compressed and encoding in CONTENT_DECODERS:
            return CONTENT_DECODERS[encoding]
        remedy = f"use {' or '.join(CONTENT_DECODERS)}" if self._compressed else "send the body uncompressed"
        raise RefusedError(
            415, "LEVEL_CONTENT_ENCODING", f"this server does not accept the body's Content-Encoding: {remedy}"
        )

    async def _read(self, request: Request, account: BodyAccount) -> bytearray:
        limit = self._limit_of(account)
        content_length = request.headers.get("content-length", "")
        if content_length.isdigit() and int(content_length[:20]) > limit:
            raise self._too_large(account)
        body = bytearray()
        deadline = _Deadline(self._limits)
        more = True
        while more:
            try:
                message = await asyncio.wait_for(request.receive(), deadline.seconds_left())
            except asyncio.TimeoutError as error:
                raise RefusedError(
                    408,
                    "LEVEL_TIMEOUT",
                    f"the body is too slow: after {len(body)} bytes there were too few in "
                    f"{self._limits.body_seconds:.0f} seconds, or none in {self._limits.body_idle_seconds:.0f}; "
                    "send it again, in smaller parts or over a faster connection",
                    headers={"connection": "close"},
                ) from error
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > limit:
                raise self._too_large(account)
            account.add(len(chunk))
            body += chunk
            deadline.extend(len(chunk))
            more = message.get("more_body", False)
        return body

    def _limit_of(self, account: BodyAccount) -> int:
        return self._limits.body_bytes if account.may_write else self._limits.read_only_body_bytes

    def _too_large(self, account: BodyAccount) -> RefusedError:
        if account.may_write:
            return RefusedError(413, "LEVEL_TOO_LARGE", f"the body has more than {self._limits.body_bytes} bytes")
        # Not 413: a client would send the push again, in smaller parts.
        return forbidden(
            f"this token may read and not write, and a body without a push has at most "
            f"{self._limits.read_only_body_bytes} bytes: ask for a token that may write"
        )


class _Deadline:
    """The time within which more of a body must arrive.

    A client may be late by ``body_seconds``, and each ``body_rate`` bytes make up for a second. It
    never gains more: bytes that arrived fast buy no time to stall at the end.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clock = asyncio.get_running_loop().time
        self._last = self._clock()
        self._late_at = self._last + limits.body_seconds

    def seconds_left(self) -> float:
        """Return the seconds that the client has for its next bytes."""
        return max(min(self._late_at, self._last + self._limits.body_idle_seconds) - self._clock(), 0)

    def extend(self, size: int) -> None:
        """Count bytes that have arrived."""
        if size:
            self._last = self._clock()
            self._late_at = min(self._late_at + size / self._limits.body_rate, self._last + self._limits.body_seconds)


def parse_body(body: bytes, parse: Callable[[bytes], T]) -> T:
    """Return the result of ``parse``, and refuse a document that it cannot represent exactly.

    Raises:
        RefusedError: The body is not JSON, is nested too deep, or has a duplicate member or an
            integer beyond 64 bits.
        LevelError: ``parse`` raised it.
    """
    try:
        return parse(body)
    except LevelError:
        raise
    except ValueError as error:
        raise bad_request(f"the body cannot be parsed as JSON: {error!s:.200}") from None


def parse_value(body: bytes) -> _core.JSONBytes:
    """Return a JSON document as it will be stored. The document is not decoded.

    Raises:
        ValueError: The body is not JSON, is nested too deep, or has a duplicate member or an
            integer beyond 64 bits.
        InvalidValueError: The document cannot be stored.
    """
    # The pure core parses the value. Each node takes at least one byte of JSON.
    if len(body) > _core.MAX_VALUE_BYTES and _core.count_nodes(body) > _core.MAX_VALUE_BYTES:
        raise InvalidValueError(f"the value takes more than {_core.MAX_VALUE_BYTES} bytes of JSON")
    try:
        return _core.json_value(body)
    except InvalidValueError:
        if _core.count_nodes(body) <= _EXPLAINED_NODES:
            decode_json(body)  # raises if the body is not JSON
        raise


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
