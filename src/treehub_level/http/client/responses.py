"""Parsing of HTTP responses: a document, or one of the exceptions of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from operator import lt
from typing import Any, cast

import orjson

from ... import _core
from ...engine.codec import RepeatedMemberError, decode_json
from ...errors import (
    CIDMismatchError,
    ConditionError,
    ForbiddenError,
    InvalidKeyError,
    InvalidValueError,
    LevelError,
    ProtocolError,
    Refused,
    StateError,
    StoreMismatchError,
    TransportError,
)
from ...replication.fields import MAX_CHANGES, MAX_PUSH, MAX_READ, MAX_REASON, Fields
from ...replication.manual import attribute
from ...replication.wire import MAX_NODES, Received
from ...types import MISSING, Change, Changes, ClientInfo, KeyRange
from ..identity import SERVER_HEADER
from .body import MAX_DOCUMENT_BYTES
from .rows import DecodedRows, decode_page, decode_rows, is_large

#: Maximum of a parsed `Retry-After`, in seconds: a faulty server must not stop a client for days.
MAX_RETRY_AFTER = 3600.0
#: The same for a response of another program: a captive portal knows nothing of the server.
MAX_FOREIGN_RETRY_AFTER = 60.0
#: Maximum number of lines of an NDJSON reply: a header, one line for each change or entry of a
#: range, and one for each rejected or requested key.
MAX_LINES = 1 + MAX_CHANGES + MAX_PUSH + MAX_READ
#: Maximum number of commas and opening brackets in a JSON document. Each may be a value that takes
#: some 100 bytes of memory. A page of 8 MiB has at most two in three bytes (`[],[],`), three for
#: the row of each change, and for each change of a push a rejected key, which may be a refused one
#: and the key of a value, too.
MAX_ITEMS = 7_000_000
#: The same in the header of an NDJSON reply.
MAX_HEADER_ITEMS = MAX_NODES

#: Maximum number of characters of a server's text in an exception's message.
_MAX_SHOWN = 300
_ERRORS_BY_CODE: Mapping[str, type[LevelError]] = {
    error.code: error
    for error in (ForbiddenError, InvalidKeyError, InvalidValueError, ProtocolError, StateError, StoreMismatchError)
}
_REPLY_TYPES = ("application/json", "application/x-ndjson")
_UNAUTHORIZED = "LEVEL_UNAUTHORIZED"
#: Explanations of the statuses of other programs, whose text is not shown.
_FOREIGN_REASONS = {
    401: "it asks for credentials",
    403: "it does not allow the request",
    404: "there is no such database at this URL",
    407: "the proxy asks for credentials",
    413: "the request is too large for a proxy in front of the server",
    429: "too many requests",
    503: "the server is busy, starting or shutting down",
    511: "the network asks for a login",
}


#: The members of a dropped database.
_DROPPED = {"name", "dropped_at", "removed_at"}


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

    @property
    def is_from_server(self) -> bool:
        """True if a treehub-level server answered, and no other program in its place."""
        return SERVER_HEADER in self.headers

    def is_answer(self, has_nonce: bool) -> bool:
        """Return True if the response counts as an answer to the request.

        Args:
            has_nonce: True for an exchange. The nonce in its reply proves that it answers this
                request, also if a gateway has removed the server's header.
        """
        is_reply = self.status in (200, 409) and self.media_type in _REPLY_TYPES
        return self.is_from_server or (has_nonce and is_reply)

    @property
    def asks_for_token(self) -> bool:
        """True if a new token may help: the server, or a gateway that checks tokens, refused it."""
        challenge = self.headers.get("www-authenticate", "").lower()
        return self.status == 401 and (self.is_from_server or challenge.startswith("bearer"))

    def max_bytes(self, limit: int) -> int:
        """Return the maximum size of the body, decoded.

        Args:
            limit: The maximum for a response that does not refuse the request. Replies to an
                exchange of the kinds "reset" and "forked" have status 409.
        """
        return limit if self.status < 400 or self.status == 409 else MAX_DOCUMENT_BYTES

    def with_body(self, body: bytes | bytearray) -> ServerResponse:
        """Return a copy of this response that has a body."""
        return ServerResponse(self.status, self.headers, bytes(body))


def read_document(
    response: ServerResponse, url: str, token: str | None, *, missing_is_ok: bool = False, has_rows: bool = False
) -> Any:
    """Return the JSON document of a response of the server.

    Args:
        response: The response.
        url: The URL of the database, for messages.
        token: The bearer token, which is removed from messages if the server repeats it.
        missing_is_ok: True to return `MISSING` if the server says that the key is missing.
        has_rows: True to return a large page as `Received`.

    Returns:
        The document; ``None`` for status 204; `MISSING` for a missing key.

    Raises:
        LevelError: The server refused the request, or another program answered in its place.
        ProtocolError: The document has more values than a page can have.
        DamagedResponseError: The body is not valid JSON.
    """
    status = response.status
    if status == 204:
        return None
    if status == 200 and has_rows and response.media_type == "application/json" and is_large(response.body):
        return Received(response.body, in_lines=False)
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
        ProtocolError: The reply has more rows or values than a page can have.
    """
    if not response.body.endswith(b"\n"):
        raise DamagedResponseError("its last line is truncated")
    # Each line takes far more memory than its text.
    if response.body.count(b"\n") > MAX_LINES:
        raise ProtocolError("the server's reply has more rows than a page can have")
    _check_items(response.body, MAX_HEADER_ITEMS, response.body.index(b"\n"))
    return Received(response.body, in_lines=True)


def _check_items(body: bytes, limit: int, end: int | None = None) -> None:
    """Count values before they are decoded: each takes far more memory than its text.

    Raises:
        ProtocolError: The body may have more than ``limit`` values before the position ``end``.
    """
    if _core.count_nodes(body if end is None else body[:end]) > limit:
        raise ProtocolError("the server's response has more values than a page can have")


def _parse_json(response: ServerResponse, url: str) -> Any:
    if response.media_type != "application/json":
        raise not_a_server(response, url)
    _check_items(response.body, MAX_ITEMS)
    try:
        return decode_json(response.body)
    except RepeatedMemberError as error:
        raise ProtocolError(f"the server's response: {error}") from error
    except ValueError as error:
        raise DamagedResponseError("its body is not valid JSON") from error


def not_a_server(response: ServerResponse, url: str) -> TransportError:
    """Return the exception for a response of another program: the server is unreachable.

    ``status`` is ``None`` for a 401: it says nothing about the token for this server.
    """
    status = response.status
    reason = _FOREIGN_REASONS.get(status) or _sanitized(response.media_type, None) or "no media type"
    retry_after = parse_retry_after(response.headers)
    return TransportError(
        f"{url} could not be reached: another program answered in the server's place, with status {status} ({reason}). "
        "It is a captive portal, a proxy or a gateway, or the URL is not that of a treehub-level server",
        status=None if status == 401 else status,
        retry_after=None if retry_after is None else min(retry_after, MAX_FOREIGN_RETRY_AFTER),
    )


def _error_of(response: ServerResponse, url: str, token: str | None) -> LevelError:
    """Return the exception for a response that refuses the request."""
    status, retry_after = response.status, parse_retry_after(response.headers)
    fields = _error_fields(response)
    message = _sanitized(str(fields.get("message", "")), token)
    code = fields.get("code")
    if not fields or not response.is_from_server or (status == 401 and code != _UNAUTHORIZED):
        return not_a_server(response, url)
    if status == 422 and code == Refused.code:
        return _refused(fields, message, token)
    if status == 412 and code == ConditionError.code:
        return ConditionError(message, key=None, found=MISSING)
    if status in (400, 403, 409) and isinstance(code, str):
        expected, got = fields.get("expected"), fields.get("got")
        if code == CIDMismatchError.code and type(expected) is int and type(got) is int:
            return CIDMismatchError(message, expected=expected, got=got)
        if code in _ERRORS_BY_CODE:
            return _ERRORS_BY_CODE[code](message)
    reason = message or "the server gave no reason"
    return TransportError(f"{url} refused with status {status}: {reason}", status=status, retry_after=retry_after)


def _refused(fields: Mapping[Any, Any], message: str, token: str | None) -> Refused:
    """Return the exception for changes that a rule refuses. Its reason may be in any script."""
    reason, keys = fields.get("reason"), fields.get("keys")
    if isinstance(reason, str):
        message = reason.replace(token, "…") if token else reason
        message = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", message)[:MAX_REASON]
    is_list = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return Refused(message, keys if is_list else None)


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


def parse_changes(document: Any, since: int, limit: int) -> Changes:
    """Parse a page of the change log.

    Args:
        document: The page, decoded from JSON; or `Received`, in NDJSON or large.
        since: The CID after which the page was requested.
        limit: The number of changes that were requested.

    Raises:
        ProtocolError: The document is not such a page. Each change has a CID of its own, so a page
            ends at a CID as many above ``since`` as it has changes, or more; and a page that
            announces more ends above ``since``.
    """
    if isinstance(document, Received):
        if document.in_lines:
            return _parse_numbered(document.body, since, limit)
        document = decode_page(document.body, "changes", since)
    match document:
        case {"cid": int(cid), "changes": list(items), "has_more": bool(has_more)} if type(cid) is int:
            if not max(len(items), has_more) <= cid - since <= _core.MAX_CID - since or len(items) > limit:
                raise ProtocolError(
                    f"the server's changes do not belong to this request ({limit} changes after CID {since})"
                )
            return Changes(cid, [parse_change(item) for item in items], has_more)
    raise ProtocolError(f"the server's changes are invalid: {document!r:.80}")


def _parse_numbered(body: bytes, since: int, limit: int) -> Changes:
    """Parse a page of the change log in NDJSON, in which each change has its CID.

    See `parse_changes`.
    """
    first, *lines = body.removesuffix(b"\n").split(b"\n")
    try:
        header = decode_json(first)
        rows, is_cut = decode_rows(lines) if is_large(body) else DecodedRows([*map(decode_json, lines)], is_cut=False)
    except ValueError as error:
        raise ProtocolError(f"the server's changes are not JSON: {error}") from error
    if not isinstance(header, dict) or header.get("count") != len(lines):
        raise ProtocolError("the server's changes are incomplete: fewer or more than its response announces")
    fields = Fields({**header, "rows": rows}, "page")
    to = fields.integer("cid", since, _core.MAX_CID)
    cids, items = fields.numbered_changes("rows", since, to)
    end = {"cid": cids[-1], "has_more": True} if is_cut else {}
    page = parse_changes({**header, **end, "changes": [*items]}, since, limit)
    for change, cid in zip(page.changes, cids, strict=True):
        change.cid = cid
    attribute(page.changes, fields.commits("commits", since, to))
    return page


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


def parse_entries(
    document: Any, bounds: KeyRange, limit: int, *, reverse: bool = False
) -> tuple[list[tuple[str, Any]], bool]:
    """Parse a page of entries. Return the entries, and True if the range has more.

    Args:
        document: The page, decoded from JSON; or `Received`, if it is large.
        bounds: The bounds of the keys that were requested.
        limit: The number of entries that were requested.
        reverse: True if the last entries were requested, in descending order.

    Raises:
        ProtocolError: The document is not such a page: its keys are not in the range, or not in
            order; it has too many entries, or announces more and has none.
    """
    if isinstance(document, Received):
        document = decode_page(document.body, "entries")
    match document:
        case {"entries": list(items), "has_more": bool(has_more)} if bool(items) or not has_more:
            rows = [_parse_entry(item) for item in items]
            keys = [key for key, _ in (reversed(rows) if reverse else rows)]
            # Strings sort by code points, as their UTF-8 does.
            if len(rows) > limit or not all(map(lt, keys, keys[1:])) or not _are_within(keys, bounds):
                raise ProtocolError(f"the server's entries do not belong to this request ({dict(bounds)!r:.200})")
            return rows, has_more
    raise ProtocolError(f"the server's entries are invalid: {document!r:.80}")


def _are_within(keys: Sequence[str], bounds: KeyRange) -> bool:
    """Return True if ascending keys satisfy all bounds."""
    if not keys:
        return True
    texts = cast("dict[str, str | None]", bounds)  # only views have tuples
    first, last, prefix = keys[0], keys[-1], texts.get("prefix") or ""
    above, at_least = texts.get("gt"), texts.get("gte")
    below, at_most = texts.get("lt"), texts.get("lte")
    if (above is not None and first <= above) or (at_least is not None and first < at_least):
        return False
    if (below is not None and last >= below) or (at_most is not None and last > at_most):
        return False
    # Keys with a common prefix are adjacent, so the first and the last one decide.
    return first.startswith(prefix) and last.startswith(prefix)


def _parse_entry(item: Any) -> tuple[str, Any]:
    match item:
        case [str(key), value] if key:
            return key, value
    raise ProtocolError(f"an entry of the server is invalid: {item!r:.80}")


def parse_info(document: Any) -> dict[str, Any]:
    """Return the description of a database.

    Raises:
        ProtocolError: The document is not one.
    """
    info = parse_object(document)
    if type(info.get("cid")) is not int or not 0 <= info["cid"] <= _core.MAX_CID:
        raise ProtocolError(f"the server's description of the database has no CID: {document!r:.80}")
    return info


def parse_databases(document: Any) -> dict[str, list[Any]]:
    """Return the list of a server's databases.

    Raises:
        ProtocolError: The document is not one.
    """
    match document:
        case {"databases": list(names), "dropped": list(dropped)}:
            are_names = all(isinstance(name, str) for name in names)
            if are_names and all(isinstance(found, dict) and found.keys() >= _DROPPED for found in dropped):
                return {"databases": names, "dropped": dropped}
    raise ProtocolError(f"the server's list of databases is invalid: {document!r:.80}")


def parse_backup(document: Any) -> dict[str, Any]:
    """Return the description of a backup.

    Raises:
        ProtocolError: The document is not one.
    """
    backup = parse_object(document)
    if not isinstance(backup.get("name"), str) or not all(
        type(backup.get(number)) is int for number in ("cid", "bytes", "new_bytes")
    ):
        raise ProtocolError(f"the server's description of the backup is malformed: {document!r:.80}")
    return backup


def parse_clients(document: Any) -> list[ClientInfo]:
    """Return the clients of a database.

    Raises:
        ProtocolError: The document is not a list of clients.
    """
    match document:
        case {"clients": list(items)}:
            return [_parse_client(item) for item in items]
    raise ProtocolError(f"the server's list of clients is invalid: {document!r:.80}")


def _parse_client(item: Any) -> ClientInfo:
    match item:
        case {
            "id": str(id),
            "name": str() | None as name,
            "pushed_cid": int() | None as pushed_cid,
            "pushed_at": str() | None as pushed_at,
            "behind": int(behind),
            "refused": int(refused),
        }:
            with suppress(ValueError):
                at = None if pushed_at is None else datetime.fromisoformat(pushed_at.replace("Z", "+00:00"))
                return ClientInfo(id, name, pushed_cid, at, behind, refused)
    raise ProtocolError(f"a client in the server's list is invalid: {item!r:.80}")


def parse_object(document: Any) -> dict[str, Any]:
    """Return ``document`` if it is a JSON object.

    Raises:
        ProtocolError: The document is another JSON value.
    """
    if isinstance(document, dict):
        return document
    raise ProtocolError(f"the server's response is not a JSON object: {document!r:.80}")
