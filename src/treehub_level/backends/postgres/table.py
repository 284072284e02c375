"""The table of the stores: its creation and its checks; and the optional features of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors

from ...errors import StorageError
from .errors import message_of, translate_errors
from .settings import Settings
from .statements import BYTEA

_TEXT: Final = 25
_COLUMNS: Final = [("store", _TEXT), ("key", BYTEA), ("value", BYTEA)]
_PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

#: Attempts to find or create the table while another process creates it at the same time.
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class ServerFeatures:
    """The optional features of a server.

    Attributes:
        reports_start_time: ``pg_postmaster_start_time()`` works.
        can_notify: ``pg_notify()`` works, and the settings allow it.
        can_listen: LISTEN works too: no connection pooler stands in between, which might run each
            transaction on another server connection.
    """

    reports_start_time: bool
    can_notify: bool
    can_listen: bool


def detect_features(connection: psycopg.Connection[Any], settings: Settings) -> ServerFeatures:
    """Try the optional features on a connection."""
    can_notify = settings.notify and _accepts(connection, f"SELECT pg_notify('{settings.channel}', '')")
    backend_pid = connection.execute("SELECT pg_backend_pid()").fetchone() if can_notify else None
    return ServerFeatures(
        reports_start_time=_accepts(connection, "SELECT pg_postmaster_start_time()"),
        can_notify=can_notify,
        # A pooler announces a process id of its own when a client connects.
        can_listen=backend_pid is not None and backend_pid[0] == connection.info.backend_pid,
    )


def ensure_table(connection: psycopg.Connection[Any], settings: Settings) -> None:
    """Create the table if it does not exist, and check its columns, its key and our privileges.

    Raises:
        StorageError: The table belongs to another program, or the user lacks a privilege.
    """
    with translate_errors(settings.label, connection):
        for _ in range(_ATTEMPTS):
            if _exists(connection, settings):
                break
            _create(connection, settings)
        _check_privileges(connection, settings)
        _check_key(connection, settings)


def table_exists(connection: psycopg.Connection[Any], settings: Settings) -> bool:
    """Return True if the table exists. Creates nothing.

    Raises:
        StorageError: The table belongs to another program, or the user lacks a privilege.
    """
    with translate_errors(settings.label, connection):
        exists = _exists(connection, settings)
        if exists:
            _check_privileges(connection, settings)
        return exists


def _exists(connection: psycopg.Connection[Any], settings: Settings) -> bool:
    try:
        columns = connection.execute(f"SELECT * FROM {settings.table} LIMIT 0").description or []
    except errors.UndefinedTable:
        return False
    except errors.InsufficientPrivilege as error:
        raise _privilege_error(settings, "SELECT", message_of(error)) from error
    if [(column.name, column.type_code) for column in columns] != _COLUMNS:
        names = ", ".join(column.name for column in columns)
        raise _foreign_table_error(settings, f"its columns are {names:.200}, not store text, key bytea, value bytea")
    return True


def _create(connection: psycopg.Connection[Any], settings: Settings) -> None:
    try:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {settings.table} "
            "(store text NOT NULL, key bytea NOT NULL, value bytea NOT NULL, PRIMARY KEY (store, key))"
        )
    except (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateObject):
        pass  # another process created the table at the same time
    except errors.InsufficientPrivilege as error:
        raise _privilege_error(settings, "CREATE", message_of(error)) from error
    except errors.InvalidSchemaName as error:
        raise StorageError(
            f"cannot create the table {settings.table} in {settings.label}: {message_of(error)}. "
            "Create the schema first"
        ) from error


def _check_privileges(connection: psycopg.Connection[Any], settings: Settings) -> None:
    columns = ", ".join(f"has_table_privilege('{settings.table}', '{privilege}')" for privilege in _PRIVILEGES)
    granted = connection.execute(f"SELECT {columns}").fetchone() or ()
    if missing := [privilege for privilege, has in zip(_PRIVILEGES, granted, strict=True) if not has]:
        raise _privilege_error(settings, ", ".join(missing), "it is not granted")


def _check_key(connection: psycopg.Connection[Any], settings: Settings) -> None:
    """Check with EXPLAIN, which writes nothing, that (store, key) is the primary key."""
    try:
        connection.execute(
            f"EXPLAIN INSERT INTO {settings.table} (store, key, value) VALUES ('', '', '') "
            "ON CONFLICT (store, key) DO UPDATE SET value = excluded.value"
        )
    except psycopg.DatabaseError as error:
        if error.sqlstate is None:
            raise
        reason = f"it cannot be written to by the primary key (store, key): {message_of(error)}"
        raise _foreign_table_error(settings, reason) from error


def _accepts(connection: psycopg.Connection[Any], statement: str) -> bool:
    """Return True if the server runs a statement without an error."""
    try:
        connection.execute(statement)
    except psycopg.DatabaseError as error:
        if connection.closed or error.sqlstate is None:
            raise
        return False
    return True


def _privilege_error(settings: Settings, privileges: str, reason: str) -> StorageError:
    return StorageError(
        f"the user of {settings.label} lacks the privilege {privileges} for the table {settings.table}: {reason}. "
        "Grant the privilege, or choose another table"
    )


def _foreign_table_error(settings: Settings, reason: str) -> StorageError:
    return StorageError(
        f"the table {settings.table} in {settings.label} belongs to another program: {reason}. Choose another table"
    )
