"""The messages of the model, and the records that its clients and servers keep of each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


class Push(NamedTuple):
    """A frozen push."""

    seq: int
    nonce: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Request:
    """A request.

    ``keys_after`` is given in phase B of a reset only. ``withdraw`` replaces ``changes`` in a
    request that withdraws the push. ``limit`` is the maximum number of changes, or keys, in the
    reply.
    """

    client: int
    cid: int
    max_head: int
    epochs: tuple[Epoch, ...]
    seq: int
    nonce: int
    changes: tuple[Change, ...] = ()
    reset: bool = False
    keys_after: str | None = None
    withdraw: tuple[str, ...] = ()
    server: int | None = None
    limit: int = 1

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the push, whether it is sent or withdrawn."""
        return self.withdraw or tuple(key for key, _ in self.changes)


@dataclass(frozen=True)
class Reply:
    """The fields that every reply has."""

    server: int
    nonce: int
    base: int


@dataclass(frozen=True)
class Page(Reply):
    """A part of the log, and the decision on the push."""

    cid: int
    head: int
    more: bool
    epochs: tuple[Epoch, ...]
    ack: Ack | None
    rejected: frozenset[str]
    changes: tuple[tuple[int, str, Content], ...]


@dataclass(frozen=True)
class Keys(Reply):
    """A part of the live keys, in order."""

    head: int
    epochs: tuple[Epoch, ...]
    after: str
    keys: tuple[str, ...]
    end: bool


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
