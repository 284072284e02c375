"""What the model's clients and servers say to each other and remember of each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .sides import Content

Change = tuple[str, Content]


class Epoch(NamedTuple):
    """An opening of the server that wrote, and the CID after which it began to write."""

    id: int
    start: int


class Ack(NamedTuple):
    """A decision: the accepted changes of a push have the CIDs from ``before`` (exclusive) to ``after`` (inclusive)."""

    before: int
    after: int
    epoch: int | None

    def covers(self, cid: int, epochs: Iterable[Epoch]) -> bool:
        """Whether the change ``cid``, in a history of these epochs, is one of them."""
        return self.before < cid <= self.after and epoch_of(cid, epochs) == self.epoch


class Decision(NamedTuple):
    """What the server keeps of each client's last decided push."""

    seq: int
    nonce: int
    ack: Ack


class Push(NamedTuple):
    """A frozen push."""

    seq: int
    nonce: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Request:
    """``keys_after`` is given in phase B of a reset only; ``withdraw``, instead of ``changes``, takes a push back."""

    client: int
    cid: int
    hi: int
    epochs: tuple[Epoch, ...]
    seq: int
    nonce: int
    changes: tuple[Change, ...] = ()
    reset: bool = False
    keys_after: str | None = None
    withdraw: tuple[str, ...] = ()
    server: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the push, be it sent or taken back."""
        return self.withdraw or tuple(key for key, _ in self.changes)


@dataclass(frozen=True)
class Reply:
    """The fields that every kind has."""

    server: int
    nonce: int
    base: int


@dataclass(frozen=True)
class Page(Reply):
    """A part of the log, and what became of the push."""

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
    """The histories agree up to ``common`` only, or the log has forgotten deletes."""

    common: int
    ack: Ack | None
    rejected: frozenset[str]


@dataclass(frozen=True)
class Stranger(Reply):
    """The request is for another server than this one."""


@dataclass(frozen=True)
class Forked(Reply):
    """Two stores share one client id."""


class SeedPage(NamedTuple):
    """What the seed's pull brings: changes, and the CID where they end."""

    cid: int
    changes: tuple[tuple[int, str, Content], ...]


def epoch_of(cid: int, epochs: Iterable[Epoch]) -> int | None:
    """The epoch in which the change ``cid`` was written."""
    found = None
    for epoch in epochs:
        if epoch.start < cid:
            found = epoch.id
    return found


def ends_of(epochs: Iterable[Epoch], last: int) -> dict[int, int]:
    """The CID at which each epoch ended, in order; the last one goes on to ``last``."""
    epochs = tuple(epochs)
    starts = [epoch.start for epoch in epochs[1:]]
    return {epoch.id: end for epoch, end in zip(epochs, [*starts, last], strict=False)}


def store(data: dict[str, Content], key: str, content: Content) -> None:
    if content is None:
        data.pop(key, None)
    else:
        data[key] = content
