"""Log lines for the start and the stop of a server."""

from __future__ import annotations

import logging
import os
import platform
import time
from datetime import datetime, timezone

from ... import __version__, _core
from .certificate import Certificate
from .hub import Hub
from .logs import log_event
from .tokens import TemporaryToken, Tokens

logger = logging.getLogger("treehub_level.http")


class LifecycleLog:
    """Logs the start of a server with its settings, and its stop.

    Args:
        hub: The databases.
        tokens: The access tokens; ``None`` if requests need none.
        certificate: The certificate; ``None`` to serve without TLS.
    """

    def __init__(self, hub: Hub, tokens: Tokens | None, certificate: Certificate | None) -> None:
        self._hub = hub
        self._tokens = tokens
        self._certificate = certificate
        self._url = ""
        self._started_at = 0.0

    @property
    def authentication(self) -> str:
        """The way in which requests are authenticated: "none", "tokens" or "temporary token"."""
        if self._tokens is None:
            return "none"
        return "temporary token" if isinstance(self._tokens, TemporaryToken) else "tokens"

    def listening(self, url: str) -> None:
        """Log that clients can connect."""
        self._url, self._started_at = url, time.monotonic()
        databases = len(self._hub.names())
        expires = self._certificate.expires if self._certificate is not None else None
        until = None if expires is None else datetime.fromtimestamp(expires, timezone.utc).isoformat(timespec="seconds")
        certificate = "none" if self._certificate is None else f"until {until or 'an unknown time'}"
        log_event(
            logger,
            logging.INFO,
            "started",
            f"started at {url}: treehub-level {__version__}, core {_core.CORE}, Python {platform.python_version()}, "
            f"process {os.getpid()}, databases {databases}, authentication {self.authentication}, "
            f"certificate {certificate}",
            {
                "url": url,
                "version": __version__,
                "core": _core.CORE,
                "python": platform.python_version(),
                "pid": os.getpid(),
                "databases": databases,
                "authentication": self.authentication,
                "certificate_expires": until,
            },
        )

    def stopping(self) -> None:
        """Log that the server takes no more requests, and waits for those in progress."""
        log_event(
            logger,
            logging.INFO,
            "stopping",
            f"stopping: the server at {self._url} takes no more requests",
            {"url": self._url},
        )

    def stopped(self) -> None:
        """Log the end of the server, if it was started."""
        if self._url:
            seconds = time.monotonic() - self._started_at
            message = f"stopped after {seconds:.1f} s"
            log_event(logger, logging.INFO, "stopped", message, {"url": self._url, "uptime_seconds": round(seconds, 3)})
