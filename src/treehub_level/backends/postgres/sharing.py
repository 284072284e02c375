"""What all stores of a process share that are in one table: the connections, and who hears of commits.

A server of a hundred stores would need hundreds of connections otherwise, and PostgreSQL takes a hundred in all.
"""

from __future__ import annotations

import threading
from typing import Final

from .connections import Connections, connect
from .listener import PostgresListener
from .schema import abilities, prepare
from .settings import Settings


class SharedTable:
    """The connections to a table, and what is at their other end. Made and ended by `acquire` and `release`.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: Settings) -> None:
        with connect(settings) as connection:
            prepare(connection, settings)
            self.abilities = abilities(connection, settings)
        self.settings = settings
        self.users = 0
        self.connections = Connections(settings)
        self.listener = PostgresListener(settings, listens=self.abilities.listens)

    def close(self) -> None:
        """Close every connection."""
        self.listener.close()
        self.connections.close()


_lock: Final = threading.Lock()
_in_use: Final[dict[Settings, SharedTable]] = {}


def acquire(settings: Settings) -> SharedTable:
    """Take part in what there is, or make it.

    Raises:
        UnavailableError: The server cannot be reached at the moment.
        StorageError: It will not have us, or the table is not one for stores.
    """
    with _lock:
        shared = _in_use.get(settings)
        if shared is None:
            shared = _in_use[settings] = SharedTable(settings)
        shared.users += 1
        return shared


def release(shared: SharedTable) -> None:
    """Take part no more. Whoever does so last closes it."""
    with _lock:
        shared.users -= 1
        if shared.users:
            return
        del _in_use[shared.settings]
    shared.close()
