"""Many connections ask for large pages, and read nothing, or 4 KB every 15 seconds."""

from __future__ import annotations

import asyncio
import json
import socket

from . import Attack, Target

#: The number of connections. One in four reads a little.
CONNECTIONS = 200
_SLOW_BYTES, _SLOW_SECONDS = 4096, 15.0
#: Seconds between two attempts to connect.
_PAUSE = 1.0

_EXCHANGE = json.dumps(
    {
        "protocol": 2,
        "server": None,
        "client": "ab" * 16,
        "cid": 0,
        "hi": 0,
        "epochs": [],
        "seq": 0,
        "nonce": "cd" * 16,
        "changes": [],
        "limit": 1000,
        "push": None,
    }
).encode()


def request(target: Target, number: int) -> bytes:
    """Return a request for a page of 8 MiB. Its route and its coding depend on the number."""
    route = ("changes?since=0&limit=1000", "entries?limit=1000", "watch?since=0", "exchange")[number % 4]
    head = [
        f"{'POST' if route == 'exchange' else 'GET'} /v1/notes/{route} HTTP/1.1",
        f"Host: 127.0.0.1:{target.port}",
        f"Authorization: Bearer {target.token}",
        f"Accept-Encoding: {('identity', 'zstd', 'gzip')[max(0, number % 8 - 5)]}",
    ]
    body = b""
    if route == "exchange":
        body = _EXCHANGE
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


async def _hold(target: Target, number: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, ("127.0.0.1", target.port))
                await loop.sock_sendall(connection, request(target, number))
                if number % 4:
                    await asyncio.sleep(3600)
                while await loop.sock_recv(connection, _SLOW_BYTES):  # noqa: ASYNC110
                    await asyncio.sleep(_SLOW_SECONDS)
            except OSError:
                pass
        await asyncio.sleep(_PAUSE)


async def run(target: Target) -> None:
    """Hold all connections, and open each again once the server has closed it."""
    await asyncio.gather(*(_hold(target, number) for number in range(CONNECTIONS)))


ATTACK = Attack(
    run,
    memory=200,
    seed=520,
    record_bytes=16 << 10,
    # There is always room for a page.
    control=(
        "from treehub_level.http.server.response_budget import ResponseBudget;"
        "ResponseBudget.take_for_page = lambda budget, token, most: most;"
    ),
)
