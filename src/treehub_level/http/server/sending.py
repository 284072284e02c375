"""The side of a connection that sends: small buffers, and a minimum rate for the peer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Bytes that a connection buffers in this process before it asks the application to wait. asyncio's
#: default for TLS is 512 KiB.
_BUFFER_BYTES: Final = 64 << 10
#: Bytes that the kernel takes before it has sent them. It would take up to 4 MiB for each peer that
#: reads nothing, and for a slow one report progress only every 1.3 MiB.
_KERNEL_BYTES: Final = 128 << 10


class _CountingTransport:
    """A transport that counts the bytes written to it. All else is the wrapped transport's."""

    def __init__(self, transport: asyncio.Transport, on_write: Callable[[], None]) -> None:
        self._transport = transport
        self._on_write = on_write
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Count the bytes, and write them."""
        self._transport.write(data)
        self.written += len(data)
        self._on_write()


class PacedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with a minimum rate at which the peer must take responses.

    While bytes wait to be sent, the peer has credit: `stall_seconds` at first, less each second
    that passes, and one second more for each `send_rate` bytes that it takes, up to `stall_seconds`
    again. A peer without credit is disconnected. A connection with nothing to send, such as a watch
    without changes, needs no credit.
    """

    #: Seconds within which the peer must read at least some of the response.
    stall_seconds: ClassVar[float] = 60
    #: Bytes a second that the peer must take on average, over `stall_seconds`.
    send_rate: ClassVar[int] = 8 << 10

    _counter: _CountingTransport
    _send_timer: asyncio.TimerHandle | None = None
    _send_deadline: float = 0
    _taken: int = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound the buffers, and begin to count."""
        transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):  # not a TCP socket
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _KERNEL_BYTES)
        self._counter = _CountingTransport(transport, self._on_write)
        super().connection_made(self._counter)  # type: ignore[arg-type]  # it acts as the transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks."""
        if self._send_timer is not None:
            self._send_timer.cancel()
        super().connection_lost(exc)

    @property
    def is_sending(self) -> bool:
        """True while bytes of a response wait for the peer."""
        return self.transport.get_write_buffer_size() > 0

    def _on_write(self) -> None:
        if self._send_timer is None and self.is_sending:
            self._taken = self._count_taken()
            self._send_deadline = self.loop.time() + self.stall_seconds
            self._schedule_send_check()

    def _schedule_send_check(self) -> None:
        self._send_timer = self.loop.call_later(self.stall_seconds / 10, self._check_sending)

    def _check_sending(self) -> None:
        self._send_timer = None
        if not self.is_sending:
            return
        now, taken = self.loop.time(), self._count_taken()
        earned = (taken - self._taken) / self.send_rate
        self._taken = taken
        self._send_deadline = min(now + self.stall_seconds, self._send_deadline + earned)
        if now > self._send_deadline:
            self.transport.abort()
        else:
            self._schedule_send_check()

    def _count_taken(self) -> int:
        return self._counter.written - self.transport.get_write_buffer_size()
