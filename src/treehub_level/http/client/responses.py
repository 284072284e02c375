"""What a reply of a server over HTTP says: an answer, or one of the errors of this package."""

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

#: A server asks for so many seconds at most; more is not believed.
MAX_RETRY_AFTER = 3600.0

_SHOWN = 300
_ERRORS: Mapping[str, type[LevelError]] = {
    error.code: error
    for error in (ForbiddenError, InvalidKeyError, InvalidValueError, ProtocolError, StoreMismatchError)
}
_ADVICE = {
    401: "the token is missing, unknown, expired or revoked",
    403: "the token does not allow this",
    404: "there is no such database there, or the token is not for it",
    413: "the request is too large for the server, or for what stands before it",
    429: "too many requests",
    503: "the server is busy, or shutting down",
}


class DamagedError(Exception):
    """A reply that should be JSON and is not: it was cut off, say."""


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """A reply as it came.

    Attributes:
        status: Its status.
        headers: Its headers, names in lower case.
        body: Its body, decoded.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def media_type(self) -> str:
        """What the body is said to be."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_stream(self) -> bool:
        """Whether it goes on for as long as the server has something to say."""
        return self.media_type == "text/event-stream" and "content-encoding" not in self.headers

    def with_body(self, parts: Sequence[bytes]) -> ServerResponse:
        """This reply and its body."""
        return ServerResponse(self.status, self.headers, b"".join(parts))


def read_answer(response: ServerResponse, where: str, token: str | None, *, may_miss: bool = False) -> Any:
    """The JSON document of a reply; ``None`` if it has none, and needs none; `MISSING` if there is no such key.

    Args:
        response: The reply.
        where: The address, for messages.
        token: What must not stand in a message, even if the server repeats it.
        may_miss: Whether a key was asked for, that may be absent.

    Raises:
        LevelError: The server refused, or something else answered in its place.
        DamagedError: It was cut off.
    """
    status = response.status
    if status == 204:
        return None
    if 200 <= status < 300 or status == 409:
        document = _document(response, where)
        # A reset or a fork is a reply to an exchange, whatever its status.
        if status != 409 or (isinstance(document, dict) and "kind" in document):
            return document
    if may_miss and status == 404 and _fields(response).get("code") == "LEVEL_NOT_FOUND":
        return MISSING
    raise _refusal(response, where, token)


def read_lines(response: ServerResponse) -> Received:
    """A reply to an exchange in lines, as it came.

    Raises:
        DamagedError: It was cut off.
    """
    if not response.body.endswith(b"\n"):
        raise DamagedError("its last line is cut off")
    return Received(response.body, in_lines=True)


def _document(response: ServerResponse, where: str) -> Any:
    if response.media_type != "application/json":
        raise _impostor(response, where)
    try:
        return orjson.loads(response.body)
    except ValueError as error:
        raise DamagedError("its answer is no JSON") from error


def _impostor(response: ServerResponse, where: str) -> TransportError:
    kind = _clean(response.media_type, None) or "something without a type"
    return TransportError(
        f"{where} answered with {kind} instead of JSON: a captive portal or a proxy has answered in the "
        "server's place, or the address is not that of a treehub-level server",
        status=response.status,
    )


def _refusal(response: ServerResponse, where: str, token: str | None) -> LevelError:
    status, retry_after = response.status, read_retry_after(response.headers)
    fields = _fields(response)
    message = _clean(str(fields.get("message", "")), token)
    code = fields.get("code")
    if status in (400, 403, 409) and isinstance(code, str):
        expected, got = fields.get("expected"), fields.get("got")
        if code == CIDMismatchError.code and type(expected) is int and type(got) is int:
            return CIDMismatchError(message, expected=expected, got=got)
        if code in _ERRORS:
            return _ERRORS[code](message)
    if not fields and status not in _ADVICE and "html" in response.media_type:
        return _impostor(response, where)
    reason = message or _ADVICE.get(status, "it says no more")
    return TransportError(f"{where} refused with status {status}: {reason}", status=status, retry_after=retry_after)


def _fields(response: ServerResponse) -> dict[Any, Any]:
    """What a refusal says; nothing if it is not of this package's servers."""
    if response.media_type != "application/json":
        return {}
    try:
        document = orjson.loads(response.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _clean(text: str, token: str | None) -> str:
    """What another machine says, fit for a message: short, on one line, and without the token."""
    if token:
        text = text.replace(token, "…")
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", text).strip()[:_SHOWN]


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds after which the server asks to be tried again.

    A date is compared with that of the reply itself: this machine's clock may be wrong.
    """
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", asked):
        return min(float(asked), MAX_RETRY_AFTER)
    try:
        later = parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(later.total_seconds(), 0.0), MAX_RETRY_AFTER)


def read_changes(document: Any) -> Changes:
    """A page of the log.

    Raises:
        ProtocolError: It is none.
    """
    match document:
        case {"cid": int(cid), "changes": list(items), "has_more": bool(has_more)} if type(cid) is int:
            return Changes(cid, [read_change(item) for item in items], has_more)
    raise ProtocolError(f"the server's changes cannot be read: {document!r:.80}")


def read_change(item: Any) -> Change:
    """One change.

    Raises:
        ProtocolError: It is none.
    """
    match item:
        case [str(key)]:
            return Change.deletion(key)
        case [str(key), value]:
            return Change(key, value)
    raise ProtocolError(f"a change of the server cannot be read: {item!r:.80}")


def read_entries(document: Any) -> tuple[list[tuple[str, Any]], bool]:
    """Entries of a range, and whether there are more.

    Raises:
        ProtocolError: They are none.
    """
    match document:
        case {"entries": list(items), "has_more": bool(has_more)} if bool(items) or not has_more:
            return [_read_entry(item) for item in items], has_more
    raise ProtocolError(f"the server's entries cannot be read: {document!r:.80}")


def _read_entry(item: Any) -> tuple[str, Any]:
    match item:
        case [str(key), value]:
            return key, value
    raise ProtocolError(f"an entry of the server cannot be read: {item!r:.80}")


def read_object(document: Any) -> dict[str, Any]:
    """A document that is an object.

    Raises:
        ProtocolError: It is none.
    """
    if isinstance(document, dict):
        return document
    raise ProtocolError(f"the server's answer cannot be read: {document!r:.80}")
