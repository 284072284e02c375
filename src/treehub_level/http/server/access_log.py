"""Middleware for every request: common headers, metrics, and one access log line."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..identity import SERVER_HEADER, SERVER_HEADER_VALUE
from .metrics import Metrics

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

logger = logging.getLogger("treehub_level.http")


@dataclass(slots=True)
class AccessRecord:
    """The fields of an access log line. None of them is chosen by the client, so none can be long.

    Attributes:
        route: The method and the path template of the route.
        database: The name of an existing database.
        token: The id of a valid token.
        status: The HTTP status of the response; 0 if no response was sent.
        reason: The error code of the refusal, if the request was refused.
    """

    route: str = "-"
    database: str = "-"
    token: str = "-"
    status: int = 0
    reason: str = "-"


class AccessLogMiddleware:
    """Adds the common headers to each response, updates the metrics, and logs one line a request.

    Args:
        app: The next ASGI application.
        metrics: The metrics to update.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the next application, with an `AccessRecord` in its scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope[ACCESS_RECORD] = AccessRecord()
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *COMMON_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._report(record, time.perf_counter() - started)

    def _report(self, record: AccessRecord, seconds: float) -> None:
        """Update the metrics and write the log line of a finished request."""
        self._metrics.requests.labels(record.route, record.status).inc()
        self._metrics.seconds.labels(record.route).observe(seconds)
        if record.reason != "-":
            self._metrics.refused.labels(record.reason).inc()
        logger.info(
            "%s %d %.1fms database=%s token=%s reason=%s",
            record.route,
            record.status,
            seconds * 1000,
            record.database,
            record.token,
            record.reason,
        )
