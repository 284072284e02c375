"""A load balancer: a TCP relay that picks one of several servers for each request, not for each connection.

It knows nothing of HTTP, but that a client that speaks again after it was answered begins a new request. What refuses a
connection is passed over; what takes it and says nothing, as a frozen server does, is not noticed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

HOST = "127.0.0.1"


class Balancer:
    """The balancer.

    Args:
        targets: The ports, on loopback, of the servers.
        rng: Picks one of them.

    Attributes:
        port: The port that it listens on.
        carried: How many requests each server was given.
    """

    def __init__(self, targets: Sequence[int], rng: random.Random) -> None:
        self._targets = targets
        self._rng = rng
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.carried = dict.fromkeys(targets, 0)

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
        connection = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection of a client, until either side ends it."""
        upstream: _Upstream | None = None
        try:
            while data := await client.read(1 << 16):
                if upstream is None or upstream.has_answered:
                    if upstream is not None:
                        upstream.close()
                    upstream = await self._pick(to_client)
                await upstream.send(data)
        except OSError:
            pass
        finally:
            if upstream is not None:
                upstream.close()
            to_client.transport.abort()

    async def _pick(self, to_client: asyncio.StreamWriter) -> _Upstream:
        """A connection to a server that takes one.

        Raises:
            ConnectionError: None does.
        """
        for port in self._rng.sample(self._targets, len(self._targets)):
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, port)
                self.carried[port] += 1
                return _Upstream(reader, writer, to_client)
        raise ConnectionError("no server takes connections")


class _Upstream:
    """The connection to the server that has the present request."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_client: asyncio.StreamWriter
    ) -> None:
        self._writer = writer
        self.has_answered = False
        self._answers = asyncio.create_task(self._answer(reader, to_client))

    async def send(self, data: bytes) -> None:
        """Pass on what the client says."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """End it."""
        self._answers.cancel()
        self._writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                self.has_answered = True
                to_client.write(data)
                await to_client.drain()
        to_client.transport.abort()
