"""A load balancer: a TCP relay that selects a random server for each request.

The balancer does not parse HTTP. Data from a client that follows a response is the next request. A
server that refuses connections is skipped; a paused server, which accepts connections and does not
respond, is not detected.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

HOST = "127.0.0.1"


class Balancer:
    """A load balancer on loopback. Use it in an ``async with`` block.

    Args:
        targets: The ports of the servers.
        rng: Selects a server for each request.

    Attributes:
        port: The port of the balancer.
        request_counts: The number of requests sent to each server, by port.
    """

    def __init__(self, targets: Sequence[int], rng: random.Random) -> None:
        self._targets = targets
        self._rng = rng
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.request_counts = dict.fromkeys(targets, 0)

    async def __aenter__(self) -> Balancer:
        self._listener = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._relay(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _relay(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Relay the requests of one client connection until either side closes it."""
        upstream: _Upstream | None = None
        try:
            while data := await client.read(1 << 16):
                if upstream is None or upstream.has_responded:
                    if upstream is not None:
                        upstream.close()
                    upstream = await self._connect(to_client)
                await upstream.send(data)
        except OSError:
            pass
        finally:
            if upstream is not None:
                upstream.close()
            to_client.transport.abort()

    async def _connect(self, to_client: asyncio.StreamWriter) -> _Upstream:
        """Connect to a random server that accepts connections.

        Raises:
            ConnectionError: All servers refuse connections.
        """
        for port in self._rng.sample(self._targets, len(self._targets)):
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, port)
                self.request_counts[port] += 1
                return _Upstream(reader, writer, to_client)
        raise ConnectionError("no server accepts connections")


class _Upstream:
    """A connection to the server of one request. It relays the response to the client."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        self._writer = writer
        self.has_responded = False
        self._response = asyncio.create_task(self._relay_response(reader, to_client))

    async def send(self, data: bytes) -> None:
        """Send data of the client to the server."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Close the connection, and stop relaying."""
        self._response.cancel()
        self._writer.transport.abort()

    async def _relay_response(self, reader: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                self.has_responded = True
                to_client.write(data)
                await to_client.drain()
        to_client.transport.abort()
