"""Middleware for every request: common headers, metrics, and one access log line."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..identity import SERVER_HEADER, SERVER_HEADER_VALUE
from .client_address import TrustedProxies
from .logs import ACCESS_LOGGER, log_event
from .metrics import Metrics
from .request_id import REQUEST_ID_HEADER, request_id

#: The key of the ASGI scope that holds the `AccessRecord` of a request.
ACCESS_RECORD: Final = "treehub_level.access_record"

#: The reason in the log if the client closed the connection before the response.
DISCONNECTED: Final = "disconnected"

#: Headers of every response. Browsers may not cache it, embed it, run it, or guess its media type;
#: clients recognise the server.
COMMON_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (SERVER_HEADER.encode(), SERVER_HEADER_VALUE.encode()),
]

logger = logging.getLogger(ACCESS_LOGGER)


@dataclass(slots=True)
class AccessRecord:
    """The fields of an access log line, each of a bounded length.

    A client chooses none of them but the request id, of which only a harmless one is taken.

    Attributes:
        request_id: The id of the request.
        client: The IP address of the client; ``None`` if it is unknown.
        route: The method and the path template of the route.
        database: The name of an existing database.
        token: The id of a valid token.
        name: The name of the token, or of the user.
        status: The HTTP status of the response; 0 if no response was sent.
        reason: The error code of the refusal, if the request was refused.
        received: The bytes of the request body that were read.
        sent: The bytes of the response body.
        trace_id: The id of the trace of OpenTelemetry; ``None`` without one.
    """

    request_id: str
    client: str | None = None
    route: str = "-"
    database: str = "-"
    token: str = "-"
    name: str = "-"
    status: int = 0
    reason: str = "-"
    received: int = 0
    sent: int = 0
    trace_id: str | None = None

    def text(self, seconds: float) -> str:
        """Return the line of a text log."""
        name = json.dumps(self.name, ensure_ascii=False) if " " in self.name else self.name
        return (
            f"{self.route} {self.status} {seconds * 1000:.1f}ms database={self.database} token={self.token} "
            f"name={name} reason={self.reason} client={self.client or '-'} in={self.received} out={self.sent} "
            f"request={self.request_id}"
        )

    def fields(self, seconds: float) -> dict[str, Any]:
        """Return the fields of a log in JSON, with a message that does not repeat them all."""
        return {
            "message": f"{self.route} {self.status}",
            "request_id": self.request_id,
            "client": self.client,
            "route": _present(self.route),
            "status": self.status,
            "duration_seconds": round(seconds, 6),
            "database": _present(self.database),
            "token": _present(self.token),
            "token_name": _present(self.name),
            "reason": _present(self.reason),
            "received_bytes": self.received,
            "sent_bytes": self.sent,
            "trace_id": self.trace_id,
        }


def _present(text: str) -> str | None:
    return None if text == "-" else text


class AccessLogMiddleware:
    """Adds the common headers to each response, updates the metrics, and logs one line a request.

    Args:
        app: The next ASGI application.
        metrics: The metrics to update.
        proxies: The proxies whose word on the address of a client is taken.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, proxies: TrustedProxies) -> None:
        self._app = app
        self._metrics = metrics
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the next application, with an `AccessRecord` in its scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope[ACCESS_RECORD] = AccessRecord(request_id(scope), self._proxies.client(scope))
        id_header = REQUEST_ID_HEADER.encode(), record.request_id.encode()
        started = time.perf_counter()

        async def counting_receive() -> Message:
            message = await receive()
            record.received += len(message.get("body", b""))
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *COMMON_HEADERS, id_header]
            record.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counting_receive, send_with_headers)
        finally:
            self._report(record, time.perf_counter() - started)

    def _report(self, record: AccessRecord, seconds: float) -> None:
        """Update the metrics and write the log line of a finished request."""
        metrics = self._metrics
        metrics.requests.labels(record.route, record.status).inc()
        metrics.seconds.labels(record.route).observe(seconds)
        metrics.received.labels(record.route).inc(record.received)
        metrics.sent.labels(record.route).inc(record.sent)
        if record.reason != "-":
            metrics.refused.labels(record.reason).inc()
        if logger.isEnabledFor(logging.INFO):
            log_event(logger, logging.INFO, "request", record.text(seconds), record.fields(seconds))
