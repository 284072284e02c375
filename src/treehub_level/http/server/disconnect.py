"""Clients that have closed their connection: a request of such a client is not worked on.

asyncio reads the end of a connection at its next turn, and so after it has started a request that
arrived before the end. That matters after a process was stopped for a while, or a machine was
suspended: each client has sent a request meanwhile, has waited in vain, and has left. So the
kernel is asked, right before the work.
"""

from __future__ import annotations

import asyncio
import select
from typing import Final

from starlette.types import Receive, Scope

#: The key of the ASGI scope that holds a function: True once the client has gone. Absent under
#: another server than `HubServer`. Any thread may call the function.
IS_GONE: Final = "treehub_level.is_gone"

#: The end of the peer's side; 0 where the system reports it by ``POLLHUP``, or not at all.
_END_OF_PEER: Final[int] = getattr(select, "POLLRDHUP", 0)


class DisconnectedError(Exception):
    """The client closed the connection, so no response can be sent. Never leaves the server."""


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Return True if the peer of a connection has closed it, also if asyncio has not noticed yet.

    A peer that has closed only its own side counts, too: asyncio closes the connection then.
    """
    if transport.is_closing():
        return True
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(select, "poll"):  # Windows
        return False
    descriptor = connection.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, _END_OF_PEER)
    return bool(poll.poll(0))


def is_gone(scope: Scope) -> bool:
    """Return True if it is known that the client of a request has closed the connection."""
    ask = scope.get(IS_GONE)
    return ask is not None and ask()


def check_present(scope: Scope) -> None:
    """Check that the client of a request has not closed the connection.

    Raises:
        DisconnectedError: It has.
    """
    if is_gone(scope):
        raise DisconnectedError


async def wait_for_disconnect(receive: Receive) -> None:
    """Return once the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
