"""The framing of HTTP/1.1 responses, before h11 reads them: see `http.framing`.

A client sends a request only after the response to the last one. So the bytes that follow a request
begin with a head.
"""

from __future__ import annotations

import re
from typing import Final

from ..framing import ChunkedBody, HeadReader

#: The most bytes of the head of a response, and of trailers. Common servers and proxies allow less.
MAX_RESPONSE_HEAD: Final = 64 * 1024
#: The status line of a response that another one follows: 101 Switching Protocols is the last one.
_INFORMATIONAL: Final = re.compile(rb"HTTP/[0-9.]{3} 1(?!01)[0-9]{2}")


class ResponseFraming:
    """Checks the heads and the chunks among the bytes that a connection receives."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: HeadReader | None = None
        self._chunks: ChunkedBody | None = None

    def send(self, data: bytes) -> None:
        """Take note of bytes that are sent, which may begin a request.

        The handshake of a SOCKS proxy is no request: it does not begin with a letter.
        """
        if self._head is None and data[:1].isalpha():
            self._head, self._chunks = HeadReader(MAX_RESPONSE_HEAD), None

    def receive(self, data: bytes) -> bytes:
        """Add received bytes, and return those that h11 may read by now.

        Raises:
            FramingError: A part of the response is too large or malformed.
        """
        self._buffer += data
        ready: list[bytes] = []
        while self._head is not None and (head := self._head.take(self._buffer)):
            ready.append(head)
            if not _INFORMATIONAL.match(head):
                self._head = None
                self._chunks = ChunkedBody(MAX_RESPONSE_HEAD) if b"\ntransfer-encoding:" in head.lower() else None
        if self._chunks is not None:
            ready.append(self._chunks.take(self._buffer))
            if self._chunks.is_complete:
                self._chunks = None
        if self._head is None and self._chunks is None:
            ready.append(bytes(self._buffer))
            self._buffer.clear()
        return b"".join(ready)
