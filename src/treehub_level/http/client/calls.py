"""Calls to a server over HTTP as generators: they yield what is to be done, are sent what came of it, and end.

Nothing here does I/O, so both APIs drive the same code, and every fault can be tested without a socket.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import orjson

from ... import _core
from ...engine.codec import Codec
from ...engine.ranges import check_limit
from ...errors import InvalidKeyError, ProtocolError, TransportError
from ...replication.endpoint import check_wait
from ...replication.manual import check_cid
from ...replication.messages import Request
from ...replication.schedule import backoff
from ...replication.wire import request_to_json
from ...types import MISSING, Change, Changes, Mode
from .address import DatabaseURL
from .body import UnansweredError
from .events import EventReader
from .responses import (
    DamagedError,
    ServerResponse,
    read_answer,
    read_change,
    read_changes,
    read_entries,
    read_lines,
    read_object,
)

T = TypeVar("T")

#: Times that a call is repeated before it is given up.
RETRIES = 3
#: Seconds that a call waits at most before it is repeated: whoever asks for more is told at once.
PATIENCE = 10.0
#: Changes that are asked for at once.
PAGE = 1000
#: Redirects, within one server, that are followed.
_HOPS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
#: What may be over soon: the server, or a proxy before it, is busy, starting or stopping.
_PASSING = (408, 425, 429, 502, 503, 504)
_JSON = "application/json"
_LINES = "application/x-ndjson"
_EVENTS = "text/event-stream"
#: What a server's level takes, unless it has another prefix: what cannot be sent is refused here.
_CODEC = Codec(Mode.SERVER, _core.KeySpace("!"))
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class RouteCall:
    """One call of a route.

    Attributes:
        method: The method.
        path: What follows the address of the database.
        query: What follows that.
        body: A JSON document, encoded.
        wait: Seconds that the server may keep it waiting.
        is_repeatable: Whether to send it again when it may have been received.
        may_miss: Whether it asks for a key, that may be absent.
    """

    method: str
    path: str
    query: Mapping[str, object] = field(default_factory=dict)
    body: bytes | None = None
    wait: float = 0
    is_repeatable: bool = True
    may_miss: bool = False


class AskToken(NamedTuple):
    """To be done: get the token, a new one if the last was refused. Send in the token, or ``None``."""

    renew: bool


class Send(NamedTuple):
    """To be done: send a request. Send in the `ServerResponse`, or throw `UnansweredError`.

    A stream of events comes without its body: see `Receive`.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    wait: float


class Sleep(NamedTuple):
    """To be done: wait so many seconds."""

    seconds: float


class Receive(NamedTuple):
    """To be done: receive more of the stream. Send in the bytes, none at its end, or throw `UnansweredError`."""


class Deliver(NamedTuple):
    """To be done: hand something to whoever iterates."""

    item: Any


Effect = AskToken | Send | Sleep | Receive | Deliver
CallFlow = Generator[Effect, Any, T]


class Calls:
    """The verbs of a server.

    Args:
        address: Where it is.
        retries: Times that a call is repeated.
        rng: Draws a number from 0 to 1, for delays.
    """

    def __init__(self, address: DatabaseURL, *, retries: int, rng: Callable[[], float] = random.random) -> None:
        self._address = address
        self._retries = retries
        self._rng = rng

    # ------------------------------------------------------------------------------------------------ verbs

    def exchange(self, request: Mapping[str, Any], wait: float) -> CallFlow[dict[str, Any]]:
        """See ``ServerVerbs.exchange``. Safe to repeat: the server knows a push that it has decided on."""
        seconds = check_wait(wait)
        query = {"wait": seconds} if seconds else {}
        return read_object((yield from self._call(RouteCall("POST", "/exchange", query, encode(request), seconds))))

    def carry(self, request: Request, wait: float) -> CallFlow[object]:
        """The same, for a session: what it comes to is what `wire.read_answer` takes. Changes stay bytes."""
        query = {"wait": wait} if wait else {}
        return (
            yield from self._call(RouteCall("POST", "/exchange", query, request_to_json(request), wait), accept=_LINES)
        )

    def changes(self, cid: int, limit: int | None, wait: float) -> CallFlow[Changes]:
        """See ``ServerVerbs.changes``."""
        check_cid(cid)
        check_limit(limit)
        seconds = check_wait(wait)
        found: list[Change] = []
        while True:
            # A server is asked for one change at least, if only to see whether there is any.
            count = PAGE if limit is None else max(1, min(PAGE, limit - len(found)))
            query = {"since": cid, "limit": count, **({"wait": seconds} if seconds and not found else {})}
            call = RouteCall("GET", "/changes", query, wait=seconds)
            page = read_changes((yield from self._call(call)))
            if page.cid < cid or len(page.changes) > count:
                raise ProtocolError(f"the server's changes after CID {cid} are those of another question")
            if limit == 0:
                return Changes(cid, [], bool(page.changes))
            found += page.changes
            if not page.has_more or not page.changes or len(found) == limit:
                return Changes(page.cid, found, page.has_more)
            cid = page.cid

    def change(self, cid: int, changes: Any) -> CallFlow[int]:
        """See ``ServerVerbs.change``. Never repeated once it may have been received."""
        if type(cid) is not int:
            raise TypeError(f"a CID is an int, not {cid!r:.80}")
        # Encoded as a level would store them, so that what JSON cannot hold is refused here, and not altered.
        entries = _CODEC.encoder.changes(changes)
        records = b",".join(_core.join_record(key, value) for key, value in entries)
        body = b'{"cid":%d,"changes":[%b]}' % (cid, records)
        document = read_object((yield from self._call(RouteCall("POST", "/change", body=body, is_repeatable=False))))
        after = document.get("cid")
        if type(after) is not int:
            raise ProtocolError(f"the server's answer to a change cannot be read: {document!r:.80}")
        return after

    def info(self) -> CallFlow[dict[str, Any]]:
        """What the server says of itself."""
        return read_object((yield from self._call(RouteCall("GET", ""))))

    def watch(self, since: int | None) -> CallFlow[None]:
        """See ``ServerVerbs.watch``. A connection that breaks is made again, behind the last change that came."""
        if since is None:
            since = (yield from self.info()).get("cid")
        since = check_cid(since)
        failures = 0
        while True:
            call = RouteCall("GET", "/watch", {"since": since})
            try:
                yield from self._call(call, accept=_EVENTS)
                reader = EventReader()
                while data := (yield Receive()):
                    for event in reader.feed(data):
                        reached = _read_event_id(event.id)
                        if reached > since:
                            since, failures = reached, 0
                        if event.data:
                            change = read_change(_decode(event.data))
                            change.cid = reached
                            yield Deliver(change)
                error = TransportError(f"{self._address.url} ended the stream of changes")
            except UnansweredError as lost:
                error = _transport_error(f"{self._address.url} ended the stream of changes: {lost}", lost)
            failures += 1
            yield Sleep(self._delay(error, failures))

    # ---------------------------------------------------------------------------------------------- entries

    def get(self, key: str, default: Any) -> CallFlow[Any]:
        """The value of a key."""
        value = yield from self._call(RouteCall("GET", _entry(key), may_miss=True))
        return default if value is MISSING else value

    def put(self, key: str, value: Any) -> CallFlow[None]:
        """Store a value. Not repeated once it may have been received: it could undo what somebody else wrote since."""
        call = RouteCall("PUT", _entry(key), body=_CODEC.encoder.value(value), is_repeatable=False)
        yield from self._call(call)

    def delete(self, key: str) -> CallFlow[None]:
        """Remove a key. Not repeated either."""
        yield from self._call(RouteCall("DELETE", _entry(key), is_repeatable=False))

    def scan(self, limit: int | None, **bounds: str | None) -> CallFlow[None]:
        """Deliver the entries of a range, in key order, page after page."""
        _CODEC.bounds(*(bounds[name] for name in ("gt", "gte", "lt", "lte", "prefix")))
        left = check_limit(limit)
        query: dict[str, object] = {name: bound for name, bound in bounds.items() if bound is not None}
        has_more = left != 0
        while has_more:
            count = PAGE if left is None else min(PAGE, left)
            call = RouteCall("GET", "/entries", {**query, "limit": count})
            rows, has_more = read_entries((yield from self._call(call)))
            for row in rows:
                yield Deliver(row)
            if has_more:
                after = rows[-1][0]
                if len(rows) > count or after <= str(query.get("gt", "")):
                    raise ProtocolError("the server's entries are those of another question")
                query.pop("gte", None)
                query["gt"] = after
                left = None if left is None else left - len(rows)
                has_more = left != 0

    # --------------------------------------------------------------------------------------------- one call

    def _call(self, call: RouteCall, *, accept: str = _JSON) -> CallFlow[Any]:
        """The document that a call is answered with; nothing if it is a stream of events.

        Raises:
            TransportError: It was not answered, or refused.
            LevelError: What the verb itself raises on a server.
        """
        token = yield AskToken(renew=False)
        renewed, hops, failures = False, 0, 0
        url = self._address.url + call.path + ("?" + urlencode(call.query) if call.query else "")
        while True:
            try:
                response = yield Send(
                    call.method,
                    url,
                    _headers(call, token, accept, is_near=self._address.is_loopback),
                    call.body,
                    call.wait,
                )
                if response.status in _REDIRECTS:
                    hops += 1
                    url = self._redirected(call, url, response, hops)
                    continue
                if response.status == 401 and not renewed:
                    renewed = True
                    fresh = yield AskToken(renew=True)
                    if fresh is not None:
                        token = fresh
                        continue
                if response.status == 200 and response.is_stream and accept == response.media_type:
                    return None
                if response.status == 200 and response.media_type == accept == _LINES:
                    return read_lines(response)
                return read_answer(response, self._address.url, token, may_miss=call.may_miss)
            except UnansweredError as lost:
                error = _transport_error(f"{self._address.url} could not be reached: {lost}", lost)
                again = call.is_repeatable or not lost.sent
            except DamagedError as damage:
                error = _transport_error(f"{self._address.url} sent a damaged reply: {damage}", damage)
                again = call.is_repeatable
            except TransportError as refusal:
                error = refusal
                again = call.is_repeatable and refusal.status in _PASSING
            if not again:
                raise error
            failures += 1
            yield Sleep(self._delay(error, failures))

    def _delay(self, error: TransportError, failures: int) -> float:
        """Seconds until the next try.

        Raises:
            TransportError: There is none.
        """
        if failures > self._retries or (error.retry_after or 0) > PATIENCE:
            raise error
        return min(backoff(failures, error.retry_after, self._rng), PATIENCE)

    def _redirected(self, call: RouteCall, url: str, response: ServerResponse, hops: int) -> str:
        location = response.headers.get("location", "")
        target = self._address.redirected(url, location)
        # A POST would arrive as a GET after any other redirect.
        if target is None or hops > _HOPS or (call.method != "GET" and response.status not in (307, 308)):
            raise TransportError(
                f"{self._address.url} redirects to another place ({location[:100]!a}), which is not followed: a "
                "captive portal or a proxy has answered, or the address is wrong",
                status=response.status,
            )
        return target


def _entry(key: str) -> str:
    """The path of a key.

    Raises:
        InvalidKeyError: No key, or one that a URL cannot name.
    """
    stored: bytes = _CODEC.encoder.key(key)
    if key in (".", ".."):
        raise InvalidKeyError(
            f"the key {key!r} cannot stand in a URL, where it would mean a folder: query() reaches it"
        )
    return "/entries/" + quote(stored, safe="")


def encode(document: Mapping[str, Any]) -> bytes:
    """A request as JSON."""
    return orjson.dumps(document)


def check_token(token: object) -> str:
    """A token that a header can hold. What it is stands in no message.

    Raises:
        TypeError: Not a ``str``.
        ValueError: It holds spaces, line breaks or characters beyond ASCII.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token is a str, or a callable that gives one, not a {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise ValueError("a token is one word of visible ASCII characters: this one is none")
    return token


def _headers(call: RouteCall, token: str | None, accept: str, *, is_near: bool) -> dict[str, str]:
    # Within one machine compressing a page takes longer than sending it.
    encoding = "identity" if accept == _EVENTS or is_near else "gzip"
    headers = {
        "Accept": accept if accept != _LINES else f"{_LINES}, {_JSON}",
        "Accept-Encoding": encoding,
        "User-Agent": "treehub-level",
    }
    if call.body is not None:
        headers["Content-Type"] = _JSON
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _transport_error(message: str, cause: Exception) -> TransportError:
    error = TransportError(message)
    error.__cause__ = cause.__cause__ or cause
    return error


def _read_event_id(identity: str) -> int:
    try:
        return check_cid(int(identity))
    except ValueError as error:
        raise ProtocolError(f"an event of the server has no CID: {identity!r:.80}") from error


def _decode(data: str) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise ProtocolError(f"an event of the server is no JSON: {data!r:.80}") from error
