"""The positions of the clients that have synchronised with this process lately."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

#: The most clients of one database that are remembered: those seen last.
MAX_CLIENTS: Final = 1000
#: Seconds after its last exchange for which a client counts.
SEEN_SECONDS: Final = 24 * 60 * 60.0


class ClientLag(NamedTuple):
    """The clients of one database, and the distances of their CIDs to the CID of the server.

    Attributes:
        clients: The clients that have synchronised in the last 24 hours.
        behind: Those of them that have not received the latest change.
        max_changes: The distance in CIDs of the client that is furthest behind; 0 without one.
    """

    clients: int
    behind: int
    max_changes: int


class ClientPositions:
    """The CID up to which each client of each database has pulled, for the last clients seen.

    Args:
        now: Returns a monotonic time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        #: By database and client id, the client seen last at the end: its CID, and the time.
        self._seen: dict[str, OrderedDict[str, tuple[int, float]]] = {}

    def record(self, database: str, client: str, cid: int) -> None:
        """Record that a client of a database has the changes up to a CID."""
        clients = self._seen.setdefault(database, OrderedDict())
        clients[client] = cid, self._now()
        clients.move_to_end(client)
        if len(clients) > MAX_CLIENTS:
            clients.popitem(last=False)

    def lag(self, database: str, head: int) -> ClientLag:
        """Return how far the clients of a database are behind its CID, ``head``."""
        clients = self._seen.get(database, OrderedDict())
        oldest = self._now() - SEEN_SECONDS
        while clients and next(iter(clients.values()))[1] < oldest:
            clients.popitem(last=False)
        behind = [head - cid for cid, _ in clients.values() if cid < head]
        return ClientLag(len(clients), len(behind), max(behind, default=0))

    def forget(self, databases: set[str]) -> None:
        """Forget the clients of databases that no longer exist.

        Args:
            databases: The databases that exist.
        """
        for name in {*self._seen} - databases:
            del self._seen[name]
