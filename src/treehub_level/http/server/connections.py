"""Connection timeouts that uvicorn lacks."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11

from .sending import PacedConnection


class TimedConnection(PacedConnection):
    """uvicorn's HTTP/1.1 protocol, with timeouts for idle connections and headers.

    uvicorn waits forever for the first request, and for the rest of incomplete headers. The request
    body has a timeout of its own: see `bodies`. So has the response: see `sending`.
    """

    #: Seconds for the headers of a request, counted from the connection or the previous response.
    header_seconds: ClassVar[float] = 20

    _timer: asyncio.TimerHandle | None = None
    _idle_since: float = 0
    _last_cycle: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout checks."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
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
        self._timer = self.loop.call_later(self.header_seconds / 4, self._check_timeouts)

    def _check_timeouts(self) -> None:
        now = self.loop.time()
        # A changed cycle means that a whole request was served between two checks.
        if self._is_responding() or self.cycle is not self._last_cycle:
            self._idle_since = now
        self._last_cycle = self.cycle
        if now - self._idle_since > self.header_seconds:
            self.transport.abort()
        else:
            self._schedule_check()

    def _is_responding(self) -> bool:
        cycle: Any = self.cycle
        return self.is_sending or (cycle is not None and not cycle.response_complete)
