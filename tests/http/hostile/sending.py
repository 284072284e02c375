"""Raw HTTP requests for attacks that an HTTP client would not send."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .attacks import Target


def head(target: Target, method: str, path: str, length: int, *headers: str) -> bytes:
    """Return the head of a request with a JSON body of ``length`` bytes."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {target.token}",
        "content-type: application/json",
        f"content-length: {length}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def send(target: Target, request: bytes, seconds: float | None = None) -> None:
    """Send a request, and read the response until the server closes the connection.

    Args:
        target: The server.
        request: The bytes to send. The last request of a connection has ``connection: close``.
        seconds: Seconds after which to close the connection; ``None`` for never.
    """
    with suppress(OSError, asyncio.TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        try:
            writer.write(request)
            await asyncio.wait_for(reader.read(), seconds)
        finally:
            writer.close()


async def repeat(target: Target, connections: int, request: bytes) -> None:
    """Send a request again and again over several connections at a time."""

    async def loop() -> None:
        while True:
            await send(target, request)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(loop() for _ in range(connections)))
