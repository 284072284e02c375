"""treehub-level: an ordered key-value store that keeps working offline and synchronises.

Start with `Level` (asyncio) or `blocking.Level`, its counterpart without ``await``.
"""

from . import blocking
from .aio import Level, LiveSession
from .backends.base import Backend
from .backends.memory import MemoryBackend
from .blocking import LevelTransaction
from .errors import (
    BackendNotFoundError,
    CheckError,
    CIDMismatchError,
    CommitUnknownError,
    ConditionError,
    CorruptionError,
    DecodeError,
    ForbiddenError,
    HistoryError,
    InvalidKeyError,
    InvalidValueError,
    LevelError,
    LockedError,
    ModeError,
    ModeMismatchError,
    NotOpenError,
    ProtocolError,
    Refused,
    StateError,
    StorageError,
    StoreMismatchError,
    SyncError,
    TransportError,
    UnavailableError,
)
from .types import (
    MISSING,
    Change,
    Changes,
    Conflict,
    CopyReport,
    Delete,
    Followed,
    KeyRange,
    Mode,
    Put,
    RangeOptions,
    SyncReport,
)

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "Backend",
    "BackendNotFoundError",
    "CIDMismatchError",
    "Change",
    "Changes",
    "CheckError",
    "CommitUnknownError",
    "ConditionError",
    "Conflict",
    "CopyReport",
    "CorruptionError",
    "DecodeError",
    "Delete",
    "Followed",
    "ForbiddenError",
    "HistoryError",
    "InvalidKeyError",
    "InvalidValueError",
    "KeyRange",
    "Level",
    "LevelError",
    "LevelTransaction",
    "LiveSession",
    "LockedError",
    "MemoryBackend",
    "Mode",
    "ModeError",
    "ModeMismatchError",
    "NotOpenError",
    "ProtocolError",
    "Put",
    "RangeOptions",
    "Refused",
    "StateError",
    "StorageError",
    "StoreMismatchError",
    "SyncError",
    "SyncReport",
    "TransportError",
    "UnavailableError",
    "blocking",
]
