"""The description of the HTTP interface in OpenAPI 3.1, made from the routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from ... import __version__
from .operations import KEY, NAME, Operation
from .permissions import AuthorizedRoute, Permission
from .responses import JSON

#: A parameter in the path of a route, with its type.
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_PATH_SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "db": NAME,
    "key": {**KEY, "description": "A key, percent-encoded. A slash in it need not be encoded."},
}
#: The codes of the checks that each request passes but those of open routes: see `dispatch`.
_CHECKED: Final[Mapping[int, tuple[str, ...]]] = {
    400: ("LEVEL_PROTOCOL", "LEVEL_HOST"),
    401: ("LEVEL_UNAUTHORIZED",),
    403: ("LEVEL_FORBIDDEN", "LEVEL_ORIGIN"),
    429: ("LEVEL_BUSY",),
    500: ("LEVEL_INTERNAL",),
    503: ("LEVEL_BUSY", "LEVEL_CLOSING", "LEVEL_STORAGE"),
}
#: Those of requests for a database.
_DATABASE: Final[Mapping[int, tuple[str, ...]]] = {
    404: ("LEVEL_DATABASE_NOT_FOUND",),
    500: ("LEVEL_CORRUPTION", "LEVEL_DECODE", "LEVEL_STATE", "LEVEL_MODE", "LEVEL_MODE_MISMATCH"),
    503: ("LEVEL_LOCKED", "LEVEL_DATABASE_NOT_OPEN", "LEVEL_UNAVAILABLE"),
}
_REASONS: Final[Mapping[int, str]] = {
    200: "Success.",
    201: "The database is there.",
    204: "The write is on disk.",
    304: "The client has the value.",
    400: "A malformed request.",
    401: "No valid token.",
    403: "The token, or the origin of the page, does not allow the request.",
    404: "There is no such database or key.",
    408: "The body stalls.",
    409: "The state of the client does not fit that of the server.",
    412: "A condition of the request does not hold.",
    413: "The body is too large.",
    415: "The body is not JSON, or in an encoding that the server does not accept.",
    422: "A rule of the server refuses the write.",
    429: "Too many requests of one token, or too many writes a minute.",
    500: "A fault of the server, or a damaged database.",
    503: "The server or the database cannot be used at the moment.",
    507: "The database is full. It takes deletes.",
}
_RETRY_AFTER: Final = {"Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds."}}
_REQUEST_ID: Final = {
    "X-Request-ID": {
        "schema": {"type": "string"},
        "description": "The id of the request, which is in the log of the server, too. A client may send one.",
    }
}
_INTRODUCTION: Final = (
    "An ordered key-value store that synchronises. docs/http.md describes limits and defaults, docs/protocol.md the "
    "exchange. A path that is not listed gets 404 (LEVEL_ROUTE_NOT_FOUND), another method 405 (LEVEL_METHOD). A "
    "parameter that is unknown or repeated gets 400."
)


def openapi_document(
    routes: Iterable[AuthorizedRoute], operations: Mapping[str, Operation], *, root_path: str = ""
) -> dict[str, Any]:
    """Return the description of some routes as an OpenAPI document.

    Args:
        routes: The routes. The docstring of a handler describes its route.
        operations: The requests and the answers of each route, by its label. A route without one is
            described by its path, its permission and its docstring.
        root_path: The path under which the application is mounted.

    Returns:
        The document, as it is encoded to JSON.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PATH_PARAMETER.sub(r"{\1}", route.path)
        method = route.label.partition(" ")[0].lower()
        operation = operations.get(f"{method.upper()} {path}", Operation(answers={200: {JSON: {}}}))
        paths.setdefault(path, {})[method] = _operation(route, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "treehub-level",
            "version": __version__,
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Not needed by servers without tokens."}
            }
        },
    }


def _operation(route: AuthorizedRoute, operation: Operation) -> dict[str, Any]:
    summary, _, rest = (route.handler.__doc__ or "").strip().partition("\n")
    described: dict[str, Any] = {
        "operationId": getattr(route.handler, "__name__", route.label),
        "summary": summary.rstrip("."),
        "parameters": [*_path_parameters(route.path), *operation.parameters],
        "responses": _responses(route, operation),
        "security": [] if route.permission is Permission.OPEN else [{"token": []}],
    }
    if rest.strip():
        described["description"] = " ".join(rest.split())
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": operation.body}}}
    return described


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS.get(name, {"type": "string"})}
        for name in _PATH_PARAMETER.findall(path)
    ]


def _responses(route: AuthorizedRoute, operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, contents in sorted(operation.answers.items()):
        response = responses[str(status)] = _response(status)
        if contents:
            response["content"] = {media: {"schema": schema} for media, schema in contents.items()}
        if operation.etag:
            response["headers"]["ETag"] = {"schema": {"type": "string"}, "description": "The tag of the value."}
    for status, codes in sorted(_refusals(route, operation).items()):
        _add_refusal(responses.setdefault(str(status), _response(status)), status, codes)
    return responses


def _response(status: int) -> dict[str, Any]:
    """Return the common part of the responses with a status."""
    reason = _REASONS.get(status) or f"{HTTPStatus(status).phrase}."
    return {"description": reason, "headers": {**_REQUEST_ID}}


def _refusals(route: AuthorizedRoute, operation: Operation) -> dict[int, list[str]]:
    """Return the codes of all refusals of an operation by status."""
    sources = [operation.refusals]
    if route.permission is not Permission.OPEN:
        sources.append(_CHECKED)
    if "{db}" in route.path:
        sources.append(_DATABASE)
    merged: dict[int, list[str]] = {}
    for source in sources:
        for status, codes in source.items():
            merged.setdefault(status, []).extend(code for code in codes if code not in merged.get(status, ()))
    return merged


def _add_refusal(response: dict[str, Any], status: int, codes: list[str]) -> None:
    """Add the body of a refusal to the response of a status, which may have another body, too."""
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["code", "message", "request_id"],
        "properties": {
            "code": {"enum": sorted(codes)},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
        },
    }
    content = response.setdefault("content", {})
    others = [content[JSON]["schema"]] if JSON in content else []
    content[JSON] = {"schema": {"anyOf": [*others, schema]} if others else schema}
    if status in (429, 503, 507):
        response["headers"].update(_RETRY_AFTER)
