"""`ChangeQueue`: the changes that a consumer has yet to take, in bounded memory."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ..backends.sqlite.scratch import ScratchQueue

#: Bytes of memory that the changes of one queue take. Beyond it the values are dropped, to be read
#: from the store, and then the keys go to a temporary file.
MAX_BYTES: Final = 1 << 20
#: The longest value that is kept, in bytes.
_MAX_VALUE: Final = 64 * 1024
#: Bytes that a change takes in memory beside its key and its value.
_OVERHEAD: Final = 256


class Unread(enum.Enum):
    """A type with one value, which stands for a value that is to be read from the store."""

    UNREAD = "UNREAD"


UNREAD: Final = Unread.UNREAD


class QueuedChange(NamedTuple):
    """A change.

    Attributes:
        key: The stored key.
        value: The stored value; ``None`` for a deletion; `UNREAD` if it is to be read.
        is_local: True if the latest change of the key is a local write.
    """

    key: bytes
    value: bytes | Unread | None
    is_local: bool


class ChangeQueue:
    """The latest change of each key, ordered by its time.

    A queue that exceeds `MAX_BYTES` keeps no values, and then writes its keys to a temporary file.
    So no key is lost, a deleted one included. Its owner calls it from one thread at a time.
    """

    def __init__(self) -> None:
        self._recent: dict[bytes, tuple[bytes | Unread | None, bool]] = {}
        self._bytes = 0
        #: Keys that are older than the recent ones.
        self._spilled: ScratchQueue | None = None

    def __bool__(self) -> bool:
        """Return True unless the queue is empty for certain."""
        return bool(self._recent) or self._spilled is not None

    def put(self, key: bytes, value: bytes | Unread | None, is_local: bool) -> None:
        """Append a change. It takes the place of an earlier change of its key."""
        before = self._recent.pop(key, None)
        if before is not None:
            self._bytes -= _cost(key, before[0])
        if isinstance(value, bytes) and len(value) > _MAX_VALUE:
            value = UNREAD
        self._recent[key] = value, is_local
        self._bytes += _cost(key, value)
        if self._bytes > MAX_BYTES:
            self._relieve()

    def _relieve(self) -> None:
        """Make room: drop the values, and if that is little, write the keys to the file."""
        self._recent = {key: (UNREAD, is_local) for key, (_, is_local) in self._recent.items()}
        self._bytes = sum(_cost(key, UNREAD) for key in self._recent)
        if self._bytes <= MAX_BYTES // 2:
            return
        if self._spilled is None:
            self._spilled = _new_scratch_queue()
        self._spilled.add((key, is_local) for key, (_, is_local) in self._recent.items())
        self._recent, self._bytes = {}, 0

    def take_read(self, limit: int) -> list[QueuedChange] | None:
        """Remove the oldest changes whose values are here, and return them.

        Returns:
            At most ``limit`` changes; ``None`` if the oldest change has to be read.
        """
        if self._spilled is not None:
            return None
        taken: list[QueuedChange] = []
        for key, (value, is_local) in self._recent.items():
            if value is UNREAD or len(taken) == limit:
                break
            taken.append(QueuedChange(key, value, is_local))
        if not taken and self._recent:
            return None
        self._remove(taken)
        return taken

    def take(self, limit: int) -> list[QueuedChange]:
        """Remove the oldest changes, at most ``limit``, and return them."""
        if self._spilled is not None:
            while keys := self._spilled.take(limit):
                found = [QueuedChange(key, UNREAD, flag) for key, flag in keys if key not in self._recent]
                if found:
                    return found
            self._spilled.close()
            self._spilled = None
        taken: list[QueuedChange] = []
        for key, (value, is_local) in self._recent.items():
            if len(taken) == limit:
                break
            taken.append(QueuedChange(key, value, is_local))
        self._remove(taken)
        return taken

    def _remove(self, taken: list[QueuedChange]) -> None:
        for key, value, _ in taken:
            del self._recent[key]
            self._bytes -= _cost(key, value)

    def put_back(self, changes: list[QueuedChange]) -> None:
        """Prepend changes that were taken, unless their keys have changed since.

        With a temporary file, they come after its keys.
        """
        left = {key: (UNREAD, is_local) for key, _, is_local in changes if key not in self._recent}
        self._bytes += sum(_cost(key, UNREAD) for key in left)
        self._recent = {**left, **self._recent}

    def origin(self, key: bytes) -> bool | None:
        """Return True if the latest change of a key is local; ``None`` if the key is absent."""
        if key in self._recent:
            return self._recent[key][1]
        return None if self._spilled is None else self._spilled.flag(key)

    def close(self) -> None:
        """Drop all changes, and the temporary file."""
        self._recent, self._bytes = {}, 0
        if self._spilled is not None:
            self._spilled.close()
            self._spilled = None


def _cost(key: bytes, value: bytes | Unread | None) -> int:
    return _OVERHEAD + len(key) + (len(value) if isinstance(value, bytes) else 0)


def _new_scratch_queue() -> ScratchQueue:
    from ..backends.sqlite.scratch import ScratchQueue  # some builds of Python lack sqlite3

    return ScratchQueue()
