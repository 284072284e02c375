"""PostgreSQL tables for the tests of the backend."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from treehub_level.backends.postgres import PostgresBackend


class Table:
    """A table of one test.

    Args:
        url: The database.
        name: The name of the table.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._made: list[PostgresBackend] = []

    def backend(self, **options: Any) -> PostgresBackend:
        """Return a new backend for a store in the table, not open. `drop` closes it."""
        made = PostgresBackend(options.pop("url", self.url), **{"table": self.name, "store": "places", **options})
        self._made.append(made)
        return made

    def open(self, **options: Any) -> PostgresBackend:
        """Return a new, open backend."""
        backend = self.backend(**options)
        backend.open()
        return backend

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement with psycopg, and return its rows; ``{}`` stands for the table."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.format(self.name), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows of all stores in the table."""
        return self.query("SELECT store, key, value FROM {} WHERE store <> '' ORDER BY store, key")

    def url_for(self, **changes: Any) -> str:
        """Return the URL of the database with some parameters changed, such as ``port``."""
        given = {**conninfo_to_dict(self.url), **changes}
        password = f":{given['password']}" if "password" in given else ""
        return f"postgresql://{given.get('user', '')}{password}@{given['host']}:{given['port']}/{given['dbname']}"

    def drop(self) -> None:
        """Close all backends, and drop the table."""
        for backend in self._made:
            backend.close()
        self.query("DROP TABLE IF EXISTS {}")
