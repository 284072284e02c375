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

from ..identity import SERVER_HEADER
from .access_log import ACCESS_RECORD, AccessLogMiddleware, AccessRecord
from .client_address import TrustedProxies
from .dispatch import Dispatcher
from .hub import Hub
from .identities import Authenticate
from .limits import Limits
from .origins import OriginPolicy
from .permissions import authorized
from .raw_path import RawPathMiddleware
from .refusals import RefusedError
from .request_id import REQUEST_ID_HEADER
from .responses import refusal_response
from .routes import ROUTES
from .tokens import Tokens

#: Names of the loopback interface in a ``Host`` header.
LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")

_CORS_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_CORS_REQUEST_HEADERS: Final = (
    "authorization",
    "content-type",
    "if-match",
    "if-none-match",
    "last-event-id",
    REQUEST_ID_HEADER,
)


def create_app(
    hub: Hub,
    *,
    tokens: Tokens | None = None,
    authenticate: Authenticate | None = None,
    hosts: Iterable[str] = LOOPBACK_HOSTS,
    origins: Iterable[str] = (),
    compressed_requests: bool = False,
    limits: Limits | None = None,
    proxies: Iterable[str] = (),
) -> Starlette:
    """Create the ASGI application that serves the databases of a hub.

    Run it as it is, or mount it in another application. Run as it is, it opens and closes the hub
    in its own lifespan. ASGI runs no lifespan of a mounted application, so the outer application
    opens the hub in its lifespan: ``async with hub:``.

    Args:
        hub: The databases.
        tokens: The access tokens. Without them, every client may read and write every database:
            use this on loopback, or behind an application that has authenticated the client.
        authenticate: A function ``fn(request) -> Identity | None`` that takes the place of
            ``tokens``, for an application with users of its own. An async function is awaited, a
            plain one runs in a thread. ``None`` refuses the request with 401. A request in progress
            asks again, at most once a second. A `JWT` is one of these functions, and `Tokens`
            another.
        hosts: Host names that the server accepts in the ``Host`` header, without a port; ``"*"``
            accepts every name.
        origins: Origins whose pages may call the server (CORS), such as ``https://example.org``.
            By default no other origin may: requests that its pages cause are refused.
        compressed_requests: True to accept request bodies compressed with gzip or zstd.
        limits: Limits on sizes, times and concurrent requests; the defaults of `Limits` if not
            given.
        proxies: Addresses and networks of reverse proxies, such as ``10.0.0.0/8``. From them alone
            the header ``X-Forwarded-For`` counts, for the address of the client in the log.

    Returns:
        The application.

    Raises:
        TypeError: ``authenticate`` is no function.
        ValueError: Both ``tokens`` and ``authenticate`` are given, or ``proxies`` has an item that
            is no address or network.
    """
    if tokens is not None and authenticate is not None:
        raise ValueError("give tokens or authenticate, not both: a Tokens object is a function for authenticate, too")
    origins = [*origins]
    dispatcher = Dispatcher(
        hub,
        tokens or authenticate,
        frozenset(host.lower() for host in hosts),
        OriginPolicy(origins),
        compressed_requests=compressed_requests,
        limits=limits or Limits(),
    )
    middleware = [Middleware(AccessLogMiddleware, metrics=dispatcher.metrics, proxies=TrustedProxies(proxies))]
    if origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=_CORS_METHODS,
                allow_headers=_CORS_REQUEST_HEADERS,
                expose_headers=["etag", "retry-after", SERVER_HEADER, REQUEST_ID_HEADER],
            )
        )
    middleware.append(Middleware(RawPathMiddleware))

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
        exception_handlers={HTTPException: _routing_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.dispatcher = dispatcher
    return app


async def _routing_error(request: Request, error: Exception) -> Response:
    """Return the response for an unknown path (404) or an unsupported method (405)."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = RefusedError(
            405, "LEVEL_METHOD", "this path does not support the method", headers=dict(error.headers or {})
        )
    else:
        refusal = RefusedError(404, "LEVEL_ROUTE_NOT_FOUND", "there is no such path on this server")
    record: AccessRecord = request.scope[ACCESS_RECORD]
    record.reason = refusal.code
    return refusal_response(refusal, record.request_id)
