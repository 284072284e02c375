"""The routes for operators: the life of databases, and their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.responses import Response

from ...errors import LevelError, StateError
from ...replication.clients import client_document
from ...replication.fields import decode_message
from . import query
from .dispatch import RequestContext
from .identities import Identity
from .permissions import AuthorizedRoute, Permission
from .refusals import RefusedError, bad_request, forbidden
from .responses import json_response


async def list_databases(context: RequestContext) -> Response:
    """Answer with the databases that the token covers, and those that were dropped."""
    covers: Callable[[str], bool] = context.identity.covers
    hub = context.dispatcher.hub
    names, dropped = await asyncio.to_thread(hub.names), await asyncio.to_thread(hub.dropped)
    return json_response(
        context.request,
        {
            "databases": [name for name in names if covers(name)],
            "dropped": [found.document() for found in dropped if covers(found.name)],
        },
    )


async def create(context: RequestContext) -> Response:
    """Create a database."""
    name = context.request.path_params["db"]
    with _conflicts():
        await context.dispatcher.hub.create(name)
    return json_response(context.request, {"name": name}, status=201)


async def drop(context: RequestContext) -> Response:
    """Drop a database: for a day, or for good."""
    now = query.parse_parameters(context.request, {"now": query.parse_flag})["now"]
    hub, name = context.dispatcher.hub, context.request.path_params["db"]
    with _conflicts():
        if now:
            await hub.delete(name)
            return Response(status_code=204)
        dropped = await hub.drop(name)
    return json_response(context.request, dropped.document())


async def rename(context: RequestContext) -> Response:
    """Give a database another name."""
    to = _name_in(await context.read_json(decode_message), context.identity)
    if to is None:
        raise bad_request('the body must be {"to": the new name}')
    with _conflicts():
        await context.dispatcher.hub.rename(context.request.path_params["db"], to)
    return json_response(context.request, {"name": to})


async def undrop(context: RequestContext) -> Response:
    """Restore a dropped database, perhaps under another name."""
    to = _name_in(await context.read_json(decode_message), context.identity)
    with _conflicts():
        name = await context.dispatcher.hub.undrop(context.request.path_params["db"], to=to)
    return json_response(context.request, {"name": name})


async def list_clients(context: RequestContext) -> Response:
    """Answer with the clients of a database."""
    found = await context.database.clients()
    return json_response(context.request, {"clients": [client_document(client) for client in found]})


async def forget_client(context: RequestContext) -> Response:
    """Remove the records of a client."""
    if not await context.database.forget_client(context.request.path_params["id"]):
        raise RefusedError(404, "LEVEL_NOT_FOUND", "there is no such client in this database")
    return Response(status_code=204)


def _name_in(body: object, identity: Identity) -> str | None:
    """Return the new name in the body of a request; ``None`` if it has none.

    Raises:
        RefusedError: The body is malformed, or the token does not cover the name.
    """
    match body:
        case {"to": str(to), **others} if not others:
            if not identity.covers(to):
                raise forbidden("the token does not cover the new name: use one for it, too")
            return to
        case {**others} if not others:
            return None
    raise bad_request('the body must be {"to": the new name}')


@contextmanager
def _conflicts() -> Iterator[None]:
    """Translate the errors of a hub that its databases, or their names, do not permit a change."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, LevelError):
            raise
        raise bad_request(str(error)) from error
    except StateError as error:
        raise RefusedError(409, error.code, str(error)) from error


def _operators(method: str, path: str, handler: Callable[[Any], Any]) -> AuthorizedRoute:
    return AuthorizedRoute(method, path, handler, permission=Permission.OPERATE, uses_database=False)


ADMIN_ROUTES: Final = [
    AuthorizedRoute("GET", "/v1", list_databases, permission=Permission.INSPECT),
    _operators("PUT", "/v1/{db}", create),
    _operators("DELETE", "/v1/{db}", drop),
    _operators("POST", "/v1/{db}/rename", rename),
    _operators("POST", "/v1/{db}/undrop", undrop),
    AuthorizedRoute("GET", "/v1/{db}/clients", list_clients, permission=Permission.INSPECT),
    AuthorizedRoute("DELETE", "/v1/{db}/clients/{id}", forget_client, permission=Permission.OPERATE),
]
