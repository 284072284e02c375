"""The translation of psycopg's exceptions.

Their messages may name hosts, users and tables, but never a password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.pq import Conninfo

from ...errors import CommitUnknownError, LevelError, StorageError, UnavailableError
from ..disk_space import disk_full_error

#: SQLSTATE serialization_failure and deadlock_detected: the transaction was rolled back and can be
#: retried.
_ROLLED_BACK: Final = frozenset({"40001", "40P01"})
#: SQLSTATE statement_completion_unknown: a distributed database cannot tell if the commit
#: succeeded.
_COMMIT_UNKNOWN: Final = "40003"
#: SQLSTATE classes and codes of a connection that was lost, is being closed, or cannot be made now.
_CONNECTION_LOST: Final = ("08", "57P", "25P03", "25P04", "53300")
#: SQLSTATE lock_not_available and query_canceled: lock_timeout or statement_timeout expired.
_TIMED_OUT: Final = frozenset({"55P03", "57014"})
#: SQLSTATE disk_full.
_DISK_FULL: Final = "53100"
#: The remedy for some SQLSTATE codes.
_HINTS: Final = {
    "25P03": ". Write smaller batches, or open the store with a longer lock_timeout",
    "25006": ". Writes need the primary: add target_session_attrs=read-write to the URL, and name all hosts in it",
    "42501": ". Grant that privilege to the user in the URL",
    "42P01": ". The table existed when the store was opened: close the store and open it again",
}

#: Messages of the server, a pooler or libpq about a connection that a retry cannot fix. There is no
#: code.
_REFUSED: Final = re.compile(
    "authentication|password|does not exist|no such|pg_hba|permission denied|not permitted|unsupported|certificate|SSL|"
    "invalid [a-z_ ]*(value|number)|bad value|could not parse|credential cache|"
    # A setting of the environment: PGSERVICE, PGSERVICEFILE, PGSSLMINPROTOCOLVERSION, PGOPTIONS.
    'definition of service|service file|invalid "|unrecognized configuration|requires a '
)
#: Variables that libpq reads besides those of its connection parameters.
_OTHER_VARIABLES: Final = ("PGDATESTYLE", "PGGEQO", "PGSERVICEFILE", "PGSYSCONFDIR", "PGTZ")


def message_of(error: psycopg.Error) -> str:
    """Return the message of an error as one line, without the questions that libpq appends."""
    lines = (error.diag.message_primary or str(error) or type(error).__name__).splitlines()
    return " ".join(" ".join(line for line in lines if not line.endswith("?")).split())


def is_connection_lost(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Return True if the connection broke, False if a statement failed on it."""
    return connection.broken or connection.closed or (error.sqlstate or "").startswith(_CONNECTION_LOST)


def connection_error(label: str, error: psycopg.Error) -> StorageError:
    """Return the exception for a failed connection attempt."""
    message = message_of(error)
    if _REFUSED.search(message):
        return StorageError(
            f"the server refuses {label}: {message}. Check the URL, and the privileges of the user in it"
            f"{_environment_hint()}"
        )
    return UnavailableError(f"cannot reach {label}: {message}. Try again later")


def _environment_hint() -> str:
    """Return the names of the variables that libpq has read, as the end of a sentence."""
    known = [option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar]
    given = sorted(name for name in (*known, *_OTHER_VARIABLES) if os.environ.get(name))
    return f"; the environment sets {', '.join(given)}" if given else ""


def statement_error(label: str, error: psycopg.Error, connection: psycopg.Connection[Any]) -> LevelError:
    """Return the exception for a statement that failed before COMMIT: nothing was written."""
    message, state = message_of(error), error.sqlstate or ""
    if state in _ROLLED_BACK:
        rolled_back = UnavailableError(
            f"{label} rolled the transaction back (serialization failure or deadlock): {message}. Try again"
        )
        rolled_back.retryable = True
        return rolled_back
    if state in _TIMED_OUT:
        return UnavailableError(f"{label} is too busy: {message}. Nothing was written: try again later")
    if is_connection_lost(error, connection):
        return UnavailableError(
            f"the connection to {label} was lost: {message}. Nothing was written: try again{_HINTS.get(state, '')}"
        )
    if state == _DISK_FULL:
        return disk_full_error(
            f"{label} failed: {message}. Nothing was written. Delete data and compact the store, or free space on the "
            "disk of the server"
        )
    return StorageError(f"{label} failed: {message}{_HINTS.get(state, '')}")


def commit_error(label: str, error: psycopg.Error, connection: psycopg.Connection[Any]) -> LevelError:
    """Return the exception for a COMMIT, or a statement sent together with it, that failed."""
    if error.sqlstate == _COMMIT_UNKNOWN or is_connection_lost(error, connection):
        return CommitUnknownError(
            f"the reply of {label} to COMMIT was lost: {message_of(error)}. The whole transaction was written, or "
            "nothing: read the data to find out which"
        )
    return statement_error(label, error, connection)


@contextmanager
def translate_errors(label: str, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Translate psycopg's exceptions in the block with `statement_error`."""
    try:
        yield
    except psycopg.Error as error:
        raise statement_error(label, error, connection) from error
