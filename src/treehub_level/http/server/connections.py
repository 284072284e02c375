"""One connection: uvicorn's, with the patience that it lacks."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedConnection(H11Protocol):
    """Ends a connection whose peer does not send its next request, or does not take its answer.

    uvicorn waits for the first request, and for the rest of any headers, and for a peer that reads nothing, for ever.
    The time of a body is the application's: see `bodies`.
    """

    #: Seconds that a peer has for the headers of a request, from the connection or the end of the answer before.
    header_seconds: ClassVar[float] = 20
    #: Seconds in which a peer must take something of what waits to be sent.
    stall_seconds: ClassVar[float] = 60

    _timer: asyncio.TimerHandle | None = None
    _stalled_since: float = 0
    _unsent: int = 0
    _idle_since: float = 0
    _last_cycle: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to look after it."""
        super().connection_made(transport)
        self._idle_since = self._stalled_since = self.loop.time()
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and see to it that nobody else does: h11 takes no second answer to a request."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is on its way, or was given before the body was read
            return
        cycle: Any = self.cycle
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        super().send_400_response(msg)

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(min(self.header_seconds, self.stall_seconds) / 4, self._look)

    def _look(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._stalled_since = now
        self._unsent = unsent
        if self._is_answering() or self.cycle is not self._last_cycle:  # a request may come and go between two looks
            self._idle_since = now
        self._last_cycle = self.cycle
        if now - self._stalled_since > self.stall_seconds or now - self._idle_since > self.header_seconds:
            self.transport.abort()
        else:
            self._look_again()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete
