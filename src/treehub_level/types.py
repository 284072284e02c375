"""The data types of the public API, without logic beyond construction and comparison."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A value to store: ``None bool int float str``, ``list`` or ``tuple``, and ``dict`` with ``str``
#: keys, nested at most 64 deep. The types of containers are the wide ones, so that a
#: ``dict[str, int]`` fits. Stored values are read as ``Any``: of a recursive type, each
#: ``level.get("a")["name"]`` would need a cast. A typed view reads exact types.
JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar  # typing has defaults from Python 3.13 on

    #: The type of the keys of a level or view.
    Key = DefaultTypeVar("Key", default=str)
    #: The type of the values that a level or view reads.
    Value = DefaultTypeVar("Value", default=Any)
    #: The type of a value that may be absent.
    Found = DefaultTypeVar("Found", default=Any)
    #: The type of the values that a level or view writes.
    Written = DefaultTypeVar("Written", default="JSON")
    #: The type of the keys of a typed view.
    ViewKey = DefaultTypeVar("ViewKey", default=str)
else:
    Key, Value, Found, Written, ViewKey = map(TypeVar, ("Key", "Value", "Found", "Written", "ViewKey"))
#: The type of a default.
Default = TypeVar("Default")
#: A key as a bound of a range: a ``str``, or the first elements of a tuple in a view of tuples.
Bound: TypeAlias = "str | tuple[Any, ...] | None"
#: An answer to a reset: see ``Level.sync``.
OnReset: TypeAlias = Literal["reset", "raise"]


class Mode(enum.Enum):
    """The mode of a store: ``Level.NORMAL``, ``Level.SERVER`` or ``Level.CLIENT``."""

    NORMAL = "normal"
    SERVER = "server"
    CLIENT = "client"


class _Missing(enum.Enum):
    """A type with one value, so that type checkers can narrow ``x is MISSING``."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


#: A ``default`` that tells an absent key from a stored ``None``; as the result of a function of
#: ``update``, it deletes the key.
MISSING: Final = _Missing.MISSING


#: The type of `MISSING`.
MissingType: TypeAlias = _Missing


class Settlement(enum.Enum):
    """The answers of ``on_conflict`` that are no value: `KEEP_SERVER` and `JOURNAL`."""

    KEEP_SERVER = "KEEP_SERVER"
    JOURNAL = "JOURNAL"

    def __repr__(self) -> str:
        return self.name


#: An answer of ``on_conflict``: the server's value stays, and the local change is dropped.
KEEP_SERVER: Final = Settlement.KEEP_SERVER
#: An answer of ``on_conflict``: the server's value stays, and the local change goes to the journal.
JOURNAL: Final = Settlement.JOURNAL


class AnyValue(enum.Enum):
    """A type with one value: no condition on the present value of a key."""

    ANY_VALUE = "ANY_VALUE"

    def __repr__(self) -> str:
        return "ANY_VALUE"


#: The default of ``if_value``. `MISSING` there is a condition: the key is absent.
ANY_VALUE: Final = AnyValue.ANY_VALUE

#: The type of ``if_value``.
Wanted: TypeAlias = Written | MissingType | AnyValue


class KeyRange(TypedDict, total=False):
    """Bounds of a range of keys, as keyword arguments; all of them hold.

    ``None`` is the same as an absent bound; an empty string is a bound. A lower bound at or above
    the upper one makes an empty range.

    Attributes:
        gt: Only keys above this one. Not together with ``gte``.
        gte: Only this key and keys above it.
        lt: Only keys below this one. Not together with ``lte``.
        lte: Only this key and keys below it.
        prefix: Only keys that begin with this.
    """

    gt: Bound
    gte: Bound
    lt: Bound
    lte: Bound
    prefix: Bound


class RangeOptions(KeyRange, total=False):
    """Keyword arguments of the methods that read a range: its bounds, direction and limit.

    Attributes:
        reverse: Read from the last key down to the first; ``False`` by default.
        limit: The largest number of results, counted after ``filter``; ``None``, the default, for
            all.
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


class PutOperation(TypedDict):
    """A put in the form of `@treehub/level`, for `batch`."""

    type: Literal["put"]
    key: str | bytes | tuple[Any, ...]
    value: Any


class DeleteOperation(TypedDict):
    """A delete in the form of `@treehub/level`, for `batch`."""

    type: Literal["del"]
    key: str | bytes | tuple[Any, ...]


#: An operation of a batch.
Operation: TypeAlias = Put | Delete | PutOperation | DeleteOperation


#: The origin of a change that a watch yields.
ChangeOrigin = Literal["local", "remote", "initial"]


class Change(tuple[Any, ...]):
    """One change, as in the log, in the dirty set and on the wire.

    A change is a tuple ``(key, value)``, or ``(key,)`` for a deletion. ``json.dumps`` writes it in
    the form of the wire, and it equals the list of the same items.
    """

    #: The change id in the server's log, if it is known. Comparison ignores it, `by`, `at` and
    #: `origin`.
    cid: int | None = None
    #: The author, if it is known: the principal as the token gives it, else the id of the client.
    by: str | None = None
    #: The time (UTC) by the clock of the server that took the change, if it is known. It informs
    #: only: the order of changes is that of their CIDs.
    at: datetime | None = None
    #: For a change that `watch` or `on_change` reports: ``"initial"`` for the state at its
    #: beginning, ``"remote"`` for one that was pulled, applied or filled, or that a client pushed
    #: to this server; ``"local"`` for all others. Otherwise ``None``.
    origin: ChangeOrigin | None = None

    def __new__(cls, key: str, value: JSON) -> Change:
        """Make the change that stores ``value`` under ``key``."""
        return tuple.__new__(cls, (key, value))

    @classmethod
    def deletion(cls, key: str) -> Change:
        """Make the change that removes ``key``."""
        return tuple.__new__(cls, (key,))

    @property
    def key(self) -> str:
        """The key that was written or deleted."""
        key: str = self[0]
        return key

    @property
    def value(self) -> Any:
        """The stored value; ``None`` for a deletion (see `deleted`)."""
        return self[1] if len(self) == 2 else None

    @property
    def deleted(self) -> bool:
        """True if the key was removed."""
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
        return _change, (tuple(self), self.cid, self.by, self.at, self.origin)

    def __repr__(self) -> str:
        if self.deleted:
            return f"Change.deletion({self.key!r})"
        return f"Change({self.key!r}, {self.value!r})"


def _change(
    items: tuple[Any, ...], cid: int | None, by: str | None, at: datetime | None, origin: ChangeOrigin | None = None
) -> Change:
    change = tuple.__new__(Change, items)
    for name, value in (("cid", cid), ("by", by), ("at", at), ("origin", origin)):
        if value is not None:
            setattr(change, name, value)
    return change


class Changes(NamedTuple):
    """A page of a server's log. It unpacks as ``cid, changes = page[:2]``.

    Attributes:
        cid: The CID of the last change in the page; the requested CID if the page is empty.
        changes: The changes, in CID order.
        has_more: True if the log has changes after this page.
    """

    cid: int
    changes: list[Change]
    has_more: bool


#: The kind of a `Conflict`.
ConflictKind = Literal["conflict", "refused", "reset"]


@dataclass(frozen=True)
class Conflict:
    """A local change that lost to the server's, kept in the client's conflict journal.

    Comparison ignores ``id``, ``kind`` and the times: two conflicts are equal if the same change of
    a key lost in the same way.

    Attributes:
        key: The key that both sides wrote.
        local: The local change, which lost.
        remote: The server's change, which won; ``None`` for a key that a reset removed.
        id: The number of the entry in the journal; 0 while ``on_conflict`` is asked.
        base: The value that the server had when the key became dirty, as a change; its ``deleted``
            is True if the server had no such key. ``None`` if it is unknown: without
            ``keep_base=True``, for a key that was dirty before or became dirty during a reset.
        kind: ``"conflict"``: both sides wrote the key. ``"reset"``: a reset removed the key, which
            the server does not have. ``"refused"``: the rules of the server refused the change.
        reason: The reason of a refusal; ``None`` for the other kinds.
        by: The author of the server's change; ``None`` if it is unknown.
        at: The server's clock at its change, in UTC; ``None`` if it is unknown.
        noticed_at: The client's clock when it journaled the change, in UTC; ``None`` in journals of
            earlier versions. Nothing is decided by it: clocks may be wrong.
    """

    key: str
    local: Change
    remote: Change | None
    id: int = field(default=0, compare=False)
    base: Change | None = field(default=None, kw_only=True)
    kind: ConflictKind = field(default="conflict", kw_only=True, compare=False)
    reason: str | None = field(default=None, kw_only=True)
    by: str | None = field(default=None, kw_only=True, compare=False)
    at: datetime | None = field(default=None, kw_only=True, compare=False)
    noticed_at: datetime | None = field(default=None, kw_only=True, compare=False)


@dataclass(frozen=True)
class CopyReport:
    """The result of ``blocking.copy()``.

    Attributes:
        mode: The mode of the store and of its copy.
        rows: The number of rows in the copy, metadata included.
        written: The number of rows that this call wrote or deleted. An interrupted call before it
            may have written the others.
        sha256: The hexadecimal digest of all rows in key order. Each row contributes the length of
            its key (8 bytes, big-endian), the key, the length of its value, and the value.
    """

    mode: Mode
    rows: int
    written: int
    sha256: str


@dataclass(frozen=True)
class BackupReport:
    """The result of ``backup()``.

    Attributes:
        path: The backup, complete and verified.
        mode: The mode of the store.
        cid: The CID of the backup; ``None`` in NORMAL mode.
        bytes: The size of the backup in bytes.
        new_bytes: The bytes of it that are not shared with an earlier backup.
    """

    path: str
    mode: Mode
    cid: int | None
    bytes: int
    new_bytes: int


@dataclass(frozen=True)
class RestoreReport:
    """The result of ``restore()``.

    Attributes:
        path: The backup that was restored.
        mode: The mode of the store.
        cid: The CID of the store; ``None`` in NORMAL mode.
    """

    path: str
    mode: Mode
    cid: int | None


@dataclass
class SyncReport:
    """The result of ``sync()``.

    Attributes:
        pulled: The number of changes of other clients that were written here, with those in
            ``filled``.
        pushed: The number of local changes that the server accepted.
        conflicts: The local changes that lost, in the order of the conflicts.
        rejected: The keys of pushed changes that the server rejected, each once: others had written
            them first, or a change that was written together with them.
        cid: The client's CID after the call.
        rounds: The number of exchanges.
        reset: True if the server's history differed from the one seen before, and the client was
            reset.
        filled: The number of entries that were written here as part of the server's present data,
            instead of the changes that led to it: at the first sync, in a newly followed range, in
            a reset, and by a client far behind.
        refused: The keys of pushed changes that the rules of the server, or the rights of the
            token, refuse. Their conflicts have the reasons.
        consistent: True if all data in the followed ranges, except local changes that are not
            pushed yet, is that of the server at ``cid``. Otherwise changes that were written
            together may be here in part: a range is being filled, more is to be pulled, or lost
            changes wait for the server's values. It is False before the first exchange with a
            server, and after a manual pull.
        settled: The keys of the local changes that ``on_conflict`` has settled, once for each
            answer. Their conflicts are not in ``conflicts``, nor in the journal.
        contended: The keys of merged changes that others have overtaken again and again. They wait
            for the next sync.
        failed_merges: The errors of ``on_conflict``, by key: it has raised them, or its answer was
            illegal. These conflicts are in the journal.
    """

    pulled: int = 0
    pushed: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    cid: int = 0
    rounds: int = 0
    reset: bool = False
    filled: int = 0
    refused: list[str] = field(default_factory=list)
    consistent: bool = False
    settled: list[str] = field(default_factory=list)
    contended: list[str] = field(default_factory=list)
    failed_merges: dict[str, Exception] = field(default_factory=dict)


class Followed(NamedTuple):
    """A range of keys that a client follows.

    Attributes:
        prefix: The prefix of the keys; ``""`` for all keys.
        complete: True if the client has all keys of the range as they were on the server at
            ``cid``, except its own local changes. False while the range is being filled.
        cid: The client's CID.
    """

    prefix: str
    complete: bool
    cid: int


class ClientInfo(NamedTuple):
    """A client, as its server knows it.

    Attributes:
        id: The id of the client. A client that was reset to another server has another one.
        name: The principal that it belongs to: the name of its token or identity; ``None`` without
            authentication.
        pushed_cid: The CID of the last change that the server has accepted from it; ``None`` if it
            has accepted none of its last push.
        pushed_at: The time of that push by the server's clock, in UTC; ``None`` if it is not known.
        behind: The changes of the server since that push, at most so many of which the client
            lacks: it may have pulled them, of which the server keeps no record.
        refused: The number of changes of its last push that a rule has refused.
    """

    id: str
    name: str | None
    pushed_cid: int | None
    pushed_at: datetime | None
    behind: int
    refused: int
