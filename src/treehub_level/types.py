"""The data that crosses the public API. No logic beyond construction and comparison."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict

#: A value that JSON can hold: ``None bool int float str list dict`` with ``str`` keys, nested at most 64 deep.
#: (A recursive alias would be exact, and unusable: every ``level.get()["name"]`` would need a cast.)
JSON = Any


class Mode(enum.Enum):
    """What a store does beside storing. ``Level.NORMAL``, ``Level.SERVER`` and ``Level.CLIENT`` are its members."""

    NORMAL = "normal"
    SERVER = "server"
    CLIENT = "client"


class _Missing(enum.Enum):
    """A type of one value, so that type checkers can narrow ``x is MISSING``."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


#: Pass it as ``default`` to tell a key that is absent from one that holds ``None``.
MISSING: Final = _Missing.MISSING


class KeyRange(TypedDict, total=False):
    """Bounds of a range of keys, as keyword arguments; all of them hold.

    ``None`` is the same as an absent bound; an empty string is a bound. A lower bound at or above the
    upper one makes an empty range.

    Attributes:
        gt: Only keys above this one. Not together with ``gte``.
        gte: Only this key and keys above it.
        lt: Only keys below this one. Not together with ``lte``.
        lte: Only this key and keys below it.
        prefix: Only keys that begin with this.
    """

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


class RangeOptions(KeyRange, total=False):
    """Keyword arguments of the methods that read a range: its bounds, direction and limit.

    Attributes:
        reverse: Read from the last key down to the first; ``False`` by default.
        limit: The largest number of results, counted after ``filter``; ``None``, the default, for all.
    """

    reverse: bool
    limit: int | None


class Put(NamedTuple):
    """An operation of a batch: store ``value`` under ``key``."""

    key: Any
    value: Any


class Delete(NamedTuple):
    """An operation of a batch: remove ``key``."""

    key: Any


class Change(tuple[Any, ...]):
    """One change as it stands in the log, in the dirty set and on the wire: ``[key, value]`` or ``[key]``.

    It is a tuple of two or of one, so ``json.dumps`` writes it as the wire wants it; it equals the list of
    the same items, and goes wherever a change is accepted.
    """

    #: The change id under which the server logged it, where that is known. It takes no part in comparison.
    cid: int | None = None

    def __new__(cls, key: str, value: JSON) -> Change:
        """The change that stores ``value`` under ``key``."""
        return tuple.__new__(cls, (key, value))

    @classmethod
    def deletion(cls, key: str) -> Change:
        """The change that removes ``key``."""
        return tuple.__new__(cls, (key,))

    @property
    def key(self) -> str:
        """The key that was written or deleted."""
        key: str = self[0]
        return key

    @property
    def value(self) -> JSON:
        """What was stored, or ``None`` for a deletion (see `deleted`)."""
        return self[1] if len(self) == 2 else None

    @property
    def deleted(self) -> bool:
        """Whether the key was removed."""
        return len(self) == 1

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list):
            other = tuple(other)
        return tuple.__eq__(self, other) if isinstance(other, tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = tuple.__hash__

    def __reduce__(self) -> tuple[object, ...]:
        return _change, (tuple(self), self.cid)

    def __repr__(self) -> str:
        if self.deleted:
            return f"Change.deletion({self.key!r})"
        return f"Change({self.key!r}, {self.value!r})"


def _change(items: tuple[Any, ...], cid: int | None) -> Change:
    change = tuple.__new__(Change, items)
    if cid is not None:
        change.cid = cid
    return change


class Changes(NamedTuple):
    """A page of a server's log. It unpacks as ``cid, changes = page[:2]``.

    Attributes:
        cid: That of the last change here, or the one asked after if there is none.
        changes: In CID order.
        has_more: Whether the log goes on behind this page.
    """

    cid: int
    changes: list[Change]
    has_more: bool


@dataclass(frozen=True)
class Conflict:
    """A local change that lost, kept in the client's journal until it is restored or dismissed.

    Attributes:
        key: The key both sides wrote.
        local: The change made here, which lost.
        remote: The server's, which won; ``None`` for a key that a reset removed.
        id: Its number in the journal. It takes no part in comparison.
    """

    key: str
    local: Change
    remote: Change | None
    id: int = field(default=0, compare=False)


@dataclass(frozen=True)
class CopyReport:
    """What one ``blocking.copy()`` did.

    Attributes:
        mode: That of the store, and so of its copy.
        rows: Rows that the copy has, metadata included.
        written: Rows that were written or deleted in this call; the others were there from one that was interrupted.
        sha256: The digest of all rows in order of their keys, in hex: of each the length of its key (8 bytes,
            big-endian), the key, the length of the value, and the value.
    """

    mode: Mode
    rows: int
    written: int
    sha256: str


@dataclass
class SyncReport:
    """What one ``sync()`` did.

    Attributes:
        pulled: Changes of others that were applied here.
        pushed: Local changes that the server accepted.
        conflicts: Local changes that lost, in the order in which they did.
        rejected: Keys that the server refused in a push, since others had written them first.
        cid: The client's CID afterwards.
        rounds: Exchanges that were needed.
        reset: Whether the server's history was found to be another than the one seen before.
    """

    pulled: int = 0
    pushed: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    cid: int = 0
    rounds: int = 0
    reset: bool = False
