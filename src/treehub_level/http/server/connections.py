"""Connection timeouts that uvicorn lacks."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with timeouts for idle connections, headers and stalled writes.

    uvicorn waits forever for the first request, for the rest of incomplete headers, and for a peer
    that does not read the response. The request body has a timeout of its own: see `bodies`.
    """

    #: Seconds for the headers of a request, counted from the connection or the previous response.
    header_seconds: ClassVar[float] = 20
    #: Seconds within which the peer must read at least some of the response.
    stall_seconds: ClassVar[float] = 60

    _timer: asyncio.TimerHandle | None = None
    _stalled_since: float = 0
    _unsent: int = 0
    _idle_since: float = 0
    _last_cycle: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout checks."""
        super().connection_made(transport)
        self._idle_since = self._stalled_since = self.loop.time()
        self._schedule_check()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout checks."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Respond to malformed HTTP, and detach the application.

        h11 allows one response a request, so the application must not respond as well.
        """
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # a response has begun, or was sent before the body was read
            return
        cycle: Any = self.cycle
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        super().send_400_response(msg)

    def _schedule_check(self) -> None:
        self._timer = self.loop.call_later(min(self.header_seconds, self.stall_seconds) / 4, self._check_timeouts)

    def _check_timeouts(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._stalled_since = now
        self._unsent = unsent
        # A changed cycle means that a whole request was served between two checks.
        if self._is_responding() or self.cycle is not self._last_cycle:
            self._idle_since = now
        self._last_cycle = self.cycle
        if now - self._stalled_since > self.stall_seconds or now - self._idle_since > self.header_seconds:
            self.transport.abort()
        else:
            self._schedule_check()

    def _is_responding(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete
