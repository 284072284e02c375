"""The unreliable network of the demo: a TCP relay that cuts all connections on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

HOST = "127.0.0.1"


class Relay:
    """A TCP relay between clients and the server. It forwards bytes in both directions.

    Args:
        target: The port of the server.
        on_cut: Called with the number of bytes relayed from the server, at each cut.

    Attributes:
        port: The port to connect to.
        cuts: The number of cuts so far.
    """

    def __init__(self, target: int, on_cut: Callable[[int], None]) -> None:
        self._target = target
        self._on_cut = on_cut
        self._relayed_bytes = 0
        self._cut_at: list[int] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts = 0

    def cut_after(self, counts: Iterable[int]) -> None:
        """Cut all connections when the server has sent so many more bytes, once for each count."""
        self._cut_at = sorted(self._relayed_bytes + count for count in counts)

    async def __aenter__(self) -> Relay:
        self._listener = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listener.close()
        connections = [*self._connections]
        self._cut()
        await asyncio.gather(*connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._relay(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _relay(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Relay one connection, until either side closes it or it is cut."""
        with suppress(OSError):
            try:
                from_server, to_server = await asyncio.open_connection(HOST, self._target)
                try:
                    requests = asyncio.create_task(self._relay_requests(from_client, to_server))
                    try:
                        await self._relay_replies(from_server, to_client)
                    finally:
                        requests.cancel()
                finally:
                    to_server.transport.abort()
            finally:
                to_client.transport.abort()

    async def _relay_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def _relay_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self._cut_at and self._relayed_bytes + len(data) > self._cut_at[0]:
                data = data[: self._cut_at.pop(0) - self._relayed_bytes]
                self.cuts += 1
                self._on_cut(self._relayed_bytes + len(data))
                self._cut()
            self._relayed_bytes += len(data)
            writer.write(data)
            await writer.drain()

    def _cut(self) -> None:
        """Abort all connections. Bytes that are not relayed yet are lost."""
        for connection in self._connections:
            connection.cancel()
