"""Everything that treehub-level raises on purpose.

    LevelError(code)
    ├── StateError              LEVEL_STATE
    │   └── NotOpenError        LEVEL_DATABASE_NOT_OPEN
    ├── LockedError             LEVEL_LOCKED
    ├── ModeError               LEVEL_MODE
    │   └── ModeMismatchError   LEVEL_MODE_MISMATCH
    ├── InvalidKeyError         LEVEL_INVALID_KEY        (also ValueError)
    ├── InvalidValueError       LEVEL_INVALID_VALUE      (also ValueError)
    ├── DecodeError             LEVEL_DECODE
    ├── CorruptionError         LEVEL_CORRUPTION
    ├── StorageError            LEVEL_STORAGE            (also OSError)
    │   ├── CommitUnknownError  LEVEL_COMMIT_UNKNOWN
    │   └── UnavailableError    LEVEL_UNAVAILABLE
    ├── BackendNotFoundError    LEVEL_BACKEND_NOT_FOUND
    └── SyncError               LEVEL_SYNC
        ├── CIDMismatchError    LEVEL_CID_MISMATCH
        ├── StoreMismatchError  LEVEL_STORE_MISMATCH
        ├── ProtocolError       LEVEL_PROTOCOL
        │   └── ForbiddenError  LEVEL_FORBIDDEN
        └── TransportError      LEVEL_TRANSPORT

Codes are stable, messages are not: programs compare ``error.code``, people read ``str(error)``.
An argument of a wrong type is a plain ``TypeError``. No vendor's exception escapes: each is
translated in the one file that names that vendor, and chained as ``__cause__``.
An error leaves the store as it was; ``CommitUnknownError`` alone leaves that open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class LevelError(Exception):
    """The root of the tree: ``except LevelError`` catches everything raised here on purpose.

    Attributes:
        code: A stable, machine-readable name of the error class.
    """

    code: ClassVar[str] = "LEVEL_ERROR"


class StateError(LevelError):
    """The call does not fit the moment: opened twice, closed twice, a store that needs an upgrade."""

    code = "LEVEL_STATE"


class NotOpenError(StateError):
    """A verb was called on a level that is not open (never opened, closing, or closed)."""

    code = "LEVEL_DATABASE_NOT_OPEN"


class LockedError(LevelError):
    """Another process, or another ``Level`` in this one, holds the directory open."""

    code = "LEVEL_LOCKED"


class ModeError(LevelError):
    """A verb of another mode was called."""

    code = "LEVEL_MODE"


class ModeMismatchError(ModeError):
    """The store was made in another mode than the one it is opened in."""

    code = "LEVEL_MODE_MISMATCH"


class InvalidKeyError(LevelError, ValueError):
    """A key that this mode cannot hold. Nothing was written."""

    code = "LEVEL_INVALID_KEY"


class InvalidValueError(LevelError, ValueError):
    """A value that could not come back equal. Nothing was written."""

    code = "LEVEL_INVALID_VALUE"


class DecodeError(LevelError):
    """Stored bytes are not what the encoding promises. The message names the key."""

    code = "LEVEL_DECODE"


class CorruptionError(LevelError):
    """The engine, or a record of the store's own, found bytes that it cannot have written."""

    code = "LEVEL_CORRUPTION"


class StorageError(LevelError, OSError):
    """The engine could not read or write: no such directory, no right, no space, a broken disk."""

    code = "LEVEL_STORAGE"


class CommitUnknownError(StorageError):
    """The answer to a commit was lost: it was written, all of it, or not at all, and nobody can tell which from here.

    ``sync()`` finds out by itself, by repeating what it asked. Whoever wrote by hand reads, and decides.
    """

    code = "LEVEL_COMMIT_UNKNOWN"


class UnavailableError(StorageError):
    """A shared store cannot be reached, or is too busy, at the moment. Nothing was written: try again later.

    Attributes:
        undone: Whether the database took a transaction back since it got in another one's way. The engine has tried
            again then, some times.
    """

    code = "LEVEL_UNAVAILABLE"
    retryable = False


class BackendNotFoundError(LevelError):
    """No backend of that name is registered. The message names those that are, and what to install."""

    code = "LEVEL_BACKEND_NOT_FOUND"


class SyncError(LevelError):
    """Replication could not go on. The store is whole, and ``sync()`` may be called again."""

    code = "LEVEL_SYNC"


class CIDMismatchError(SyncError):
    """A change id other than the one that the step needs.

    Attributes:
        expected: The CID that would have been right (or the lowest that would).
        got: The CID that was given.
    """

    code = "LEVEL_CID_MISMATCH"

    def __init__(self, message: str, *, expected: int, got: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got

    def __reduce__(self) -> tuple[object, ...]:
        return _cid_mismatch, (str(self), self.expected, self.got)


def _cid_mismatch(message: str, expected: int, got: int) -> CIDMismatchError:
    return CIDMismatchError(message, expected=expected, got=got)


class StoreMismatchError(SyncError):
    """The other side is not the store that this one has synchronised with."""

    code = "LEVEL_STORE_MISMATCH"


class ProtocolError(SyncError):
    """A malformed or impossible message. Nothing was written."""

    code = "LEVEL_PROTOCOL"


class ForbiddenError(ProtocolError):
    """A message that asks for more than its sender may see or change. Nothing was written.

    Attributes:
        keys: Of local changes that may not be pushed, the first 1000, if that is all that went wrong.
    """

    code = "LEVEL_FORBIDDEN"

    def __init__(self, message: str, *, keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.keys = [*keys]


class TransportError(SyncError):
    """The server could not be reached, did not answer in time, or refused.

    Attributes:
        status: The HTTP status, or ``None`` where there was no answer.
        retry_after: Seconds after which the server asks to be tried again, or ``None`` if it does not say.
        keys: The keys of changes that are too large to be sent (status 413), if that is all that went wrong.
    """

    code = "LEVEL_TRANSPORT"

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None, keys: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.keys = [*keys]
