"""Routes that say what right they need. There are no others: `scoped` sees to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Send
from starlette.types import Scope as Request

from .scopes import Scope

#: What answers a request that was let in: see `service.Call`.
Handler = Callable[[Any], Awaitable[Response]]


class _Anything(PathConvertor):
    """The rest of a path, line breaks too, which Starlette's own ``path`` stops at."""

    regex = "(?s:.*)"


register_url_convertor("anything", _Anything())


class ScopedRoute(Route):
    """A route with a declared scope.

    Args:
        method: The one HTTP method that it has.
        path: As Starlette takes it.
        handler: What answers.
        scope: The right that it needs.

    Raises:
        TypeError: No scope.
    """

    def __init__(self, method: str, path: str, handler: Handler, *, scope: Scope) -> None:
        if not isinstance(scope, Scope):
            raise TypeError(f"the route {method} {path} must declare a scope, a member of Scope; {scope!r} is none")
        self.handler = handler
        self.scope = scope
        self.label = f"{method} {path}"
        super().__init__(path, _Endpoint(self), methods=[method])
        self.methods = {method}  # without the HEAD that Starlette adds


class _Endpoint:
    """Hands a request to the application's service, with the route that it came by."""

    def __init__(self, route: ScopedRoute) -> None:
        self._route = route

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        await scope["app"].state.service.answer(self._route, scope, receive, send)


def scoped(routes: Sequence[BaseRoute]) -> list[ScopedRoute]:
    """These routes, if each has declared its scope.

    Raises:
        TypeError: One has not.
    """
    for route in routes:
        if not isinstance(route, ScopedRoute):
            raise TypeError(f"{route!r} declares no scope, so it cannot be served: make it a ScopedRoute")
    return [route for route in routes if isinstance(route, ScopedRoute)]
