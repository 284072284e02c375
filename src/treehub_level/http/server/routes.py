"""The routes, each with the right that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.responses import Response

from ... import _core
from ...replication.wire import part_pieces, rows_pieces
from . import query
from .database import KeyBounds
from .dispatch import RequestContext
from .metrics import CONTENT_TYPE
from .permissions import AuthorizedRoute, Permission
from .refusals import RefusedError, malformed
from .responses import json_response, raw_response, reply_response, streamed_response
from .watch import Watch


async def health(call: RequestContext) -> Response:
    """Whether this process works: who runs it may start it anew if not."""
    return _status(call, "ok")


async def ready(call: RequestContext) -> Response:
    """Whether it also reaches its stores: a load balancer may ask another one meanwhile if not."""
    return _status(call, "ok" if await call.service.hub.is_ready() else "unavailable")


def _status(call: RequestContext, status: str) -> Response:
    status = "closing" if call.service.hub.stopping.is_set() else status
    return json_response(call.request, {"status": status}, status=200 if status == "ok" else 503)


async def metrics(call: RequestContext) -> Response:
    """The figures for Prometheus."""
    return raw_response(call.request, call.service.metrics.text(), media_type=CONTENT_TYPE)


async def facts(call: RequestContext) -> Response:
    """What there is to know about a database."""
    return json_response(call.request, await call.database.facts())


# ---------------------------------------------------------------------------------------------- replication


async def exchange(call: RequestContext) -> Response:
    """Pull and push in one step. Who may only read may exchange, too, with nothing to push."""
    wait = query.parameters(call.request, {"wait": query.seconds})["wait"] or 0
    message = await call.json()
    database = call.database
    pushed = _pushed(message)
    if pushed:
        with call.writing():
            reply = await database.exchange(message, 0)
    elif wait:
        reply = await call.patiently(database.exchange(message, wait), lambda: database.exchange(message, 0))
    else:
        reply = await database.exchange(message, 0)
    call.let_go()
    call.service.metrics.exchanged(database.name, reply)
    return reply_response(call.request, reply)


def _pushed(message: object) -> bool:
    """Whether a request may have something to push. What it is worth, the exchange says."""
    return isinstance(message, Mapping) and bool(message.get("changes") or message.get("withdraw"))


async def changes(call: RequestContext) -> Response:
    """The seed's pull."""
    given = query.parameters(call.request, {"since": query.cid, "limit": query.limit, "wait": query.seconds})
    since, limit, wait = given["since"] or 0, given["limit"] or 100, given["wait"] or 0
    database = call.database
    if wait:
        part = await call.patiently(database.part(since, limit, wait), lambda: database.part(since, limit))
    else:
        part = await database.part(since, limit)
    call.service.metrics.pulled(database.name, len(part.records))
    return streamed_response(call.request, partial(part_pieces, part))


async def change(call: RequestContext) -> Response:
    """The seed's push."""
    message = await call.json()
    match message:
        case {"cid": cid, "changes": list(pushed)} if type(cid) is int:
            with call.writing():
                reached = await call.database.change(cid, pushed)
            call.service.metrics.pushed(call.database.name, len(pushed))
            return json_response(call.request, {"cid": reached})
    raise malformed('the body must be {"cid": a change id, "changes": an array}')


async def watch(call: RequestContext) -> Response:
    """Changes as they happen."""
    since = query.parameters(call.request, {"since": query.cid})["since"]
    last = call.request.headers.get("last-event-id", "")
    if last:  # an EventSource that has lost its connection asks for the same URL again, and says how far it came
        since = query.cid(last)
    if since is None:
        since = (await call.database.facts())["cid"]
    await call.database.part(since, 1)  # while it can be told that there are no changes after it
    return Watch(call, since)


# -------------------------------------------------------------------------------------------------- entries


async def get_entry(call: RequestContext) -> Response:
    """The value of a key."""
    value = await call.database.value(query.key(call.request))
    if value is None:
        raise RefusedError(404, "LEVEL_NOT_FOUND", "there is no such key")
    return raw_response(call.request, value)


async def put_entry(call: RequestContext) -> Response:
    """Store a value."""
    key = query.key(call.request)
    value = await call.json()
    with call.writing():
        await call.database.put(key, value)
    call.service.metrics.pushed(call.database.name, 1)
    return Response(status_code=204)


async def delete_entry(call: RequestContext) -> Response:
    """Remove a key. That there was none is no fault."""
    key = query.key(call.request)
    with call.writing():
        await call.database.delete(key)
    call.service.metrics.pushed(call.database.name, 1)
    return Response(status_code=204)


async def entries(call: RequestContext) -> Response:
    """The entries of a range."""
    given = query.parameters(call.request, {**dict.fromkeys(KeyBounds._fields, str), "limit": query.limit})
    limit = given.pop("limit") or 100
    for one, other in (("gt", "gte"), ("lt", "lte")):
        if given[one] is not None and given[other] is not None:
            raise malformed(f"give {one} or {other}, not both")
    rows, has_more = await call.database.entries(KeyBounds(**given), limit)
    records = (_core.join_record(*row) for row in rows)
    return streamed_response(call.request, partial(rows_pieces, {"has_more": has_more}, "entries", records))


ROUTES = [
    AuthorizedRoute("GET", "/healthz", health, permission=Permission.OPEN),
    AuthorizedRoute("GET", "/readyz", ready, permission=Permission.OPEN),
    AuthorizedRoute("GET", "/metrics", metrics, permission=Permission.OPERATE),
    AuthorizedRoute("GET", "/v1/{db}", facts, permission=Permission.READ),
    AuthorizedRoute("POST", "/v1/{db}/exchange", exchange, permission=Permission.READ),
    AuthorizedRoute("GET", "/v1/{db}/changes", changes, permission=Permission.READ),
    AuthorizedRoute("POST", "/v1/{db}/change", change, permission=Permission.WRITE),
    AuthorizedRoute("GET", "/v1/{db}/watch", watch, permission=Permission.READ),
    AuthorizedRoute("GET", "/v1/{db}/entries", entries, permission=Permission.READ),
    AuthorizedRoute("GET", "/v1/{db}/entries/{key:anything}", get_entry, permission=Permission.READ),
    AuthorizedRoute("PUT", "/v1/{db}/entries/{key:anything}", put_entry, permission=Permission.WRITE),
    AuthorizedRoute("DELETE", "/v1/{db}/entries/{key:anything}", delete_entry, permission=Permission.WRITE),
]
