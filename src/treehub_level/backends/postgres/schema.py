"""Finding the table, or making it, and finding out what the server can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors

from ...errors import StorageError
from .errors import translated, words
from .settings import Settings
from .statements import BYTEA

_TEXT: Final = 25
_COLUMNS: Final = [("store", _TEXT), ("key", BYTEA), ("value", BYTEA)]
_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

#: How often to look again for a table that somebody else makes at this moment.
_LOOKS: Final = 5


@dataclass(frozen=True)
class Abilities:
    """What a server can do.

    Attributes:
        tells_age: It can say since when it runs.
        tells_commits: It passes on that something was committed.
        listens: Whoever listens hears it: no pooler is in between, which might put us on another connection.
    """

    tells_age: bool
    tells_commits: bool
    listens: bool


def abilities(connection: psycopg.Connection[Any], settings: Settings) -> Abilities:
    """Find out what the server at the other end of a connection can do."""
    told = settings.notify and _takes(connection, f"SELECT pg_notify('{settings.channel}', '')")
    seen = connection.execute("SELECT pg_backend_pid()").fetchone() if told else None
    return Abilities(
        tells_age=_takes(connection, "SELECT pg_postmaster_start_time()"),
        tells_commits=told,
        # A pooler has numbers of its own for the connections that it takes.
        listens=seen is not None and seen[0] == connection.info.backend_pid,
    )


def prepare(connection: psycopg.Connection[Any], settings: Settings) -> None:
    """Make the table if it is missing, and see whether stores can be in it. Otherwise nothing is written.

    Raises:
        StorageError: It is another program's, or a right is missing.
    """
    with translated(settings.label, connection):
        for _ in range(_LOOKS):
            if _is_there(connection, settings):
                break
            _make(connection, settings)
        _check_rights(connection, settings)
        _check_key(connection, settings)


def is_there(connection: psycopg.Connection[Any], settings: Settings) -> bool:
    """Whether there is a table, and it is one that stores can be in.

    Raises:
        StorageError: It is another program's, or a right is missing.
    """
    with translated(settings.label, connection):
        found = _is_there(connection, settings)
        if found:
            _check_rights(connection, settings)
        return found


def _is_there(connection: psycopg.Connection[Any], settings: Settings) -> bool:
    try:
        columns = connection.execute(f"SELECT * FROM {settings.table} LIMIT 0").description or []
    except errors.UndefinedTable:
        return False
    except errors.InsufficientPrivilege as error:
        raise _forbidden(settings, "SELECT", words(error)) from error
    if [(column.name, column.type_code) for column in columns] != _COLUMNS:
        names = ", ".join(column.name for column in columns)
        raise _not_ours(settings, f"its columns are {names:.200}, and not store text, key bytea, value bytea")
    return True


def _make(connection: psycopg.Connection[Any], settings: Settings) -> None:
    try:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {settings.table} "
            "(store text NOT NULL, key bytea NOT NULL, value bytea NOT NULL, PRIMARY KEY (store, key))"
        )
    except (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateObject):
        pass  # PostgreSQL says so to one of two that make it at the same moment
    except errors.InsufficientPrivilege as error:
        raise _forbidden(settings, "CREATE", words(error)) from error
    except errors.InvalidSchemaName as error:
        raise StorageError(
            f"cannot make the table {settings.table} in {settings.label}: {words(error)}. Make the schema first"
        ) from error


def _check_rights(connection: psycopg.Connection[Any], settings: Settings) -> None:
    asked = ", ".join(f"has_table_privilege('{settings.table}', '{right}')" for right in _RIGHTS)
    held = connection.execute(f"SELECT {asked}").fetchone() or ()
    if missing := [right for right, has in zip(_RIGHTS, held, strict=True) if not has]:
        raise _forbidden(settings, ", ".join(missing), "it is not granted")


def _check_key(connection: psycopg.Connection[Any], settings: Settings) -> None:
    """See whether a write would find the key that it relies on, without making one."""
    try:
        connection.execute(
            f"EXPLAIN INSERT INTO {settings.table} (store, key, value) VALUES ('', '', '') "
            "ON CONFLICT (store, key) DO UPDATE SET value = excluded.value"
        )
    except psycopg.DatabaseError as error:
        if error.sqlstate is None:
            raise
        raise _not_ours(settings, f"it cannot be written to by the primary key (store, key): {words(error)}") from error


def _takes(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Whether the server takes a statement."""
    try:
        connection.execute(statement)
    except psycopg.DatabaseError as error:
        if connection.closed or error.sqlstate is None:
            raise
        return False
    return True


def _forbidden(settings: Settings, rights: str, why: str) -> StorageError:
    return StorageError(
        f"the user of {settings.label} lacks the right to {rights} the table {settings.table}: {why}. "
        "Have it granted, or name another table"
    )


def _not_ours(settings: Settings, why: str) -> StorageError:
    return StorageError(
        f"the table {settings.table} in {settings.label} belongs to another program: {why}. Name another table"
    )
