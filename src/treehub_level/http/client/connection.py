"""What both drivers need of httpx: how a client is set up, and what its errors mean."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

try:
    import httpx as httpx
except ImportError as error:
    raise ImportError(
        'treehub_level.http.RemoteServer needs httpx: pip install "treehub-level[http]"', name=error.name
    ) from error

from .address import DatabaseURL
from .body import UnansweredError
from .calls import Calls, Send, check_token
from .responses import ServerResponse

#: Seconds to wait for a connection.
_CONNECT = 10.0
#: Seconds that a connection is kept for the next request. Servers keep it for five or more.
_KEPT = 4.0


class Connection:
    """What a `RemoteServer` of either API is made of.

    Args:
        url: The address of the database.
        token: The token, or what gives one.
        timeout: Seconds of silence after which a server counts as dead.
        retries: Times that a call is repeated.
        insecure: Whether a token may be sent where others can read it.
        ssl_context: What certificates to trust; ``None`` for those that everybody trusts.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], Any] | None,
        *,
        timeout: float,
        retries: int,
        insecure: bool,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.address = DatabaseURL.parse(url)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise ValueError(f"the timeout is more than 0 seconds, not {timeout!r:.80}")
        if type(retries) is not int or retries < 0:
            raise ValueError(f"retries is an int >= 0, not {retries!r:.80}")
        if token is not None and not callable(token):
            token = check_token(token)
        if token is not None and not insecure and not self.address.is_private:
            raise ValueError(
                f"{self.address.url} is not encrypted: whoever is on the way could read the token. Use https://, or "
                "say insecure=True"
            )
        self.token = token
        self.calls = Calls(self.address, retries=retries)
        self.timeout = timeout
        self.options: dict[str, Any] = {
            # Loading the certificates takes tens of milliseconds. Redirects never lead from HTTP to HTTPS.
            "verify": self.address.is_encrypted if ssl_context is None else ssl_context,
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            "limits": httpx.Limits(keepalive_expiry=_KEPT),
        }

    def request(self, client: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        """A request as httpx has it. It is silent while the server keeps it waiting."""
        timeout = httpx.Timeout(self.timeout, connect=min(_CONNECT, self.timeout), read=self.timeout + send.wait)
        return client.build_request(
            send.method, send.url, headers=dict(send.headers), content=send.body, timeout=timeout
        )


def response_of(reply: httpx.Response) -> ServerResponse:
    """A reply of httpx as this package has it, its body still to come."""
    return ServerResponse(reply.status_code, {name.lower(): value for name, value in reply.headers.items()})


@contextmanager
def errors_of_httpx() -> Iterator[None]:
    """Turn what httpx raises into `UnansweredError`."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise UnansweredError(_reason(error), sent=False) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
        raise UnansweredError(_reason(error), sent=True) from error


def _reason(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
