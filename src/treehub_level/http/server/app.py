"""The ASGI application: `create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from .access_log import RECORD, AccessLogMiddleware
from .dispatch import Service
from .hub import Hub
from .limits import Limits
from .permissions import authorized
from .refusals import RefusedError
from .responses import refusal_response
from .routes import ROUTES
from .tokens import Tokens

#: What this machine calls itself.
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")

_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_REQUEST_HEADERS: Final = ("authorization", "content-type", "last-event-id")


def create_app(
    hub: Hub,
    *,
    tokens: Tokens | None = None,
    hosts: Iterable[str] = LOOPBACK,
    origins: Iterable[str] = (),
    compressed_requests: bool = False,
    limits: Limits | None = None,
) -> Starlette:
    """Make the application that serves a hub. Let it run alone, or mount it in another one.

    Alone, it opens and closes the hub itself. An application that mounts it does that in its own lifespan, by
    ``async with hub:``, since ASGI has no lifespan for what is mounted.

    Args:
        hub: The databases.
        tokens: Who may do what. Without, everybody may do everything: for loopback, and for an application that has
            checked who it is before.
        hosts: The names that the server answers to, as in the header ``Host``, without a port; ``"*"`` for any.
        origins: The origins whose pages may call it, such as ``https://example.org``. None may unless named here.
        compressed_requests: Whether the bodies of requests may be compressed.
        limits: How much it takes on.
    """
    service = Service(
        hub,
        tokens,
        frozenset(host.lower() for host in hosts),
        compressed_requests=compressed_requests,
        limits=limits or Limits(),
    )
    middleware = [Middleware(AccessLogMiddleware, metrics=service.metrics)]
    if origins := [*origins]:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=_METHODS,
                allow_headers=_REQUEST_HEADERS,
                expose_headers=["retry-after"],
            )
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if hub.is_open:
            yield
            return
        async with hub:
            yield

    app = Starlette(
        routes=authorized(ROUTES),
        middleware=middleware,
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = RefusedError(405, "LEVEL_METHOD", "this path has other methods", headers=dict(error.headers or {}))
    else:
        refusal = RefusedError(404, "LEVEL_ROUTE_NOT_FOUND", "there is no such path here")
    request.scope[RECORD].reason = refusal.code
    return refusal_response(refusal)
