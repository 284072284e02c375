"""Watches and long polls on more databases than the server keeps open."""

from __future__ import annotations

import asyncio

from . import Attack, Target

#: The number of databases. ``treehub-level serve`` keeps 32 open.
DATABASES = 40
#: Seconds before a request that has ended begins again.
_PAUSE = 0.1


async def _watch(target: Target, number: int) -> None:
    route = ("watch?since=0", "changes?since=0&wait=60")[number % 2]
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(
                f"GET /v1/other-{number}/{route} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
                f"Authorization: Bearer {target.token}\r\nConnection: close\r\n\r\n".encode()
            )
            while await reader.read(1 << 16):
                pass
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(_PAUSE)


async def run(target: Target) -> None:
    """Watch all databases."""
    await asyncio.gather(*(_watch(target, number) for number in range(DATABASES)))


ATTACK = Attack(
    run,
    memory=200,
    databases=DATABASES,
    control_seconds=15,  # an honest client repeats its requests, for 10 s
    # A database with a watch counts as being in use.
    control=(
        "from treehub_level.http.server.hub import Hub;"
        "Hub._may_close = lambda hub, name, found: not (found.references or name in hub._subscriptions);"
    ),
)
