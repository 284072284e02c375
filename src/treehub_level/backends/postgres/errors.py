"""From psycopg's exceptions to ours. What they say names hosts, users and tables, and never a password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from ...errors import CommitUnknownError, LevelError, StorageError, UnavailableError

#: SQLSTATE: the transaction was undone since it got in another one's way. Trying again helps.
_UNDONE: Final = frozenset({"40001", "40P01"})
#: SQLSTATE: a distributed database does not know whether it committed.
_UNKNOWN: Final = "40003"
#: SQLSTATE, classes and single ones: the connection is gone or is being ended, or cannot be had now.
_LOST: Final = ("08", "57P", "25P03", "25P04", "53300")
#: SQLSTATE: waited too long for a lock; worked too long.
_TOO_SLOW: Final = frozenset({"55P03", "57014"})
#: SQLSTATE, with what to do about it.
_HINTS: Final = {
    "25P03": ". Write smaller batches, or open the store with a longer lock_timeout",
    "25006": ". Writes need the primary: add target_session_attrs=read-write to the URL, and name all hosts in it",
    "42501": ". Have that right granted to the user in the URL",
    "42P01": ". It was there when the store was opened: close the store and open it again",
}

#: What a server, a pooler, or libpq itself, says to somebody whom it will refuse again. (These are words alone.)
_REFUSED: Final = re.compile(
    "authentication|password|does not exist|no such|pg_hba|permission denied|not permitted|unsupported|certificate|SSL|"
    "invalid [a-z_ ]*(value|number)|bad value"
)


def words(error: psycopg.Error) -> str:
    """What went wrong, in one line, without libpq's questions."""
    lines = (error.diag.message_primary or str(error) or type(error).__name__).splitlines()
    return " ".join(" ".join(line for line in lines if not line.endswith("?")).split())


def is_lost(error: psycopg.Error, connection: psycopg.Connection[Any]) -> bool:
    """Whether the connection went away, rather than that a statement failed on it."""
    return connection.broken or connection.closed or (error.sqlstate or "").startswith(_LOST)


def not_connected(label: str, error: psycopg.Error) -> StorageError:
    """The exception for a connection that could not be made."""
    said = words(error)
    if _REFUSED.search(said):
        return StorageError(f"the server refuses {label}: {said}. Check the URL, and what the user in it may do")
    return UnavailableError(f"cannot reach {label}: {said}. Try again later")


def failed(label: str, error: psycopg.Error, connection: psycopg.Connection[Any]) -> LevelError:
    """The exception for a statement that failed before a COMMIT was sent: nothing was written."""
    said, state = words(error), error.sqlstate or ""
    if state in _UNDONE:
        retryable = UnavailableError(f"{label} undid a transaction that got in another one's way: {said}. Try again")
        retryable.retryable = True
        return retryable
    if state in _TOO_SLOW:
        return UnavailableError(f"{label} is too busy: {said}. Nothing was written: try again later")
    if is_lost(error, connection):
        return UnavailableError(
            f"the connection to {label} was lost: {said}. Nothing was written: try again{_HINTS.get(state, '')}"
        )
    return StorageError(f"{label} failed: {said}{_HINTS.get(state, '')}")


def commit_failed(label: str, error: psycopg.Error, connection: psycopg.Connection[Any]) -> LevelError:
    """The exception for a COMMIT, or what was sent with it, that failed."""
    if error.sqlstate == _UNKNOWN or is_lost(error, connection):
        return CommitUnknownError(
            f"the answer of {label} to a COMMIT was lost: {words(error)}. All of it was written, or nothing: "
            "read to find out which"
        )
    return failed(label, error, connection)


@contextmanager
def translated(label: str, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Have what psycopg raises in the block leave it as `failed` says."""
    try:
        yield
    except psycopg.Error as error:
        raise failed(label, error, connection) from error
