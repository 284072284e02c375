"""The routes, each with the permission that it needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, Final

import orjson
from starlette.responses import Response

from ... import _core
from ...backends.base import Row
from ...errors import LevelError
from ...replication.fields import decode_message
from ...replication.messages import LogPage, Reply, Request
from ...replication.wire import RowsEncoder, encode_row, page_encoder, part_encoder
from ...tracing import exchange_span
from ...types import Delete, Put
from . import query
from .admin_routes import ADMIN_ROUTES
from .backups import backup_failed, no_backups
from .batches import parse_batch
from .bodies import parse_value
from .conditions import digest_soon, etag_header, preconditions, refuse_conditions
from .database import KeyBounds
from .dispatch import RequestContext
from .metrics import CONTENT_TYPE
from .openapi import openapi_document
from .operations import OPERATIONS
from .permissions import AuthorizedRoute, Permission
from .quotas import Written
from .refusals import RefusedError, bad_request
from .responses import VARY, bytes_response, json_response, rows_response
from .watch import WatchResponse

#: The number of items in a page unless the client asks for another.
_DEFAULT_LIMIT = 100


async def health(context: RequestContext) -> Response:
    """Answer a liveness check, with 200 until the server stops. For the process supervisor."""
    return _health_response(context, "ok")


async def ready(context: RequestContext) -> Response:
    """Answer a readiness check, with 200 while the stores can be reached. For load balancers."""
    return _health_response(context, "ok" if await context.dispatcher.hub.is_ready() else "unavailable")


def _health_response(context: RequestContext, status: str) -> Response:
    status = "closing" if context.dispatcher.hub.stopping.is_set() else status
    return json_response(context.request, {"status": status}, status=200 if status == "ok" else 503)


async def openapi(context: RequestContext) -> Response:
    """Answer with the description of this interface in OpenAPI."""
    scope = context.request.scope
    document = openapi_document(scope["app"].routes, OPERATIONS, root_path=scope.get("root_path", ""))
    return json_response(context.request, document)


async def metrics(context: RequestContext) -> Response:
    """Answer with the Prometheus metrics."""
    rendered = await context.dispatcher.metrics.render()
    return bytes_response(context.request, context.hold, rendered, media_type=CONTENT_TYPE)


async def info(context: RequestContext) -> Response:
    """Answer with the store id, CID, floor and mode of a database."""
    return json_response(context.request, await context.database.info())


async def backup(context: RequestContext) -> Response:
    """Back up a database to the server's folder, and answer once the backup is verified."""
    hub, name = context.dispatcher.hub, context.database.name
    if hub.backups is None:
        raise no_backups()
    try:
        async with hub.tasks.alone(name):
            report = await hub.backups.back_up(hub, name)
    except RefusedError:
        raise
    except LevelError as error:
        raise backup_failed(name, error) from error
    backup = {
        "name": os.path.basename(report.path),  # not the path: it is no business of a remote caller
        "cid": report.cid,
        "bytes": report.bytes,
        "new_bytes": report.new_bytes,
    }
    return json_response(context.request, backup)


# ------------------------------------------------------------------------------------ replication


async def exchange(context: RequestContext) -> Response:
    """Push and pull in one step. A read-only token may exchange, but not push."""
    record, name = context.record, context.database.name
    with exchange_span(record.route, context.request.headers, database=name, request_id=record.request_id) as span:
        record.trace_id = span.trace_id
        wait = query.parse_parameters(context.request, {"wait": query.parse_wait})["wait"] or 0
        message = Request.from_dict(await context.read_json(decode_message), in_records=True)
        context.count_changes(len(message.changes) + len(message.withdraw))
        context.dispatcher.metrics.see_client(name, message)
        reply = await _answer(context, message, wait)
        context.release_body()
        span.set(kind=reply.kind, **context.dispatcher.metrics.count_exchange(name, message, reply))
    if isinstance(reply, LogPage):
        encode: Callable[[Any], bytes] = encode_row if reply.values or reply.fill else _encode_numbered
        return rows_response(
            context.request, context.hold, partial(page_encoder, reply), reply.rows(), lambda _: encode
        )
    # 409 for the replies after which a client cannot go on from its present state.
    status = 409 if reply.kind in ("reset", "forked") else 200
    return bytes_response(context.request, context.hold, orjson.dumps(reply.to_dict()), status=status)


async def _answer(context: RequestContext, message: Request, wait: float) -> Reply:
    """Return the reply to the message of an exchange; without a push, wait for a change."""
    database = context.database
    if message.is_push:
        await context.admit_write(lambda: Written.of_records(message.changes))
        with context.write_slot():
            return await database.exchange(message)
    context.release_body()  # a long poll keeps only the fields that it needs
    if not wait:
        return await database.exchange(message)
    return await context.long_poll(database.exchange(message, wait), lambda: database.exchange(message))


#: Encodes the CID and the record of a change. No function of Python: pages have many rows.
_encode_numbered: Final[Callable[[tuple[int, bytes]], bytes]] = b"[%d,%b]".__mod__
_encode_record: Final[Callable[[tuple[int, bytes]], bytes]] = itemgetter(1)


async def changes(context: RequestContext) -> Response:
    """Answer with a page of the change log, for manual sync."""
    given = query.parse_parameters(
        context.request, {"since": query.parse_cid, "limit": query.parse_limit, "wait": query.parse_wait}
    )
    since, limit, wait = given["since"] or 0, given["limit"] or _DEFAULT_LIMIT, given["wait"] or 0
    database = context.database
    if wait:
        page = await context.long_poll(database.changes(since, limit, wait), lambda: database.changes(since, limit))
    else:
        page = await database.changes(since, limit)
    context.dispatcher.metrics.count_pulled(database.name, len(page.records))

    def row_encoder(in_lines: bool) -> Callable[[tuple[int, bytes]], bytes]:
        return _encode_numbered if in_lines else _encode_record

    encoder = partial(part_encoder, page, len(page.records))
    return rows_response(context.request, context.hold, encoder, page.records, row_encoder)


async def change(context: RequestContext) -> Response:
    """Apply changes, for manual sync, and answer with the new CID."""
    refuse_conditions(context.request)
    message = await context.read_json(decode_message)
    match message:
        case {"cid": cid, "changes": list(pushed)} if type(cid) is int:
            context.count_changes(len(pushed))
            await context.admit_write(lambda: Written.of_records(pushed))
            with context.write_slot():
                new_cid = await context.database.change(cid, pushed)
            context.dispatcher.metrics.count_pushed(context.database.name, len(pushed))
            return json_response(context.request, {"cid": new_cid})
    raise bad_request('the body must be {"cid": a change id, "changes": an array}')


async def watch(context: RequestContext) -> Response:
    """Answer with a stream of changes as server-sent events."""
    since = query.parse_parameters(context.request, {"since": query.parse_cid})["since"]
    last = context.request.headers.get("last-event-id", "")
    if last:  # a reconnecting EventSource repeats the URL, so its header is more recent
        since = query.parse_cid(last)
    if since is None:
        since = (await context.database.info())["cid"]
    # Raises now if `since` is beyond the log, while a status can still be sent.
    await context.database.piece(since)
    return WatchResponse(context, since)


# ---------------------------------------------------------------------------------------- entries


async def get_entry(context: RequestContext) -> Response:
    """Answer with the value of a key, or with 304 if the client has it."""
    key = query.parse_key(context.request)
    conditions = preconditions(context.request)
    value = await context.database.get(key)
    if value is None:
        raise RefusedError(404, "LEVEL_NOT_FOUND", "there is no such key")
    tag = await digest_soon(value)
    conditions.require_match(tag)
    if conditions.names_present(tag):
        response = Response(status_code=304)
        response.raw_headers = [VARY]
    else:
        response = bytes_response(context.request, context.hold, value)
    response.raw_headers.append(etag_header(tag, response.raw_headers))
    return response


async def put_entry(context: RequestContext) -> Response:
    """Store the value of a key, if the conditions of the request hold."""
    key = query.parse_key(context.request)
    conditions = preconditions(context.request)
    await context.database.check_write(key)
    value = await context.read_json(parse_value)
    await context.admit_write(lambda: Written.of_operations([Put(key, value)]))
    with context.write_slot():
        await context.database.put(key, value, conditions)
    context.dispatcher.metrics.count_pushed(context.database.name, 1)
    return Response(status_code=204)


async def delete_entry(context: RequestContext) -> Response:
    """Delete a key, if the conditions of the request hold. An absent key is not an error."""
    key = query.parse_key(context.request)
    conditions = preconditions(context.request)
    await context.admit_write(lambda: Written.of_operations([Delete(key)]))
    with context.write_slot():
        await context.database.delete(key, conditions)
    context.dispatcher.metrics.count_pushed(context.database.name, 1)
    return Response(status_code=204)


async def batch(context: RequestContext) -> Response:
    """Write several operations, all or none."""
    refuse_conditions(context.request)
    body = await context.read_json(parse_batch)
    context.count_changes(len(body.ops))
    await context.admit_write(lambda: Written.of_operations(body.ops))
    with context.write_slot():
        written = await context.database.batch(body.ops, body.together)
    context.dispatcher.metrics.count_pushed(context.database.name, written)
    return Response(status_code=204)


def _encode_entry(row: Row) -> bytes:
    return _core.join_record(*row)


async def entries(context: RequestContext) -> Response:
    """Answer with a page of the entries in a range."""
    given = query.parse_parameters(
        context.request,
        {**dict.fromkeys(KeyBounds._fields, str), "limit": query.parse_limit, "reverse": query.parse_flag},
    )
    limit = given.pop("limit") or _DEFAULT_LIMIT
    reverse = given.pop("reverse") or False
    for one, other in (("gt", "gte"), ("lt", "lte")):
        if given[one] is not None and given[other] is not None:
            raise bad_request(f"give {one} or {other}, not both")
    page = await context.database.entries(KeyBounds(**given), limit, reverse=reverse)
    encoder = partial(RowsEncoder, {"cid": page.cid, "has_more": page.has_more}, {"entries": len(page.rows)})
    return rows_response(context.request, context.hold, encoder, page.rows, lambda _: _encode_entry)


ROUTES = [
    AuthorizedRoute("GET", "/healthz", health, permission=Permission.OPEN),
    AuthorizedRoute("GET", "/readyz", ready, permission=Permission.OPEN),
    AuthorizedRoute("GET", "/openapi.json", openapi, permission=Permission.OPEN),
    AuthorizedRoute("GET", "/metrics", metrics, permission=Permission.MONITOR),
    *ADMIN_ROUTES,
    AuthorizedRoute("GET", "/v1/{db}", info, permission=Permission.READ),
    AuthorizedRoute("POST", "/v1/{db}/backup", backup, permission=Permission.OPERATE),
    AuthorizedRoute("POST", "/v1/{db}/exchange", exchange, permission=Permission.READ),
    AuthorizedRoute("GET", "/v1/{db}/changes", changes, permission=Permission.READ),
    AuthorizedRoute("POST", "/v1/{db}/change", change, permission=Permission.WRITE),
    AuthorizedRoute("GET", "/v1/{db}/watch", watch, permission=Permission.READ),
    AuthorizedRoute("POST", "/v1/{db}/batch", batch, permission=Permission.WRITE),
    AuthorizedRoute("GET", "/v1/{db}/entries", entries, permission=Permission.READ),
    AuthorizedRoute("GET", "/v1/{db}/entries/{key:anything}", get_entry, permission=Permission.READ),
    AuthorizedRoute("PUT", "/v1/{db}/entries/{key:anything}", put_entry, permission=Permission.WRITE),
    AuthorizedRoute("DELETE", "/v1/{db}/entries/{key:anything}", delete_entry, permission=Permission.WRITE),
]
