"""The effects of a call: operations that its generator yields and a `RemoteServer` performs.

The generators in this package do no I/O themselves. The asyncio and the blocking `RemoteServer`
therefore share them, and tests can provoke any network failure without a socket.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class GetToken(NamedTuple):
    """Get the bearer token. The result is a ``str``, or ``None`` if there is none.

    Attributes:
        renew: True if the server rejected the last token, so that a new one is needed.
    """

    renew: bool


class Send(NamedTuple):
    """Send a request. The result is a `ServerResponse`; a network failure raises `NoResponseError`.

    An event stream is returned without its body, which `Receive` reads. A response of another
    program than a treehub-level server is returned without its body, too.

    Attributes:
        method: The HTTP method.
        url: The absolute URL.
        headers: The request headers.
        body: The request body.
        wait: Seconds for which the server may hold the request (long poll), in addition to the
            timeout.
        max_bytes: The maximum size of the response body, decoded.
        has_nonce: True if the response proves by a nonce that it answers this request.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    wait: float
    max_bytes: int
    has_nonce: bool


class Sleep(NamedTuple):
    """Sleep for some seconds."""

    seconds: float


class Receive(NamedTuple):
    """Receive the next chunk of an event stream. The result is empty at its end.

    A network failure raises `NoResponseError`.
    """


class Deliver(NamedTuple):
    """Yield an item to the caller of an iterating verb."""

    item: Any


Effect = GetToken | Send | Sleep | Receive | Deliver
CallFlow = Generator[Effect, Any, T]
