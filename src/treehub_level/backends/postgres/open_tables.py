"""The tables that this process has open, with the resources that the stores in a table share.

All stores of a process in one table share one connection pool and one listener. Without that, a
server of a hundred stores would need hundreds of connections; PostgreSQL accepts 100 by default.
"""

from __future__ import annotations

from typing import Final

from ...locks import ErrorCheckingLock
from .listener import PostgresListener
from .pool import LimitedPool, connect
from .settings import Settings
from .table import detect_features, ensure_table


class OpenTable:
    """The connection pool and the listener of a table.

    `acquire_table` makes it, `release_table` closes it.

    Args:
        settings: The settings of the table. The constructor creates the table if it does not exist.

    Attributes:
        features: The optional features of the server.
        pool: The connection pool.
        listener: The listener for commits of other processes.
        users: The number of stores that use this object.
    """

    def __init__(self, settings: Settings) -> None:
        with connect(settings) as connection:
            ensure_table(connection, settings)
            self.features = detect_features(connection, settings)
        self.settings = settings
        self.users = 0
        self.pool = LimitedPool(settings)
        self.listener = PostgresListener(settings, can_listen=self.features.can_listen)

    def close(self) -> None:
        """Stop the listener and close all connections."""
        self.listener.close()
        self.pool.close()


_lock: Final = ErrorCheckingLock("open or close a store in PostgreSQL")
_open_tables: Final[dict[Settings, OpenTable]] = {}


def acquire_table(settings: Settings) -> OpenTable:
    """Return the open table for some settings, and count its users up; open it if it is not open.

    Raises:
        UnavailableError: The server cannot be reached at the moment.
        StorageError: The server refuses the connection, or the table belongs to another program.
    """
    with _lock.entry():
        table = _open_tables.get(settings)
        if table is None:
            table = _open_tables[settings] = OpenTable(settings)
        table.users += 1
        return table


def release_table(table: OpenTable) -> None:
    """Count the users of an open table down, and close it after the last."""
    with _lock.entry():
        table.users -= 1
        if table.users:
            return
        del _open_tables[table.settings]
    table.close()
