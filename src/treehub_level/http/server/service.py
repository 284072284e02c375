"""Routes of an application beside those of `create_app`: errors, users, and live changes.

An application of FastAPI or Starlette opens databases by `Hub.use`. With `error_response` its
routes answer errors of the package as those of `create_app` do, and with `require_identity` they
have the same users.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from .identities import Authenticate, Authenticator, Identity
from .refusals import refusal_for
from .responses import refusal_response

logger = logging.getLogger("treehub_level.http")


async def error_response(request: Request, error: Exception) -> Response:
    """Return the response for an error of this package that a route has raised.

    Status, headers and body are those of the routes of `create_app`: 404 for a database that does
    not exist, 503 with ``Retry-After`` while the hub stops, 412 for a `ConditionError`. Install it
    as an exception handler: ``app.add_exception_handler(LevelError, error_response)``.

    Args:
        request: The request.
        error: The error.
    """
    refusal = refusal_for(error)
    if refusal.status == 500:
        # The log omits the message, which may quote stored values.
        logger.error("%s %s failed: %s", request.method, request.scope.get("route"), type(error).__name__)
    return refusal_response(refusal)


def require_identity(authenticate: Authenticate) -> Callable[[Request], Awaitable[Identity]]:
    """Return a dependency of FastAPI that has the `Identity` of the caller.

    Use it as ``Annotated[Identity, Depends(require_identity(authenticate))]``. It refuses a caller
    that is unknown, or whose rights have expired, by a `RefusedError` with the status 401, for
    which the application installs `error_response`.

    Args:
        authenticate: The function that `create_app` takes, too, such as a `JWT` or `Tokens`.

    Raises:
        TypeError: It is no function.
    """
    authenticator = Authenticator(authenticate)

    async def identity(request: Request) -> Identity:
        return await authenticator(request)

    return identity
