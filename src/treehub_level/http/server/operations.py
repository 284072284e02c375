"""The operations of the HTTP interface: the requests and the answers of each route, in JSON Schema.

`openapi` adds what follows from the route itself: its path, its permission, and the refusals that
the checks of every request may answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from ... import _core
from ...engine.records import ID
from ...replication.endpoint import MAX_WAIT
from ...replication.fields import MAX_CHANGES, MAX_PREFIXES, MAX_PUSH, MAX_READ, NONCE
from ...replication.messages import MAX_EPOCHS
from .catalog import DATABASE_NAME
from .metrics import CONTENT_TYPE
from .responses import JSON, NDJSON

Schema = Mapping[str, Any]

EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The requests that a route takes, and its answers.

    Attributes:
        answers: The schema of each body by status and media type; an empty mapping for no body.
        parameters: The parameters of the query, and the headers, as OpenAPI has them.
        body: The schema of the request body; ``None`` if there is none.
        refusals: The codes of refusals by status, beside those of every request.
        etag: True if an answer with a body has an ``ETag``.
    """

    answers: Mapping[int, Mapping[str, Schema]]
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    refusals: Mapping[int, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    etag: bool = False


# ----------------------------------------------------------------------------------------- schemas


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}}


def _nullable(schema: Schema) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _array(items: Schema, **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


CID: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": _core.MAX_CID, "description": "A change id."}
VALUE: Final[Schema] = {"description": "Any JSON value but null."}
NAME: Final[Schema] = {
    "type": "string",
    "pattern": f"^{DATABASE_NAME.pattern}$",
    "description": "The name of a database.",
}
KEY: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 1024}
_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_ID: Final[Schema] = {"type": "string", "pattern": f"^{ID.pattern}$"}
_NONCE: Final[Schema] = {"type": "string", "pattern": f"^{NONCE.pattern}$"}
_CHANGE: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 2,
    "description": "A key and its value, or the key alone if it is deleted.",
}
_ENTRY: Final[Schema] = {"type": "array", "minItems": 2, "maxItems": 2, "description": "A key and its value."}
_PAIR: Final[Schema] = {"type": "array", "minItems": 2, "maxItems": 2}
_PREFIXES: Final = _array(_TEXT, maxItems=MAX_PREFIXES)
_LINES: Final[Schema] = {"type": "string", "description": "One JSON document on each line."}

_EXCHANGE: Final = _object(
    {
        "protocol": {"const": 2},
        "server": _nullable(_ID),
        "client": _ID,
        "cid": CID,
        "hi": CID,
        "epochs": _array(_PAIR, maxItems=MAX_EPOCHS),
        "nonce": _NONCE,
        "seq": CID,
        "push": _nullable(_NONCE),
        "changes": _array(_CHANGE, maxItems=MAX_PUSH),
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_CHANGES},
    },
    {
        "groups": _array(_PAIR),
        "withdraw": _array(KEY, maxItems=MAX_PUSH),
        "complete": _PREFIXES,
        "partial": _PREFIXES,
        "fill": _nullable(_array(_TEXT, minItems=2, maxItems=2)),
        "read": _array(KEY, maxItems=MAX_READ),
    },
)
_REPLY: Final = _object({"kind": {"enum": ["page", "reset", "forked"]}})
_CONFLICTING_REPLY: Final = _object({"kind": {"enum": ["reset", "forked"]}})
_PUT: Final = _object({"type": {"const": "put"}, "key": KEY, "value": VALUE})
_DELETE: Final = _object({"type": {"const": "del"}, "key": KEY})
_NAMED: Final = _object({"name": NAME})
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_DROPPED: Final = _object({"name": NAME, "dropped_at": _TIME, "removed_at": _TIME})
_CLIENT: Final = _object(
    {
        "id": _TEXT,
        "name": _nullable(_TEXT),
        "pushed_cid": _nullable(CID),
        "pushed_at": _nullable(_TIME),
        "behind": _COUNT,
        "refused": _COUNT,
    }
)
_BACKUP: Final = _object({"name": _TEXT, "cid": CID, "bytes": _COUNT, "new_bytes": _COUNT})


# -------------------------------------------------------------------------------------- parameters


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, description: str) -> Schema:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}


_SINCE: Final = _query("since", CID, "The changes after this change id.")
_LIMIT: Final = _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_CHANGES, "default": 100}, "Rows.")
_WAIT: Final = _query(
    "wait", {"type": "number", "minimum": 0, "maximum": MAX_WAIT, "default": 0}, "Seconds of a long poll."
)
_RANGE: Final = tuple(
    _query(name, _TEXT, f"Only keys {text}.")
    for name, text in {
        "gt": "greater than this one",
        "gte": "from this one on",
        "lt": "less than this one",
        "lte": "up to this one",
        "prefix": "that begin with this text",
    }.items()
)
_REVERSE: Final = _query("reverse", _FLAG, "True for descending keys.")
_NOW: Final = _query("now", _FLAG, "True to remove the database for good, and not only a day later.")
_IF_MATCH: Final = _header("If-Match", "Only if the value has one of these tags.")
_IF_NONE_MATCH: Final = _header("If-None-Match", "Only if the value has none of these tags.")


# --------------------------------------------------------------------------------- the operations

_BAD_KEY: Final = {400: ("LEVEL_INVALID_KEY",)}
_JSON_BODY: Final = {
    408: ("LEVEL_TIMEOUT",),
    413: ("LEVEL_TOO_LARGE",),
    415: ("LEVEL_CONTENT_TYPE", "LEVEL_CONTENT_ENCODING"),
}
#: Those of a body with keys and values.
_BODY: Final = {400: ("LEVEL_INVALID_KEY", "LEVEL_INVALID_VALUE"), **_JSON_BODY}
#: The refusals of a write by a rule of the server, or by a database behind it.
_RULES: Final = {422: ("LEVEL_REFUSED",), 500: ("LEVEL_CHECK",), 503: ("LEVEL_COMMIT_UNKNOWN",)}
#: The refusals of a write by a quota.
_QUOTA: Final = {429: ("LEVEL_RATE",), 507: ("LEVEL_QUOTA",)}
_CONDITION: Final = {412: ("LEVEL_CONDITION",)}
#: The refusals of an operator's request that the databases, or their names, do not permit.
_CONFLICT: Final = {409: ("LEVEL_STATE",)}
_NO_BODY: Final[Mapping[str, Schema]] = {}


def _merged(*refusals: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    merged: dict[int, tuple[str, ...]] = {}
    for each in refusals:
        for status, codes in each.items():
            merged[status] = (*merged.get(status, ()), *codes)
    return merged


_WRITE: Final = _merged(_RULES, _QUOTA)


def _health(*statuses: str) -> Operation:
    answer = _object({"status": {"enum": ["ok", *statuses]}})
    return Operation(answers={200: {JSON: answer}, 503: {JSON: answer}})


#: Each operation by the label of its route. A test compares the labels with `routes.ROUTES`.
OPERATIONS: Final[Mapping[str, Operation]] = {
    "GET /healthz": _health("closing"),
    "GET /readyz": _health("closing", "unavailable"),
    "GET /openapi.json": Operation(answers={200: {JSON: _object({"openapi": _TEXT, "paths": {"type": "object"}})}}),
    "GET /metrics": Operation(answers={200: {CONTENT_TYPE.partition(";")[0]: _TEXT}}),
    "GET /v1": Operation(answers={200: {JSON: _object({"databases": _array(NAME), "dropped": _array(_DROPPED)})}}),
    "PUT /v1/{db}": Operation(answers={201: {JSON: _NAMED}}, refusals=_CONFLICT),
    "DELETE /v1/{db}": Operation(
        parameters=(_NOW,), answers={200: {JSON: _DROPPED}, 204: _NO_BODY}, refusals=_CONFLICT
    ),
    "POST /v1/{db}/rename": Operation(
        body=_object({"to": NAME}), answers={200: {JSON: _NAMED}}, refusals=_merged(_JSON_BODY, _CONFLICT)
    ),
    "POST /v1/{db}/undrop": Operation(
        body={"type": "object", "properties": {"to": NAME}},
        answers={200: {JSON: _NAMED}},
        refusals=_merged(_JSON_BODY, _CONFLICT),
    ),
    "POST /v1/{db}/backup": Operation(
        answers={200: {JSON: _BACKUP}},
        refusals={409: ("LEVEL_NO_BACKUPS",), 500: ("LEVEL_BACKUP_FAILED",)},
    ),
    "GET /v1/{db}/clients": Operation(answers={200: {JSON: _object({"clients": _array(_CLIENT)})}}),
    "DELETE /v1/{db}/clients/{id}": Operation(answers={204: _NO_BODY}, refusals={404: ("LEVEL_NOT_FOUND",)}),
    "GET /v1/{db}": Operation(
        answers={200: {JSON: _object({"server": _TEXT, "cid": CID, "floor": CID, "mode": {"const": "server"}})}}
    ),
    "POST /v1/{db}/exchange": Operation(
        parameters=(_WAIT,),
        body=_EXCHANGE,
        answers={200: {JSON: _REPLY, NDJSON: _LINES}, 409: {JSON: _CONFLICTING_REPLY}},
        refusals=_merged(_BODY, {409: ("LEVEL_STORE_MISMATCH", "LEVEL_CID_MISMATCH")}, _WRITE),
    ),
    "GET /v1/{db}/changes": Operation(
        parameters=(_SINCE, _LIMIT, _WAIT),
        answers={
            200: {
                JSON: _object({"cid": CID, "has_more": _FLAG, "changes": _array(_CHANGE)}, {"commits": {}}),
                NDJSON: _LINES,
            }
        },
        refusals={409: ("LEVEL_CID_MISMATCH",)},
    ),
    "POST /v1/{db}/change": Operation(
        body=_object({"cid": CID, "changes": _array(_CHANGE, maxItems=MAX_PUSH)}),
        answers={200: {JSON: _object({"cid": CID})}},
        refusals=_merged(_BODY, {409: ("LEVEL_CID_MISMATCH",)}, _WRITE),
    ),
    "GET /v1/{db}/watch": Operation(
        parameters=(_SINCE, _header("Last-Event-ID", "A change id, which takes precedence over `since`.")),
        answers={200: {EVENT_STREAM: {"type": "string", "description": "Server-sent events, without an end."}}},
        refusals={409: ("LEVEL_CID_MISMATCH",)},
    ),
    "POST /v1/{db}/batch": Operation(
        body=_object({"ops": _array({"oneOf": [_PUT, _DELETE]}, maxItems=MAX_PUSH)}, {"together": _FLAG}),
        answers={204: _NO_BODY},
        refusals=_merged(_BODY, _WRITE),
    ),
    "GET /v1/{db}/entries": Operation(
        parameters=(*_RANGE, _LIMIT, _REVERSE),
        answers={200: {JSON: _object({"cid": CID, "has_more": _FLAG, "entries": _array(_ENTRY)}), NDJSON: _LINES}},
        refusals=_BAD_KEY,
    ),
    "GET /v1/{db}/entries/{key}": Operation(
        parameters=(_IF_MATCH, _IF_NONE_MATCH),
        answers={200: {JSON: VALUE}, 304: _NO_BODY},
        refusals=_merged(_BAD_KEY, {404: ("LEVEL_NOT_FOUND",)}, _CONDITION),
        etag=True,
    ),
    "PUT /v1/{db}/entries/{key}": Operation(
        parameters=(_IF_MATCH, _IF_NONE_MATCH),
        body=VALUE,
        answers={204: _NO_BODY},
        refusals=_merged(_BODY, _CONDITION, _WRITE),
    ),
    "DELETE /v1/{db}/entries/{key}": Operation(
        parameters=(_IF_MATCH, _IF_NONE_MATCH),
        answers={204: _NO_BODY},
        refusals=_merged(_BAD_KEY, _CONDITION, _WRITE),
    ),
}
