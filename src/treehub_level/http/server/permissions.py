"""Routes that declare the permission they need. `authorized` refuses a route that declares none.

`check_permission` decides if a caller has the permission.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from .catalog import DATABASE_NAME
from .identities import Identity
from .refusals import RefusedError, database_not_found, forbidden

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
    #: A token for every database that is an operator's, or may read all keys.
    MONITOR = "monitor"
    #: An operator's token. On a server without tokens every caller: it only reads.
    INSPECT = "inspect"
    #: An operator's token, which covers the requested database.
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
        uses_database: False for a route with ``{db}`` that does not read or write in the database:
            it gets no `RequestContext.database`, and there may be none of that name.

    Raises:
        TypeError: ``permission`` is not a `Permission`.
    """

    def __init__(
        self, method: str, path: str, handler: Handler, *, permission: Permission, uses_database: bool = True
    ) -> None:
        if not isinstance(permission, Permission):
            raise TypeError(f"the route {method} {path} must declare a Permission, not {permission!r}")
        self.handler = handler
        self.permission = permission
        self.uses_database = uses_database and "{db}" in path
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


def check_permission(permission: Permission, identity: Identity, database: str | None) -> None:
    """Check that a caller has the permission that a route needs.

    Args:
        permission: The permission.
        identity: The caller.
        database: The requested database; ``None`` for a route without one.

    Raises:
        RefusedError: The caller lacks it: 404 if it may not know if the database exists, else 403.
    """
    if database is not None and not (DATABASE_NAME.fullmatch(database) and identity.covers(database)):
        raise database_not_found()
    match permission:
        case Permission.MONITOR if not identity.may_monitor:
            raise forbidden("this path needs a token for all databases (*): an operator's, or one without a prefix")
        case Permission.INSPECT if not (identity.operator or identity.is_anonymous):
            raise _operators_only(identity)
        case Permission.OPERATE if not identity.operator:
            raise _operators_only(identity)
        case Permission.WRITE if not identity.write:
            raise forbidden("this token is read-only: use one that may write")


def _operators_only(identity: Identity) -> RefusedError:
    if identity.is_anonymous:
        return forbidden(
            "this request is for operators, and a server without tokens has none: start it with "
            "--temporary-token, or with --tokens FILE and a token of `treehub-level token add --operator`"
        )
    return forbidden(
        "this request is for operators: use a token that was made with `treehub-level token add --operator`"
    )
