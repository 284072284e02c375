"""The exceptions of treehub-level.

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
    ├── HistoryError            LEVEL_HISTORY
    ├── StorageError            LEVEL_STORAGE            (also OSError)
    │   ├── CommitUnknownError  LEVEL_COMMIT_UNKNOWN
    │   └── UnavailableError    LEVEL_UNAVAILABLE
    ├── BackendNotFoundError    LEVEL_BACKEND_NOT_FOUND
    ├── ConditionError          LEVEL_CONDITION
    ├── Refused                 LEVEL_REFUSED
    ├── CheckError              LEVEL_CHECK
    └── SyncError               LEVEL_SYNC
        ├── CIDMismatchError    LEVEL_CID_MISMATCH
        ├── StoreMismatchError  LEVEL_STORE_MISMATCH
        ├── ProtocolError       LEVEL_PROTOCOL
        │   └── ForbiddenError  LEVEL_FORBIDDEN
        └── TransportError      LEVEL_TRANSPORT

Codes are stable, messages are not: programs compare ``error.code``, people read ``str(error)``.
An argument of a wrong type raises a plain ``TypeError``. Exceptions of the libraries below are
translated where the library is used, and chained as ``__cause__``. After an error the store is
unchanged; only after ``CommitUnknownError`` it is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from errno import ENOSPC
from typing import Any, ClassVar


class LevelError(Exception):
    """The base class: ``except LevelError`` catches every exception of this package.

    Attributes:
        code: The stable name of the error, for programs.
    """

    code: ClassVar[str] = "LEVEL_ERROR"


class StateError(LevelError):
    """The call does not fit the state: opened twice, closed twice, or an upgrade is needed."""

    code = "LEVEL_STATE"


class NotOpenError(StateError):
    """The level is not open: it was never opened, is closing, or is closed."""

    code = "LEVEL_DATABASE_NOT_OPEN"


class LockedError(LevelError):
    """Another process, or another ``Level`` in this process, has the store open.

    Attributes:
        pid: The id of the process that has it open; ``None`` if it is unknown, as are the others.
        host: The name of its machine.
        program: The name of its program.
        url: The URL at which it serves the store, if it is a server.
    """

    code = "LEVEL_LOCKED"

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        host: str | None = None,
        program: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host
        self.program = program
        self.url = url

    def __reduce__(self) -> tuple[object, ...]:
        return _locked, (str(self), self.pid, self.host, self.program, self.url)


def _locked(message: str, pid: int | None, host: str | None, program: str | None, url: str | None) -> LockedError:
    return LockedError(message, pid=pid, host=host, program=program, url=url)


class ModeError(LevelError):
    """The verb needs another mode than the one that the level is open in."""

    code = "LEVEL_MODE"


class ModeMismatchError(ModeError):
    """The store was made in another mode than the one it is opened in."""

    code = "LEVEL_MODE_MISMATCH"


class InvalidKeyError(LevelError, ValueError):
    """The mode cannot hold the key. Nothing was written."""

    code = "LEVEL_INVALID_KEY"


class InvalidValueError(LevelError, ValueError):
    """JSON cannot round-trip the value, or it does not fit a typed view. Nothing was written.

    Attributes:
        key: The key, in a typed view; else ``None``.
        path: The JSON path of the part that does not fit the type, such as ``$.tags[2]``.
    """

    code = "LEVEL_INVALID_VALUE"
    key: Any = None
    path: str | None = None


class DecodeError(LevelError):
    """The stored bytes do not fit the encoding, or the type of a view. The message names the key.

    Attributes:
        key: The key of a value that does not fit the type of a typed view; else ``None``.
        path: The JSON path of the part that does not fit, such as ``$.tags[2]``.
    """

    code = "LEVEL_DECODE"
    key: Any = None
    path: str | None = None


class CorruptionError(LevelError):
    """The store is damaged: it holds bytes that this package has not written.

    Attributes:
        key: The stored key of the damaged record; ``None`` if the error is not about one record.
    """

    code = "LEVEL_CORRUPTION"
    key: bytes | None = None


class HistoryError(LevelError):
    """The log does not cover the state that was asked for.

    Attributes:
        cid: The CID that was asked for.
        earliest: The lowest CID as of which the store can be read.
        latest: The highest CID as of which the store can be read: that of the store.
    """

    code = "LEVEL_HISTORY"

    def __init__(self, message: str, *, cid: int, earliest: int, latest: int) -> None:
        super().__init__(message)
        self.cid = cid
        self.earliest = earliest
        self.latest = latest

    def __reduce__(self) -> tuple[object, ...]:
        return _history, (str(self), self.cid, self.earliest, self.latest)


def _history(message: str, cid: int, earliest: int, latest: int) -> HistoryError:
    return HistoryError(message, cid=cid, earliest=earliest, latest=latest)


class StorageError(LevelError, OSError):
    """The backend could not read or write: no permission, a full disk, a failing disk.

    Attributes:
        errno: `errno.ENOSPC` if the disk is full.
        is_refusal: True if the backend refused to begin the write, so that further ones are safe.
    """

    code = "LEVEL_STORAGE"
    is_refusal = False

    @property
    def is_disk_full(self) -> bool:
        """True if the write failed for lack of space on the disk."""
        return self.errno == ENOSPC


class CommitUnknownError(StorageError):
    """The outcome of a commit is unknown: the connection was lost before the reply.

    The batch was written completely, or not at all. ``sync()`` repeats its request and so finds
    out. After a write of your own, read the keys and decide.
    """

    code = "LEVEL_COMMIT_UNKNOWN"


class UnavailableError(StorageError):
    """A shared store is unreachable or too busy. Nothing was written. Retry later.

    Attributes:
        retryable: True if the database rolled the transaction back (serialization failure or
            deadlock). The engine has then retried several times already.
    """

    code = "LEVEL_UNAVAILABLE"
    retryable = False


class BackendNotFoundError(LevelError):
    """No backend of that name is registered.

    The message lists the registered ones, and the install line.
    """

    code = "LEVEL_BACKEND_NOT_FOUND"


class Refused(LevelError):  # noqa: N818  # it is no fault: a rule says no
    """A rule of the server refuses changes. A ``check`` raises it: see ``docs/sync.md``.

    Changes that are synchronised never raise it on the client: they are journaled there as
    conflicts of the kind ``"refused"``. Single writes over HTTP do.

    Args:
        reason: The reason, for the user of the client; of more than 500 characters the first ones
            are used.
        keys: The keys at fault. The changes that were written together with them are refused, too.
            ``None`` for all.

    Raises:
        TypeError: An argument is of a wrong type.

    Attributes:
        reason: The reason.
        keys: The keys at fault; ``None`` for all that were written together.
    """

    code = "LEVEL_REFUSED"

    def __init__(self, reason: str, keys: Iterable[str] | None = None) -> None:
        if not isinstance(reason, str):
            raise TypeError(f"the reason of a refusal is a str, not {reason!r:.80}")
        if isinstance(keys, str):
            raise TypeError(f"keys is an iterable of keys, not the str {keys!r:.80}")
        super().__init__(reason)
        self.reason = reason
        self.keys = None if keys is None else [*keys]

    def __reduce__(self) -> tuple[object, ...]:
        return Refused, (self.reason, self.keys)


class CheckError(LevelError):
    """The ``check`` of the server failed. Nothing was written; a client tries again later.

    Its exception is the ``__cause__``.
    """

    code = "LEVEL_CHECK"


class ConditionError(LevelError):
    """The present value of a key is not the one that the write asks for. Nothing was written.

    Attributes:
        key: The key.
        found: Its present value; ``MISSING`` if the key is absent.
    """

    code = "LEVEL_CONDITION"

    def __init__(self, message: str, *, key: Any, found: Any) -> None:
        super().__init__(message)
        self.key = key
        self.found = found

    def __reduce__(self) -> tuple[object, ...]:
        return _condition, (str(self), self.key, self.found)


def _condition(message: str, key: Any, found: Any) -> ConditionError:
    return ConditionError(message, key=key, found=found)


class SyncError(LevelError):
    """Replication stopped. The store is intact, and ``sync()`` may be called again."""

    code = "LEVEL_SYNC"


class CIDMismatchError(SyncError):
    """The change id does not fit the operation.

    Attributes:
        expected: The CID that the operation needs, or the lowest such CID.
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
    """The server is not the one that this client has synchronised with."""

    code = "LEVEL_STORE_MISMATCH"


class ProtocolError(SyncError):
    """A message is malformed or impossible. Nothing was written."""

    code = "LEVEL_PROTOCOL"


class ForbiddenError(ProtocolError):
    """The caller may not read or write the requested keys. Nothing was written.

    Attributes:
        keys: The keys of local changes that may not be pushed, the first 1000 of them, if
            everything else was synchronised; else empty.
    """

    code = "LEVEL_FORBIDDEN"

    def __init__(self, message: str, *, keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.keys = [*keys]


class TransportError(SyncError):
    """The server could not be reached, did not reply in time, or refused the request.

    Attributes:
        status: The HTTP status; ``None`` without a reply.
        retry_after: The seconds to wait before a retry, as the server asks; ``None`` if it does
            not.
        keys: The keys of changes that are too large to be sent (status 413), if everything else was
            synchronised; else empty.
    """

    code = "LEVEL_TRANSPORT"

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None, keys: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.keys = [*keys]
