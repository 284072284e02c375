"""Decoding of response bodies with bounds on memory and time."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ...errors import TransportError

#: Maximum bytes of a response body, both as sent and as decoded. A page of the protocol holds at
#: most 8 MiB of keys and values.
MAX_RESPONSE_BYTES = 32 << 20
#: Minimum bytes per second. A slower response is abandoned: the read timeout alone would let a
#: server send one byte now and then for ever.
MIN_RATE = 4 << 10


class NoResponseError(Exception):
    """No complete response arrived.

    Attributes:
        maybe_sent: True if the server may have received the request.
    """

    def __init__(self, reason: str, *, maybe_sent: bool) -> None:
        super().__init__(reason)
        self.maybe_sent = maybe_sent


class BodyDecoder:
    """A decoder for the body of one response, fed chunk by chunk.

    Args:
        headers: The headers of the response, with names in lower case.

    Raises:
        TransportError: The content encoding is neither gzip nor identity.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise TransportError(f"the response is encoded as {encoding!r:.40}, which the client did not accept")
        self._decompressor = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        self._received = 0
        self._decoded = 0

    def feed(self, chunk: bytes, overtime: float) -> bytes:
        """Decode one chunk.

        Args:
            chunk: The bytes as sent.
            overtime: Seconds since the response was due. The minimum rate applies once it is
                positive.

        Raises:
            TransportError: The body exceeds `MAX_RESPONSE_BYTES`.
            NoResponseError: The body arrives too slowly, or is not valid gzip.
        """
        self._received += len(chunk)
        if overtime > self._received / MIN_RATE:
            raise NoResponseError("the response arrives too slowly", maybe_sent=True)
        if self._decompressor is not None:
            try:
                # One byte over the limit: enough to detect a decompression bomb without inflating
                # it.
                chunk = self._decompressor.decompress(chunk, MAX_RESPONSE_BYTES - self._decoded + 1)
            except zlib.error as error:
                raise NoResponseError("the response is damaged", maybe_sent=True) from error
        self._decoded += len(chunk)
        if self._decoded > MAX_RESPONSE_BYTES:
            raise TransportError(
                f"the response has more than {MAX_RESPONSE_BYTES:,} bytes: request fewer items at once"
            )
        return chunk

    def finish(self) -> None:
        """Check that the body is complete.

        Raises:
            NoResponseError: The gzip stream is truncated.
        """
        if self._decompressor is not None and not self._decompressor.eof and self._received:
            raise NoResponseError("the response is truncated", maybe_sent=True)
