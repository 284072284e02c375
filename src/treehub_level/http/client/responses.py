"""Parsing of HTTP responses: a document, or one of the exceptions of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from ...errors import (
    CIDMismatchError,
    ForbiddenError,
    InvalidKeyError,
    InvalidValueError,
    LevelError,
    ProtocolError,
    StoreMismatchError,
    TransportError,
)
from ...replication.wire import Received
from ...types import MISSING, Change, Changes

#: Maximum of a parsed `Retry-After`, in seconds: a faulty server must not stop a client for days.
MAX_RETRY_AFTER = 3600.0

#: Maximum number of characters of a server's text in an exception's message.
_MAX_SHOWN = 300
_ERRORS_BY_CODE: Mapping[str, type[LevelError]] = {
    error.code: error
    for error in (ForbiddenError, InvalidKeyError, InvalidValueError, ProtocolError, StoreMismatchError)
}
#: Explanations of statuses, for responses that have none.
_REASONS = {
    401: "the token is missing, unknown, expired or revoked",
    403: "the token does not allow this",
    404: "there is no such database, or the token is not valid for it",
    413: "the request is too large for the server, or for a proxy in front of it",
    429: "too many requests",
    503: "the server is busy, or shutting down",
}


class DamagedResponseError(Exception):
    """The body of a response is not the JSON that its media type promises; it may be truncated."""


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """An HTTP response.

    Attributes:
        status: The status code.
        headers: The headers, with names in lower case.
        body: The body, decoded.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def media_type(self) -> str:
        """The media type of the body, in lower case and without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        """True if the body is an uncompressed event stream, which has no defined end."""
        return self.media_type == "text/event-stream" and "content-encoding" not in self.headers

    def with_body(self, chunks: Sequence[bytes]) -> ServerResponse:
        """Return a copy of this response that has a body."""
        return ServerResponse(self.status, self.headers, b"".join(chunks))


def read_document(response: ServerResponse, url: str, token: str | None, *, missing_is_ok: bool = False) -> Any:
    """Return the JSON document of a response.

    Args:
        response: The response.
        url: The URL of the database, for messages.
        token: The bearer token, which is removed from messages if the server repeats it.
        missing_is_ok: True to return `MISSING` if the server says that the key is missing.

    Returns:
        The document; ``None`` for status 204; `MISSING` for a missing key.

    Raises:
        LevelError: The server refused the request, or another program answered in its place.
        DamagedResponseError: The body is not valid JSON.
    """
    status = response.status
    if status == 204:
        return None
    if 200 <= status < 300 or status == 409:
        document = _parse_json(response, url)
        # Replies to an exchange of the kinds "reset" and "forked" have status 409.
        if status != 409 or (isinstance(document, dict) and "kind" in document):
            return document
    if missing_is_ok and status == 404 and _error_fields(response).get("code") == "LEVEL_NOT_FOUND":
        return MISSING
    raise _error_of(response, url, token)


def read_lines(response: ServerResponse) -> Received:
    """Return an exchange's NDJSON reply, not parsed yet.

    Raises:
        DamagedResponseError: The last line is truncated.
    """
    if not response.body.endswith(b"\n"):
        raise DamagedResponseError("its last line is truncated")
    return Received(response.body, in_lines=True)


def _parse_json(response: ServerResponse, url: str) -> Any:
    if response.media_type != "application/json":
        raise _not_a_server(response, url)
    try:
        return orjson.loads(response.body)
    except ValueError as error:
        raise DamagedResponseError("its body is not valid JSON") from error


def _not_a_server(response: ServerResponse, url: str) -> TransportError:
    media_type = _sanitized(response.media_type, None) or "no media type"
    return TransportError(
        f"{url} answered with {media_type} instead of JSON: a captive portal or a proxy answered in the server's "
        "place, or the URL is not that of a treehub-level server",
        status=response.status,
    )


def _error_of(response: ServerResponse, url: str, token: str | None) -> LevelError:
    """Return the exception for a response that refuses the request."""
    status, retry_after = response.status, parse_retry_after(response.headers)
    fields = _error_fields(response)
    message = _sanitized(str(fields.get("message", "")), token)
    code = fields.get("code")
    if status in (400, 403, 409) and isinstance(code, str):
        expected, got = fields.get("expected"), fields.get("got")
        if code == CIDMismatchError.code and type(expected) is int and type(got) is int:
            return CIDMismatchError(message, expected=expected, got=got)
        if code in _ERRORS_BY_CODE:
            return _ERRORS_BY_CODE[code](message)
    if not fields and status not in _REASONS and "html" in response.media_type:
        return _not_a_server(response, url)
    reason = message or _REASONS.get(status, "the server gave no reason")
    return TransportError(f"{url} refused with status {status}: {reason}", status=status, retry_after=retry_after)


def _error_fields(response: ServerResponse) -> dict[Any, Any]:
    """Return the members of an error document; an empty ``dict`` if the body is not one."""
    if response.media_type != "application/json":
        return {}
    try:
        document = orjson.loads(response.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _sanitized(text: str, token: str | None) -> str:
    """Return a server's text fit for a message: shortened, on one line, and without the token."""
    if token:
        text = text.replace(token, "…")
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", text).strip()[:_MAX_SHOWN]


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After` header, at most `MAX_RETRY_AFTER`, or ``None``.

    A date is compared with the response's own `Date`, because the local clock may be wrong.
    """
    retry_after = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", retry_after):
        return min(float(retry_after), MAX_RETRY_AFTER)
    try:
        delay = parsedate_to_datetime(retry_after) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(delay.total_seconds(), 0.0), MAX_RETRY_AFTER)


def parse_changes(document: Any) -> Changes:
    """Parse a page of the change log.

    Raises:
        ProtocolError: The document is not such a page.
    """
    match document:
        case {"cid": int(cid), "changes": list(items), "has_more": bool(has_more)} if type(cid) is int:
            return Changes(cid, [parse_change(item) for item in items], has_more)
    raise ProtocolError(f"the server's changes are invalid: {document!r:.80}")


def parse_change(item: Any) -> Change:
    """Parse a change: ``[key]`` or ``[key, value]``.

    Raises:
        ProtocolError: The item is not a change.
    """
    match item:
        case [str(key)]:
            return Change.deletion(key)
        case [str(key), value]:
            return Change(key, value)
    raise ProtocolError(f"a change of the server is invalid: {item!r:.80}")


def parse_entries(document: Any) -> tuple[list[tuple[str, Any]], bool]:
    """Parse a page of entries. Return the entries, and True if the range has more.

    Raises:
        ProtocolError: The document is not such a page.
    """
    match document:
        case {"entries": list(items), "has_more": bool(has_more)} if bool(items) or not has_more:
            return [_parse_entry(item) for item in items], has_more
    raise ProtocolError(f"the server's entries are invalid: {document!r:.80}")


def _parse_entry(item: Any) -> tuple[str, Any]:
    match item:
        case [str(key), value]:
            return key, value
    raise ProtocolError(f"an entry of the server is invalid: {item!r:.80}")


def parse_object(document: Any) -> dict[str, Any]:
    """Return ``document`` if it is a JSON object.

    Raises:
        ProtocolError: The document is another JSON value.
    """
    if isinstance(document, dict):
        return document
    raise ProtocolError(f"the server's response is not a JSON object: {document!r:.80}")
