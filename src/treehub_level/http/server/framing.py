"""The framing of HTTP/1.1 requests."""

from __future__ import annotations

from collections.abc import Iterable

from ..framing import ChunkedBody, FramingError, HeadReader


class RequestFraming:
    """Takes heads and bodies from the bytes of a connection, each at most as far as it is complete.

    Args:
        head_bytes: The most bytes of a head: the request line and the fields, with the blank line.
            Trailers have the same limit.
    """

    def __init__(self, head_bytes: int) -> None:
        self._head_bytes = head_bytes
        self._buffer = bytearray()
        self._head = HeadReader(head_bytes)
        self._body: _LengthBody | ChunkedBody | None = None

    def __len__(self) -> int:
        """Return the number of bytes that were received and not taken."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def take_head(self) -> bytes:
        """Take the head of the next request. Return ``b""`` while it is incomplete.

        Raises:
            FramingError: The head is too large, or has a forbidden character.
        """
        self._body = None
        if self._buffer and self._buffer[0] < 0x21:  # such as a TLS handshake
            raise FramingError("a request begins with a control character")
        return self._head.take(self._buffer)

    def take_body(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Take the bytes of the body that were received, as h11 reads them.

        Args:
            headers: The headers of the request, as h11 returned them: validated, with names in
                lower case.

        Raises:
            FramingError: The framing of a chunk is malformed, or the trailers are too large.
        """
        if self._body is None:
            fields = dict(headers)
            is_chunked = b"transfer-encoding" in fields  # it takes precedence: RFC 9112, section 6.3
            length = int(fields.get(b"content-length", b"0"))
            self._body = ChunkedBody(self._head_bytes) if is_chunked else _LengthBody(length)
        return self._body.take(self._buffer)


class _LengthBody:
    """A body with a ``Content-Length``."""

    def __init__(self, length: int) -> None:
        self._left = length

    def take(self, buffer: bytearray) -> bytes:
        """Take the bytes that belong to the body from the buffer."""
        piece = bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        return piece
