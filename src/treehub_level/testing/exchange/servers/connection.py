"""HTTP requests to the server under test, with the standard library alone."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..scenarios import ConformanceError

#: Marks the token of the settings, which `None` cannot: that stands for no token.
DEFAULT: Any = object()


@dataclass(frozen=True)
class Answer:
    """The response to one request.

    Attributes:
        sent: The request; the text of a malformed one.
        status: The HTTP status.
        headers: The headers, with names in lower case.
        body: The body.
    """

    sent: Any
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The body, decoded from JSON.

        Raises:
            ConformanceError: It is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise self.error("a body that is JSON") from None

    def error(self, expected: str) -> ConformanceError:
        """Return the error for a response that is not the expected one."""
        received = f"status {self.status}: {self.body.decode(errors='replace')}"
        return ConformanceError(expected, sent=self.sent, received=received)

    def require(self, condition: object, expected: str) -> None:
        """Check a condition.

        Raises:
            ConformanceError: The condition is false.
        """
        if not condition:
            raise self.error(expected)

    def __getitem__(self, field: str) -> Any:
        message = self.message
        self.require(isinstance(message, dict) and field in message, f'the field "{field}"')
        return message[field]

    def get(self, field: str, default: Any = None) -> Any:
        """Return a field of the reply that may be absent."""
        message = self.message
        return message.get(field, default) if isinstance(message, dict) else default

    def expect(self, why: str, **fields: Any) -> Answer:
        """Check fields of a reply, and return the answer.

        Args:
            why: The rule that they follow.
            **fields: The expected fields. ``None`` stands for ``null``, and an absent list is
                empty. The keys in ``rejected`` may have any order.

        Raises:
            ConformanceError: A field is another one.
        """
        for name, value in fields.items():
            found = self.get(name, []) if isinstance(value, list) else self[name]
            is_same = sorted(found) == sorted(value) if name == "rejected" else found == value
            self.require(is_same, f'{why}: "{name}" is {json.dumps(value, ensure_ascii=False)}')
        return self

    def expect_refusal(self, status: int, *codes: str, why: str) -> None:
        """Check that the request was refused.

        Args:
            status: The HTTP status.
            *codes: The codes of which the body has one.
            why: The rule that the request breaks.

        Raises:
            ConformanceError: It was answered, or refused otherwise.
        """
        expected = f"{why}: status {status} and the code {' or '.join(codes)}"
        self.require(self.status == status and self.get("code") in codes, expected)
        self.require("treehub-level" in self.headers, "the header Treehub-Level in a refusal: clients require it")


class HTTPConnection:
    """A connection to a database.

    Args:
        url: The URL of the database, such as ``http://localhost:8421/v1/notes``.
        token: The bearer token; ``None`` for none.
        timeout: Seconds to wait for bytes of a response.

    Raises:
        ValueError: The URL is not one of HTTP.
    """

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the URL of a database is needed, such as http://localhost:8421/v1/notes, not {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._path = parts.path.rstrip("/")
        self._token = token
        self._timeout = timeout

    def exchange(self, request: Any, *, wait: float = 0, in_lines: bool = False, token: str | None = DEFAULT) -> Answer:
        """Send a request, and return the answer.

        Args:
            request: The request, as a dict; or the bytes of a malformed one.
            wait: Seconds of a long poll.
            in_lines: True to ask for NDJSON.
            token: Another bearer token than that of the connection; ``None`` for none.

        Raises:
            OSError: The server cannot be reached.
        """
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        sent = request.decode(errors="replace") if isinstance(request, bytes) else request
        headers = {"Content-Type": "application/json"}
        if in_lines:
            headers["Accept"] = "application/x-ndjson"
        used = self._token if token is DEFAULT else token
        if used is not None:
            headers["Authorization"] = f"Bearer {used}"
        path = f"{self._path}/exchange{f'?wait={wait:g}' if wait else ''}"
        self._connection.timeout = self._timeout + wait  # of the next connection
        if wait:
            self._connection.close()
        try:
            response = self._send(path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self._connection.close()  # the server has closed an idle connection
            response = self._send(path, body, headers)
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(sent, response.status, found, response.read())

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request("POST", path, body, headers)
        return self._connection.getresponse()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
