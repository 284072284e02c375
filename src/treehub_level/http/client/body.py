"""Reading a reply's body in bounded memory and bounded time, however it is compressed and however slowly it comes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from ...errors import TransportError

#: The most bytes of a reply, as sent and as decoded. A page has at most 8 MiB of keys and values.
MAX_REPLY = 32 << 20
#: Bytes a second below which a reply is given up: a server that sends a byte now and then is as good as dead.
MIN_RATE = 4 << 10


class UnansweredError(Exception):
    """There was no reply, or not all of it.

    Attributes:
        sent: Whether the server may have received the request.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Body:
    """The bytes of one reply.

    Args:
        headers: Its headers, names in lower case.

    Raises:
        TransportError: An encoding that is not understood here.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise TransportError(f"the reply is encoded as {encoding!r:.40}, which was not asked for")
        self._decoder = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        self._received = 0
        self._decoded = 0

    def feed(self, data: bytes, overdue: float) -> bytes:
        """Decode what came next.

        Args:
            data: The bytes as they were sent.
            overdue: Seconds beyond those that any reply is given.

        Raises:
            TransportError: Too many bytes.
            UnansweredError: Too slow, or not what the encoding promises.
        """
        self._received += len(data)
        if overdue > self._received / MIN_RATE:
            raise UnansweredError("the reply comes too slowly", sent=True)
        if self._decoder is not None:
            try:
                # One byte more than is allowed: a bomb is noticed, and not inflated.
                data = self._decoder.decompress(data, MAX_REPLY - self._decoded + 1)
            except zlib.error as error:
                raise UnansweredError("the reply is damaged", sent=True) from error
        self._decoded += len(data)
        if self._decoded > MAX_REPLY:
            raise TransportError(f"the reply has more than {MAX_REPLY:,} bytes: ask for less at once")
        return data

    def end(self) -> None:
        """There is nothing more.

        Raises:
            UnansweredError: It ended too early.
        """
        if self._decoder is not None and not self._decoder.eof and self._received:
            raise UnansweredError("the reply ends in the middle", sent=True)
