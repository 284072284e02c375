"""HTTP/1.1 connections with the bounds that uvicorn lacks."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, ClassVar, Final

import h11
import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from ..framing import FramingError
from .access_log import ACCESS_RECORD, COMMON_HEADERS, DISCONNECTED, AccessRecord
from .connection_table import ConnectionState, TableEntry
from .disconnect import IS_GONE, has_hung_up, wait_for_disconnect
from .dispatch import OVERLOADED
from .framing import RequestFraming
from .refusals import bad_request
from .request_id import REQUEST_ID_HEADER, new_request_id
from .sending import PacedConnection

#: Seconds for which a refused peer may go on sending. Data that arrives at a closed socket would
#: make the kernel discard the refusal before the peer reads it.
_LINGER_SECONDS: Final = 1.0


class TimedConnection(PacedConnection):
    """uvicorn's HTTP/1.1 protocol, with bounds on the time and the size of requests.

    uvicorn waits forever for the first request, and for the rest of incomplete headers. The request
    body has a timeout of its own: see `bodies`. So has the response: see `sending`. `framing`
    describes the bounds on heads and chunks.

    Args:
        entry: The entry of the connection in the table of connections.
        options: The arguments of `H11Protocol`.
    """

    #: Seconds for the headers of a request, counted from the connection or the previous response.
    header_seconds: ClassVar[float] = 20
    #: The most bytes of a request line with its headers.
    header_bytes: ClassVar[int] = 16 << 10

    _timer: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None
    _idle_since: float = 0
    _last_cycle: Any = None

    def __init__(self, entry: TableEntry, **options: Any) -> None:
        super().__init__(**options)
        self.app = partial(_answer, entry, self.config.loaded_app)  # no method: it would be a reference cycle
        self._entry = entry
        self._framing = RequestFraming(self.header_bytes)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout checks."""
        super().connection_made(transport)
        if self._entry.state is ConnectionState.CLOSED:  # it made room while this call was scheduled
            transport.abort()
        else:
            self._entry.close = transport.abort
            self._entry.is_gone = partial(has_hung_up, transport)
        self._idle_since = self.loop.time()
        self._schedule_check()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout checks."""
        for timer in (self._timer, self._lingering):
            if timer is not None:
                timer.cancel()
        self._entry.remove()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on the heads and parts of bodies that ``data`` completes."""
        if self._lingering is None:
            self._framing.receive(data)
            self._advance()

    def on_response_complete(self) -> None:
        """Mark the connection as idle, and go on with a request that has already arrived."""
        record: AccessRecord | None = self.scope.get(ACCESS_RECORD)  # type: ignore[assignment]  # not ASGI's
        self._entry.end_request(authorised=record is not None and (record.token, record.database) != ("-", "-"))
        super().on_response_complete()
        self._advance()

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
        id = new_request_id()
        body = orjson.dumps({**bad_request(f"the request cannot be read: {msg}").body(), "request_id": id})
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *COMMON_HEADERS,
            (REQUEST_ID_HEADER.encode(), id.encode()),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._linger()

    def _linger(self) -> None:
        """Close the connection in a moment, and discard what arrives meanwhile."""
        self._lingering = self.loop.call_later(_LINGER_SECONDS, self.transport.close)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _advance(self) -> None:
        """Pass the parts of requests that are complete to h11, as far as it can take them."""
        try:
            while not self.transport.is_closing() and (piece := self._next_piece()):
                super().data_received(piece)
        except FramingError as error:
            self.logger.warning("Refused a malformed HTTP request: %s", error)
            self.send_400_response(str(error))

    def _next_piece(self) -> bytes:
        if not self._framing or self._lingering is not None:
            return b""
        if self.conn.their_state is h11.IDLE:
            return self._framing.take_head()
        if self.conn.their_state is h11.SEND_BODY:
            return self._framing.take_body(self.headers)
        self.flow.pause_reading()  # a pipelined request: it waits for the end of this response
        return b""

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


async def _answer(entry: TableEntry, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request to the application.

    The application learns if the server has too many connections, and if the client has gone.
    """
    scope[OVERLOADED] = not entry.begin_request()
    scope[IS_GONE] = lambda: entry.is_gone()  # the scope outlives the connection, to which this refers
    await app(scope, receive, send)
    record: AccessRecord | None = scope.get(ACCESS_RECORD)
    if record is not None and record.reason == DISCONNECTED:
        # Otherwise uvicorn, which may not know, reports an application that sends no response.
        entry.close()
        await wait_for_disconnect(receive)
