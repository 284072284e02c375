"""Routes that declare the permission they need. `authorized` refuses a route that declares none."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

#: What answers a request that was let in: see `service.Call`.
Handler = Callable[[Any], Awaitable[Response]]


class _Anything(PathConvertor):
    """The rest of a path, line breaks too, which Starlette's own ``path`` stops at."""

    regex = "(?s:.*)"


register_url_convertor("anything", _Anything())


class Permission(enum.Enum):
    """The permission that a route needs. Every route declares one."""

    #: Anybody.
    OPEN = "open"
    #: A token that may read every database, all of it.
    OPERATE = "operate"
    #: A token that may read the database in question.
    READ = "read"
    #: A token that may write to it.
    WRITE = "write"


class AuthorizedRoute(Route):
    """A route with a declared permission.

    Args:
        method: The one HTTP method that it has.
        path: As Starlette takes it.
        handler: What answers.
        permission: The permission that it needs.

    Raises:
        TypeError: ``permission`` is not a `Permission`.
    """

    def __init__(self, method: str, path: str, handler: Handler, *, permission: Permission) -> None:
        if not isinstance(permission, Permission):
            raise TypeError(f"the route {method} {path} must declare a Permission, not {permission!r}")
        self.handler = handler
        self.permission = permission
        self.label = f"{method} {path}"
        super().__init__(path, _Endpoint(self), methods=[method])
        self.methods = {method}  # without the HEAD that Starlette adds


class _Endpoint:
    """Hands a request to the application's service, with the route that it came by."""

    def __init__(self, route: AuthorizedRoute) -> None:
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["app"].state.service.answer(self._route, scope, receive, send)


def authorized(routes: Sequence[BaseRoute]) -> list[AuthorizedRoute]:
    """Return the routes if each declares its permission.

    Raises:
        TypeError: One does not.
    """
    for route in routes:
        if not isinstance(route, AuthorizedRoute):
            raise TypeError(f"{route!r} declares no permission, so it cannot be served: make it an AuthorizedRoute")
    return [route for route in routes if isinstance(route, AuthorizedRoute)]
