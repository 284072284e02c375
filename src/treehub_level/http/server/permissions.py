"""Routes that declare the permission they need. `authorized` refuses a route that declares none."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

#: A function that answers an authorized request. Its argument is a `dispatch.RequestContext`, a
#: class that this module cannot import: `dispatch` imports this one.
Handler = Callable[[Any], Awaitable[Response]]


class _AnythingConvertor(PathConvertor):
    """Matches the rest of a path. Starlette's own ``path`` stops at a line break."""

    regex = "(?s:.*)"


register_url_convertor("anything", _AnythingConvertor())


class Permission(enum.Enum):
    """The permission that a route needs. Every route declares one."""

    #: No token.
    OPEN = "open"
    #: A token that may read all keys of every database.
    OPERATE = "operate"
    #: A token that may read the requested database.
    READ = "read"
    #: A token that may write to the requested database.
    WRITE = "write"


class AuthorizedRoute(Route):
    """A route with a declared permission.

    Args:
        method: The HTTP method of the route.
        path: The path template, in Starlette's syntax.
        handler: The function that answers.
        permission: The permission that the route needs.

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
    """An ASGI endpoint that passes a request, with its route, to the application's dispatcher."""

    def __init__(self, route: AuthorizedRoute) -> None:
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["app"].state.dispatcher.dispatch(self._route, scope, receive, send)


def authorized(routes: Sequence[BaseRoute]) -> list[AuthorizedRoute]:
    """Return the routes if each of them declares its permission.

    Raises:
        TypeError: A route declares no permission.
    """
    for route in routes:
        if not isinstance(route, AuthorizedRoute):
            raise TypeError(f"{route!r} declares no permission, so it cannot be served: make it an AuthorizedRoute")
    return [route for route in routes if isinstance(route, AuthorizedRoute)]
