"""What every request passes on its way in, and every answer on its way out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics

#: Where the record of a request is kept, in its ASGI scope.
RECORD: Final = "treehub_level.record"

#: On every answer. They are for browsers, in which nobody shall make a page, a script or a copy of one.
_HEADERS: Final = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
]

logger = logging.getLogger("treehub_level.http")


@dataclass(slots=True)
class AccessRecord:
    """What may be told of a request in a log line: nothing that its sender has made up, so nothing of any length.

    Attributes:
        route: The route's own text.
        database: The name of a database that exists.
        token: The id of a token that is valid.
        status: The status that was sent; 0 for none.
        reason: Why it was refused, if it was.
    """

    route: str = "-"
    database: str = "-"
    token: str = "-"
    status: int = 0
    reason: str = "-"


class AccessLogMiddleware:
    """Adds the headers that every answer has, counts, and writes one log line a request.

    Args:
        app: What is behind it.
        metrics: What counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope[RECORD] = AccessRecord()
        started = time.perf_counter()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            self._notify(record, time.perf_counter() - started)

    def _notify(self, record: AccessRecord, seconds: float) -> None:
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
