"""Routing by the path as it was sent, so that a path has one reading."""

from __future__ import annotations

from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send


class RawPathMiddleware:
    """Routes requests by the raw path, in which percent-encoded characters are not decoded.

    ASGI's ``path`` is decoded. In it ``/v1/%6eotes`` and ``/v1/notes`` are the same, and so are a
    slash between segments and an encoded one. A proxy in front of the server that allows or denies
    paths reads them as sent. `query.parse_key` decodes the key, the only part of a path that may
    have encoded characters.

    Args:
        app: The next ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the next application, with the raw path in its scope."""
        if scope["type"] == "http":
            raw: bytes | None = scope.get("raw_path")  # optional in ASGI
            scope = {**scope, "path": quote(scope["path"]) if raw is None else raw.decode("latin-1")}
        await self._app(scope, receive, send)
