"""Refusals: HTTP error responses with a status, a stable code, and a message for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import (
    CheckError,
    CIDMismatchError,
    CommitUnknownError,
    ConditionError,
    CorruptionError,
    DecodeError,
    ForbiddenError,
    InvalidKeyError,
    InvalidValueError,
    LevelError,
    LockedError,
    NotOpenError,
    ProtocolError,
    Refused,
    StorageError,
    StoreMismatchError,
    TransportError,
    UnavailableError,
)

#: Seconds in ``Retry-After`` while other requests use the resource.
RETRY_SOON: Final = 1
#: Seconds in ``Retry-After`` if an operator may have to act first.
RETRY_LATER: Final = 5


class RefusedError(LevelError):
    """The server refuses a request: an HTTP error response, as an exception.

    `Hub.use` raises it, too, for a program that uses a hub directly.

    Args:
        status: The HTTP status.
        code: The stable, machine-readable name of the error.
        message: The explanation, for people.
        headers: Further headers of the response.
        details: Further members of the response body.

    Attributes:
        status: The HTTP status.
        code: The stable, machine-readable name of the error. It differs from refusal to refusal.
        headers: Further headers of the response.
        details: Further members of the response body.
    """

    code: str  # type: ignore[misc]  # one class for all refusals, so the code is the instance's

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.status, self.code, str(self), self.headers, self.details)

    def body(self) -> dict[str, Any]:
        """Return the members of the response body."""
        return {"code": self.code, "message": str(self), **self.details}


def _rebuild(
    status: int, code: str, message: str, headers: Mapping[str, str], details: Mapping[str, Any]
) -> RefusedError:
    return RefusedError(status, code, message, headers=headers, details=details)


def unauthorized() -> RefusedError:
    """Return the refusal of a request without a valid token.

    It does not reveal if the token is missing, unknown, expired or revoked.
    """
    return RefusedError(
        401,
        "LEVEL_UNAUTHORIZED",
        "a valid token is needed: send the header `Authorization: Bearer <id>.<secret>`",
        headers={"www-authenticate": "Bearer"},
    )


def database_not_found() -> RefusedError:
    """Return the refusal for a database that does not exist or that the token does not cover."""
    return RefusedError(
        404,
        "LEVEL_DATABASE_NOT_FOUND",
        "there is no such database on this server, or the token does not cover it",
    )


def is_temporary(error: Exception) -> bool:
    """Return True if a database cannot be opened at the moment, and a waiting request may go on."""
    return isinstance(error, LockedError) or (isinstance(error, RefusedError) and error.code == "LEVEL_BUSY")


def bad_request(message: str) -> RefusedError:
    """Return the refusal of a malformed request."""
    return RefusedError(400, ProtocolError.code, message)


def forbidden(message: str) -> RefusedError:
    """Return the refusal of a request that the token does not allow."""
    return RefusedError(403, ForbiddenError.code, message)


def retry_later(status: int, code: str, message: str, *, seconds: int = RETRY_SOON) -> RefusedError:
    """Return a refusal with a ``Retry-After`` header of so many seconds."""
    return RefusedError(status, code, message, headers={"retry-after": str(seconds)})


def server_closing() -> RefusedError:
    """Return the refusal of a request that arrives while the server stops."""
    return retry_later(503, "LEVEL_CLOSING", "the server is about to stop: try again in a moment")


def too_many_connections() -> RefusedError:
    """Return the refusal of a request on a connection beyond the limits, which is then closed."""
    return RefusedError(
        503,
        "LEVEL_BUSY",
        "too many connections to the server, or from your address, are in use: try again in a moment",
        headers={"retry-after": str(RETRY_SOON), "connection": "close"},
    )


def refusal_for(error: Exception) -> RefusedError:
    """Return the refusal for an error that a route raised.

    An unexpected error becomes a status 500 whose message reveals nothing about the error.
    """
    message = str(error)
    match error:
        case RefusedError():
            return error
        case CIDMismatchError():
            return RefusedError(409, error.code, message, details={"expected": error.expected, "got": error.got})
        case StoreMismatchError():
            # Not 421: clients may repeat such a request, and the fetch of Node 20 cannot read it.
            return RefusedError(409, error.code, message)
        case ForbiddenError():
            return RefusedError(403, error.code, message)
        case Refused():
            return RefusedError(422, error.code, message, details={"reason": error.reason, "keys": error.keys})
        case TransportError() if error.status == 413:
            return RefusedError(413, "LEVEL_TOO_LARGE", message)
        case CheckError():
            return RefusedError(500, error.code, "the check of this server failed: see its log, and try again later")
        case ConditionError():
            return RefusedError(412, error.code, message)
        case ProtocolError() | InvalidKeyError() | InvalidValueError():
            return RefusedError(400, error.code, message)
        case LockedError():
            return retry_later(
                503, error.code, "another process has this database open: try again later", seconds=RETRY_LATER
            )
        case NotOpenError():
            return retry_later(503, error.code, "this database is closed: try again later", seconds=RETRY_LATER)
        case UnavailableError():
            return retry_later(503, error.code, "the database is unreachable or too busy: try again in a moment")
        case CommitUnknownError():
            return retry_later(
                503,
                error.code,
                "the connection to the database was lost during the commit, so the write may have been stored: "
                "repeat an exchange; after any other write, read first",
            )
        case StorageError():
            return retry_later(
                503, error.code, "the server could not read or write its storage: try again later", seconds=RETRY_LATER
            )
        case CorruptionError() | DecodeError():
            return RefusedError(500, error.code, "this database is damaged: see the server's log")
        case LevelError():
            return RefusedError(500, error.code, "this database cannot be served: see the server's log")
    return RefusedError(500, "LEVEL_INTERNAL", "the server failed: see its log")
