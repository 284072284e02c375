"""What the server answers when it does not do what was asked: a status, a stable code, and a message for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import (
    CIDMismatchError,
    CommitUnknownError,
    CorruptionError,
    DecodeError,
    ForbiddenError,
    InvalidKeyError,
    InvalidValueError,
    LevelError,
    LockedError,
    NotOpenError,
    ProtocolError,
    StorageError,
    StoreMismatchError,
    UnavailableError,
)

#: Seconds after which to come again: soon, where work is waiting; later, where somebody has to do something.
SOON: Final = 1
LATER: Final = 5


class RefusedError(Exception):
    """An answer other than the one asked for.

    Attributes:
        status: The HTTP status.
        code: A stable, machine-readable name.
        headers: Headers of the answer.
        details: Further members of the answer's body.
    """

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

    def body(self) -> dict[str, Any]:
        """What is sent."""
        return {"code": self.code, "message": str(self), **self.details}


def unauthorized() -> RefusedError:
    """No token, or one that is unknown, expired or revoked: which of these it is, is nobody's business."""
    return RefusedError(
        401,
        "LEVEL_UNAUTHORIZED",
        "a valid token is needed: send the header `Authorization: Bearer <id>.<secret>`",
        headers={"www-authenticate": "Bearer"},
    )


def no_database() -> RefusedError:
    """No such database, or one that is none of this token's business."""
    return RefusedError(404, "LEVEL_DATABASE_NOT_FOUND", "there is no such database here")


def malformed(message: str) -> RefusedError:
    """A request that cannot be understood."""
    return RefusedError(400, ProtocolError.code, message)


def forbidden(message: str) -> RefusedError:
    """More than this token allows."""
    return RefusedError(403, ForbiddenError.code, message)


def too_many(status: int, code: str, message: str, *, seconds: int = SOON) -> RefusedError:
    """More than can be done now: come again."""
    return RefusedError(status, code, message, headers={"retry-after": str(seconds)})


def closing() -> RefusedError:
    """The server is about to stop."""
    return too_many(503, "LEVEL_CLOSING", "this server is about to stop: try again in a moment")


def refusal_of(error: Exception) -> RefusedError:
    """The answer for an error that a store raised. What is not expected becomes a 500 that tells nothing of it."""
    message = str(error)
    match error:
        case RefusedError():
            return error
        case CIDMismatchError():
            return RefusedError(409, error.code, message, details={"expected": error.expected, "got": error.got})
        case StoreMismatchError():
            # Not 421: clients may repeat that on another connection, and the fetch of Node 20 cannot read it.
            return RefusedError(409, error.code, message)
        case ForbiddenError():
            return RefusedError(403, error.code, message)
        case ProtocolError() | InvalidKeyError() | InvalidValueError():
            return RefusedError(400, error.code, message)
        case LockedError():
            return too_many(503, error.code, "another process has this database open: try again later", seconds=LATER)
        case NotOpenError():
            return too_many(503, error.code, "this database is closed just now: try again later", seconds=LATER)
        case UnavailableError():
            return too_many(503, error.code, "the database cannot be reached, or is too busy: try again in a moment")
        case CommitUnknownError():
            return too_many(503, error.code, "the database has not said whether it was written: an exchange finds out")
        case StorageError():
            return too_many(503, error.code, "the server could not read or write its disk", seconds=LATER)
        case CorruptionError() | DecodeError():
            return RefusedError(500, error.code, "this database is damaged: the server's log says more")
        case LevelError():
            return RefusedError(500, error.code, "this database cannot be served as it is: the server's log says more")
    return RefusedError(500, "LEVEL_INTERNAL", "the server failed: its log says more")
