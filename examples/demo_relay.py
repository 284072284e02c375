"""The bad network of the demo: a TCP relay before the server that cuts all connections when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

HOST = "127.0.0.1"


class Relay:
    """Listens on a port of its own, and passes on what comes, in both directions. It knows nothing of HTTP.

    Args:
        target: The port of the server.
        on_cut: Is told how many bytes had come from the server, each time that the connections are
            cut.

    Attributes:
        port: The port that it listens on.
        cuts: How often the connections were cut.
    """

    def __init__(self, target: int, on_cut: Callable[[int], None]) -> None:
        self._target = target
        self._on_cut = on_cut
        self._carried = 0
        self._cut_at: list[int] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts = 0

    def cut_after(self, counts: Iterable[int]) -> None:
        """Cut when so many bytes more have come from the server, counted from now on for each."""
        self._cut_at = sorted(self._carried + count for count in counts)

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
        connection = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it or it is cut."""
        with suppress(OSError):
            try:
                from_server, to_server = await asyncio.open_connection(HOST, self._target)
                try:
                    requests = asyncio.create_task(self._requests(from_client, to_server))
                    try:
                        await self._replies(from_server, to_client)
                    finally:
                        requests.cancel()
                finally:
                    to_server.transport.abort()
            finally:
                to_client.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self._cut_at and self._carried + len(data) > self._cut_at[0]:
                data = data[: self._cut_at.pop(0) - self._carried]
                self.cuts += 1
                self._on_cut(self._carried + len(data))
                self._cut()
            self._carried += len(data)
            writer.write(data)
            await writer.drain()

    def _cut(self) -> None:
        """End all connections at once; what has not been passed on is lost."""
        for connection in self._connections:
            connection.cancel()
