"""Calls of a server's routes: headers, authentication, redirects and retries.

A call is a generator of `effects`, which does no I/O itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from ...errors import TransportError
from ...redaction import redact_url
from ...replication.schedule import backoff
from .body import MAX_DOCUMENT_BYTES, NoResponseError
from .conditions import parse_etag
from .effects import CallFlow, GetToken, Send, Sleep
from .responses import DamagedResponseError, ServerResponse, not_a_server, read_document, read_lines
from .url import DatabaseURL

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
EVENT_STREAM_TYPE = "text/event-stream"

#: Default number of retries of a call.
RETRIES = 3
#: Maximum seconds before a retry. If the server asks for more (`Retry-After`), the call fails
#: at once, so that the caller can decide.
MAX_RETRY_DELAY = 10.0
#: Maximum number of redirects of a call.
_MAX_REDIRECTS = 3
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
#: Temporary conditions: the server, or a proxy in front of it, is busy, starting or shutting down.
_RETRYABLE_STATUSES = (408, 425, 429, 502, 503, 504)
_TOKEN_PATTERN = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class RouteCall:
    """One call of a route.

    Attributes:
        method: The HTTP method.
        path: The path, relative to the URL of the database.
        query: The query parameters.
        body: The request body, encoded as JSON.
        wait: Seconds for which the server may hold the request (long poll).
        is_repeatable: True if the call may be sent again although the server may have received it.
        missing_is_ok: True if the call reads a key, which may be missing.
        max_bytes: The maximum size of the response body, decoded.
        has_nonce: True if the response repeats a nonce of the request, which proves that it answers
            this request.
        headers: Further headers of the request.
        wants_etag: True if the result is the document and the entity tag of the response.
        of_server: True if the path is relative to ``/v1`` of the server.
    """

    method: str
    path: str
    query: Mapping[str, object] = field(default_factory=dict)
    body: bytes | None = None
    wait: float = 0
    is_repeatable: bool = True
    missing_is_ok: bool = False
    max_bytes: int = MAX_DOCUMENT_BYTES
    has_nonce: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    wants_etag: bool = False
    of_server: bool = False


class RouteCaller:
    """Performs calls on one database.

    Args:
        database: The URL of the database.
        retries: Maximum number of retries of a call.
        rng: Returns a random number from 0 to 1, for the jitter of delays.
    """

    def __init__(self, database: DatabaseURL, *, retries: int, rng: Callable[[], float] = random.random) -> None:
        self._database = database
        self._retries = retries
        self._rng = rng

    @property
    def url(self) -> str:
        """The URL of the database."""
        return self._database.url

    def call(self, call: RouteCall, *, accept: str = JSON_TYPE) -> CallFlow[Any]:
        """Call a route, and retry if that is safe and may help.

        Args:
            call: The call.
            accept: The media type to request.

        Returns:
            The JSON document of the response, with its entity tag if the call wants that; a
            `Received` if ``accept`` is NDJSON and the server supports it; ``None`` for an event
            stream, whose body follows.

        Raises:
            TransportError: There was no response, another program answered, or the server refused
                the call.
            LevelError: The verb failed on the server.
        """
        token = yield GetToken(renew=False)
        is_renewed, redirects, failures = False, 0, 0
        base = self.url.rpartition("/")[0] if call.of_server else self.url
        url = base + call.path + ("?" + urlencode(call.query) if call.query else "")
        while True:
            try:
                headers = _headers(call, token, accept, is_loopback=self._database.is_loopback)
                response = yield Send(call.method, url, headers, call.body, call.wait, call.max_bytes, call.has_nonce)
                if response.status in _REDIRECT_STATUSES:
                    redirects += 1
                    url = self._redirected(call, url, response, redirects)
                    continue
                if response.asks_for_token and not is_renewed:
                    is_renewed = True
                    new_token = yield GetToken(renew=True)
                    if new_token is not None:
                        token = new_token
                        continue
                if not response.is_answer(call.has_nonce):
                    raise not_a_server(response, self.url)
                if response.status == 200 and response.is_stream and accept == response.media_type:
                    return None
                if response.status == 200 and response.media_type == accept == NDJSON_TYPE:
                    return read_lines(response)
                document = read_document(response, self.url, token, missing_is_ok=call.missing_is_ok)
                return (document, parse_etag(response.headers)) if call.wants_etag else document
            except NoResponseError as failure:
                error = transport_error(f"{self.url} could not be reached: {failure}", failure)
                may_retry = call.is_repeatable or not failure.maybe_sent
            except DamagedResponseError as damage:
                error = transport_error(f"{self.url} sent a damaged response: {damage}", damage)
                may_retry = call.is_repeatable
            except TransportError as refusal:
                error = refusal
                may_retry = call.is_repeatable and refusal.status in _RETRYABLE_STATUSES
            if not may_retry:
                raise error
            failures += 1
            yield Sleep(self.retry_delay(error, failures))

    def retry_delay(self, error: TransportError, failures: int) -> float:
        """Return the seconds to wait before the next retry.

        Args:
            error: The last failure.
            failures: Consecutive failures, at least 1.

        Raises:
            TransportError: ``error``, if the call must not be retried again.
        """
        if failures > self._retries or (error.retry_after or 0) > MAX_RETRY_DELAY:
            raise error
        return min(backoff(failures, error.retry_after, self._rng), MAX_RETRY_DELAY)

    def _redirected(self, call: RouteCall, url: str, response: ServerResponse, redirects: int) -> str:
        location = response.headers.get("location", "")
        target = self._database.resolve_redirect(url, location)
        # After 301, 302 and 303 a POST is repeated as a GET (RFC 9110, section 15.4).
        changes_method = call.method != "GET" and response.status not in (307, 308)
        if target is None or redirects > _MAX_REDIRECTS or changes_method:
            raise TransportError(
                f"{self.url} redirects to another place ({redact_url(location)[:100]!a}), which the client does not "
                "follow: a captive portal or a proxy answered, or the URL is wrong",
                status=response.status,
            )
        return target


def _headers(call: RouteCall, token: str | None, accept: str, *, is_loopback: bool) -> dict[str, str]:
    # On one machine, compressing a page takes longer than sending it uncompressed.
    encoding = "identity" if accept == EVENT_STREAM_TYPE or is_loopback else "gzip"
    headers = {
        # A server that cannot send NDJSON sends JSON.
        "Accept": accept if accept != NDJSON_TYPE else f"{NDJSON_TYPE}, {JSON_TYPE}",
        "Accept-Encoding": encoding,
        "User-Agent": "treehub-level",
        **call.headers,
    }
    if call.body is not None:
        headers["Content-Type"] = JSON_TYPE
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def transport_error(message: str, cause: Exception) -> TransportError:
    """Return a `TransportError` whose cause is the exception that httpx raised, if there is one."""
    error = TransportError(message)
    error.__cause__ = cause.__cause__ or cause
    return error


def check_token(token: object) -> str:
    """Return ``token`` if it fits into an ``Authorization`` header. No message repeats the token.

    Raises:
        TypeError: ``token`` is not a ``str``.
        ValueError: ``token`` is empty, longer than 4096 characters, or contains spaces, line breaks
            or non-ASCII characters.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, or a callable that returns one, not a {type(token).__name__}")
    if not _TOKEN_PATTERN.fullmatch(token):
        raise ValueError("a token must be one word of visible ASCII characters (1 to 4096); this one is not")
    return token
