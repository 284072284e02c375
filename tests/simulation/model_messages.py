"""The messages of the model, and the records that its clients and servers keep of each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .sides import Content

Change = tuple[str, Content]


class Epoch(NamedTuple):
    """An opening of the server in which it wrote, and the CID before its first write."""

    id: int
    start: int


class Ack(NamedTuple):
    """A decision on a push: its accepted changes have the CIDs ``before + 1`` to ``after``."""

    before: int
    after: int
    epoch: int | None

    def covers(self, cid: int, epochs: Iterable[Epoch]) -> bool:
        """Return True if the change ``cid``, in a history with these epochs, is an accepted one."""
        return self.before < cid <= self.after and epoch_at(cid, epochs) == self.epoch


class Decision(NamedTuple):
    """The server's record of a client's last push that was decided, and of its principal."""

    seq: int
    nonce: int
    ack: Ack
    principal: str
    refused: frozenset[str] = frozenset()


#: Changes that belong together: they are accepted or rejected as a whole.
Group = tuple[Change, ...]


class Push(NamedTuple):
    """A frozen push, and the local batches that its groups were made of."""

    seq: int
    nonce: int
    groups: tuple[Group, ...]
    batches: frozenset[int] = frozenset()

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes of the push."""
        return tuple(change for group in self.groups for change in group)


class Fill(NamedTuple):
    """The range that a client fills, and the key up to which it is filled."""

    prefix: str
    after: str

    def covers(self, key: str) -> bool:
        """Return True if the key lies in the part that is filled."""
        return key.startswith(self.prefix) and key <= self.after


@dataclass(frozen=True)
class Request:
    """A request. Its ``nonce`` is a new one; that of a push is frozen with it.

    A page of the log holds the changes of the keys that begin with one of ``prefixes``, or lie in
    the filled part of ``fill``. ``complete`` lists those prefixes of which the client has all keys.
    ``withdraw`` replaces ``groups`` in a request that withdraws the push. ``read`` lists keys whose
    present values are requested. ``limit`` is the maximum number of changes, or keys, in the reply.
    """

    client: int
    cid: int
    max_head: int
    epochs: tuple[Epoch, ...]
    nonce: int
    seq: int = 0
    push_nonce: int = 0
    groups: tuple[Group, ...] = ()
    withdraw: tuple[str, ...] = ()
    server: int | None = None
    limit: int = 1
    complete: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    fill: Fill | None = None
    read: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes of the push."""
        return tuple(change for group in self.groups for change in group)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the push, whether it is sent or withdrawn."""
        return self.withdraw or tuple(key for key, _ in self.changes)

    @property
    def holds_data(self) -> bool:
        """True if the client relies on the deletes in the log: it has a complete or filled part."""
        return bool(self.complete or (self.fill and self.fill.after))

    def follows(self, key: str) -> bool:
        """Return True if the client has a key, or pulls the log for it."""
        return any(map(key.startswith, self.prefixes)) or (self.fill is not None and self.fill.covers(key))


@dataclass(frozen=True)
class Reply:
    """The fields that every reply has."""

    server: int
    nonce: int
    base: int


class Piece(NamedTuple):
    """A part of the live entries of a range, in key order, read at the end of its page.

    It holds all entries after ``after`` up to ``to``, or to the end of the range.
    """

    prefix: str
    after: str
    to: str
    end: bool
    entries: dict[str, Content]

    def covers(self, key: str) -> bool:
        """Return True if the piece says which value the key has, or that it has none."""
        return key.startswith(self.prefix) and self.after < key and (self.end or key <= self.to)


@dataclass(frozen=True)
class Page(Reply):
    """A part of the log, and the decision on the push.

    Attributes:
        values: The present values of the requested and the rejected keys. A page that does not
            reach the head has none.
        refused: The rejected keys that a rule refuses.
        piece: The next part of the range that the client fills, if the page reaches the head.
        refill: True if the log after the page is longer than the data that the client follows.
    """

    cid: int
    head: int
    more: bool
    epochs: tuple[Epoch, ...]
    ack: Ack | None
    rejected: frozenset[str]
    changes: tuple[tuple[int, str, Content], ...]
    values: dict[str, Content] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    piece: Piece | None = None
    refill: bool = False


@dataclass(frozen=True)
class Reset(Reply):
    """The histories agree only up to ``common``, or the log lacks deletes that the client needs."""

    common: int
    ack: Ack | None
    rejected: frozenset[str]


@dataclass(frozen=True)
class WrongServer(Reply):
    """The request is for another server."""


@dataclass(frozen=True)
class Forked(Reply):
    """Two stores share one client id."""


class ManualPage(NamedTuple):
    """A page of a manual sync: changes, and the CID at which they end."""

    cid: int
    changes: tuple[tuple[int, str, Content], ...]


def epoch_at(cid: int, epochs: Iterable[Epoch]) -> int | None:
    """Return the id of the epoch in which the change ``cid`` was written."""
    found = None
    for epoch in epochs:
        if epoch.start < cid:
            found = epoch.id
    return found


def epoch_ends(epochs: Iterable[Epoch], last: int) -> dict[int, int]:
    """Return the last CID of each epoch, in order; the last epoch ends at ``last``."""
    epochs = tuple(epochs)
    starts = [epoch.start for epoch in epochs[1:]]
    return {epoch.id: end for epoch, end in zip(epochs, [*starts, last], strict=False)}


def set_or_delete(data: dict[str, Content], key: str, content: Content) -> None:
    """Apply a change to the data: ``None`` deletes the key."""
    if content is None:
        data.pop(key, None)
    else:
        data[key] = content
