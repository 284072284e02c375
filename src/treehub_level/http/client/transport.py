"""The network of a client of httpx: httpcore, with streams that check the framing of responses.

A server could otherwise stop the process with one head, which h11 reads in quadratic time.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from ..framing import FramingError
from .response_framing import ResponseFraming


class FramedStream(httpcore.NetworkStream):
    """A connection whose responses are checked.

    Args:
        stream: The connection.
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._framing = ResponseFraming()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore.NetworkStream`."""
        while data := self._stream.read(max_bytes, timeout):
            with _protocol_errors():
                if ready := self._framing.receive(data):
                    return ready
        return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore.NetworkStream`."""
        self._framing.send(buffer)
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """See `httpcore.NetworkStream`."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """See `httpcore.NetworkStream`."""
        return FramedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore.NetworkStream`."""
        return self._stream.get_extra_info(info)


class AsyncFramedStream(httpcore.AsyncNetworkStream):
    """The counterpart of `FramedStream` for asyncio."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._framing = ResponseFraming()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore.AsyncNetworkStream`."""
        while data := await self._stream.read(max_bytes, timeout):
            with _protocol_errors():
                if ready := self._framing.receive(data):
                    return ready
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore.AsyncNetworkStream`."""
        self._framing.send(buffer)
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """See `httpcore.AsyncNetworkStream`."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkStream`."""
        return AsyncFramedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore.AsyncNetworkStream`."""
        return self._stream.get_extra_info(info)


class FramedNetwork(httpcore.SyncBackend):
    """The network, with a `FramedStream` for each connection."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """See `httpcore.NetworkBackend`."""
        return FramedStream(super().connect_tcp(host, port, timeout, local_address, socket_options))


class AsyncFramedNetwork(httpcore.AnyIOBackend):
    """The counterpart of `FramedNetwork` for asyncio."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkBackend`."""
        return AsyncFramedStream(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class FramedTransport(httpx.BaseTransport):
    """A transport of httpx over `FramedNetwork`.

    Args:
        verify: The trusted certificates; ``False`` if no connection uses TLS.
        proxy: The proxy; ``None`` for direct connections.
        keepalive_expiry: Seconds after which an idle connection is closed.
    """

    def __init__(self, verify: ssl.SSLContext | bool, proxy: httpx.Proxy | None, keepalive_expiry: float) -> None:
        self._pool = httpcore.ConnectionPool(
            **_pool_options(verify, proxy, keepalive_expiry), network_backend=FramedNetwork()
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport`."""
        response = self._pool.handle_request(_core_request(request))
        return _response(response, _ResponseBody(response))

    def close(self) -> None:
        """See `httpx.BaseTransport`."""
        self._pool.close()


class AsyncFramedTransport(httpx.AsyncBaseTransport):
    """The counterpart of `FramedTransport` for asyncio."""

    def __init__(self, verify: ssl.SSLContext | bool, proxy: httpx.Proxy | None, keepalive_expiry: float) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            **_pool_options(verify, proxy, keepalive_expiry), network_backend=AsyncFramedNetwork()
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        response = await self._pool.handle_async_request(_core_request(request))
        return _response(response, _AsyncResponseBody(response))

    async def aclose(self) -> None:
        """See `httpx.AsyncBaseTransport`."""
        await self._pool.aclose()


class _ResponseBody(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _AsyncResponseBody(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._response.aclose()


def _pool_options(verify: ssl.SSLContext | bool, proxy: httpx.Proxy | None, keepalive_expiry: float) -> dict[str, Any]:
    return {
        "ssl_context": verify or None,
        "proxy": None
        if proxy is None
        else httpcore.Proxy(
            _core_url(proxy.url), auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=proxy.ssl_context
        ),
        "max_connections": None,
        "max_keepalive_connections": None,
        "keepalive_expiry": keepalive_expiry,
    }


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _core_request(request: httpx.Request) -> httpcore.Request:
    return httpcore.Request(
        request.method,
        _core_url(request.url),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def _response(response: httpcore.Response, body: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
    return httpx.Response(response.status, headers=response.headers, stream=body, extensions=response.extensions)


@contextmanager
def _protocol_errors() -> Iterator[None]:
    try:
        yield
    except FramingError as error:
        raise httpcore.RemoteProtocolError(f"the response cannot be read: {error}") from error
