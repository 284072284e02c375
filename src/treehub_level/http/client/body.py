"""Decoding of response bodies with bounds on memory and time."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ...errors import TransportError

#: Maximum bytes of the body of a page, decoded. A page has at most 8 MiB of records, values and
#: entries, and 20 bytes for the CID of each. The reply also names the rejected keys of the push,
#: whose JSON has at most 8 MiB, and names them again if they are refused.
MAX_PAGE_BYTES = 28 << 20
#: Maximum bytes of a body with one value of a key, or one event with a change: 4 MiB of JSON, and
#: the key of the change.
MAX_VALUE_BYTES = (4 << 20) + (16 << 10)
#: Maximum bytes of any other body: a description of the database, or a refusal.
MAX_DOCUMENT_BYTES = 64 << 10
#: Maximum number of characters of a reason.
_MAX_REASON = 300
#: Minimum bytes per second. A slower response is abandoned: the read timeout alone would let a
#: server send one byte now and then for ever.
MIN_RATE = 4 << 10


class NoResponseError(Exception):
    """No complete response arrived.

    Args:
        reason: The reason. That of a library may repeat bytes of the server: its beginning is kept.

    Attributes:
        maybe_sent: True if the server may have received the request.
    """

    def __init__(self, reason: str, *, maybe_sent: bool) -> None:
        super().__init__(reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}…")
        self.maybe_sent = maybe_sent


class BodyDecoder:
    """A decoder for the body of one response, fed chunk by chunk.

    Args:
        headers: The headers of the response, with names in lower case.
        limit: The maximum size of the decoded body, in bytes.

    Attributes:
        body: The bytes decoded so far.

    Raises:
        TransportError: The content encoding is neither gzip nor identity.
    """

    def __init__(self, headers: Mapping[str, str], limit: int) -> None:
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise TransportError(f"the response is encoded as {encoding!r:.40}, which the client did not accept")
        self._decompressor = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        self._received = 0
        self._limit = limit
        # One buffer: a list of chunks of two bytes would take thirty times as much memory.
        self.body = bytearray()

    def feed(self, chunk: bytes, overtime: float) -> None:
        """Decode one chunk, and append it to `body`.

        Args:
            chunk: The bytes as sent.
            overtime: Seconds since the response was due. The minimum rate applies once it is
                positive.

        Raises:
            TransportError: The body exceeds the limit.
            NoResponseError: The body arrives too slowly, or is not valid gzip.
        """
        self._received += len(chunk)
        if overtime > self._received / MIN_RATE:
            raise NoResponseError("the response arrives too slowly", maybe_sent=True)
        if self._decompressor is not None:
            try:
                # One byte over the limit: enough to detect a decompression bomb without inflating
                # it.
                chunk = self._decompressor.decompress(chunk, self._limit - len(self.body) + 1)
            except zlib.error as error:
                raise NoResponseError("the response is damaged", maybe_sent=True) from error
        if len(self.body) + len(chunk) > self._limit:
            raise TransportError(f"the response has more than {self._limit:,} bytes: it is not one of this request")
        self.body += chunk

    def finish(self) -> None:
        """Check that the body is complete.

        Raises:
            NoResponseError: The gzip stream is truncated.
        """
        if self._decompressor is not None and not self._decompressor.eof and self._received:
            raise NoResponseError("the response is truncated", maybe_sent=True)
