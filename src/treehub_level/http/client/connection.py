"""Settings of a `RemoteServer`, and the use of httpx that asyncio and blocking have in common."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

from ...extras import missing

try:
    import httpcore
    import httpx as httpx
except ImportError as error:
    raise ImportError(missing("treehub_level.http.RemoteServer", "httpx", "http"), name=error.name) from error

from .body import NoResponseError
from .calls import RouteCaller, check_token
from .effects import Send
from .environment import network_options
from .responses import ServerResponse
from .url import DatabaseURL
from .verbs import RemoteVerbs

#: Maximum seconds to wait for a TCP connection and the TLS handshake.
_CONNECT_TIMEOUT = 10.0
#: Seconds after which an idle connection is closed. Servers close theirs after 5 seconds or more:
#: a client that closes first does not send a request into a closing connection.
_KEEPALIVE_EXPIRY = 4.0
#: The exceptions of httpcore, which have no common base class.
_CORE_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)


class Connection:
    """The validated settings of a `RemoteServer`.

    Args:
        url: The URL of the database.
        token: The bearer token, or a callable that returns it.
        timeout: Seconds without a byte from the server after which a request fails.
        retries: Maximum number of retries of a call.
        insecure: True to allow sending the token unencrypted to another machine.
        ssl_context: The trusted certificates; ``None`` for those that ``SSL_CERT_FILE`` or
            ``SSL_CERT_DIR`` names, or else those of httpx.

    Attributes:
        url: The URL of the database, without a trailing slash.
        token: The bearer token, or a callable that returns it.
        timeout: Seconds without a byte from the server after which a request fails.
        verbs: The verbs of the database.
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
        database = DatabaseURL.parse(url)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r:.80}")
        if type(retries) is not int or retries < 0:
            raise ValueError(f"retries must be an int >= 0, not {retries!r:.80}")
        if token is not None and not callable(token):
            token = check_token(token)
        if token is not None and not insecure and not database.is_secure:
            raise ValueError(
                f"the connection to {database.url} is not encrypted, so others could read the token: use https://, "
                "or pass insecure=True"
            )
        self.url = database.url
        self.token = token
        self.timeout = timeout
        self.verbs = RemoteVerbs(RouteCaller(database, retries=retries))
        self._ssl_context = ssl_context

    def client_options(self, transport: object, network: Callable[..., object]) -> dict[str, Any]:
        """Return the keyword arguments for a client of httpx.

        Args:
            transport: The transport that replaces the network; ``None`` for the network.
            network: The class of the transport for the network: see `transport`.

        Raises:
            TransportError: A variable of the environment cannot be used.
        """
        return {
            "transport": transport or network(*network_options(self.url, self._ssl_context), _KEEPALIVE_EXPIRY),
            "trust_env": False,
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        }

    def build_request(self, client: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        """Return the httpx request for a `Send`. A long poll extends the read timeout."""
        timeout = httpx.Timeout(
            self.timeout, connect=min(_CONNECT_TIMEOUT, self.timeout), read=self.timeout + send.wait
        )
        return client.build_request(
            send.method, send.url, headers=dict(send.headers), content=send.body, timeout=timeout
        )


def response_head(response: httpx.Response) -> ServerResponse:
    """Return the status and headers of an httpx response."""
    return ServerResponse(response.status_code, {name.lower(): value for name, value in response.headers.items()})


@contextmanager
def httpx_errors() -> Iterator[None]:
    """Translate the exceptions of httpx into `NoResponseError`."""
    try:
        yield
    except (*_of_connecting(httpx), *_of_connecting(httpcore)) as error:
        raise NoResponseError(_reason(error), maybe_sent=False) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, *_CORE_ERRORS, OSError, ValueError) as error:
        # A ValueError comes from the name of a host that cannot be looked up, for example.
        raise NoResponseError(_reason(error), maybe_sent=True) from error


def _of_connecting(library: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions of httpx or of httpcore for a request that was not sent."""
    return library.ConnectError, library.ConnectTimeout, library.PoolTimeout, library.ProxyError


def _reason(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
