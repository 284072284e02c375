"""The replication state of a client: its records between two exchanges (``docs/format.md``).

`records.read_state` reads and checks it.

Each record is stored under ``P + P + name``, where ``P`` is the prefix:

``id``      the client's id, and the sequence number of its last push
``server``  the server's id, ``hi`` (`ClientState.max_head`), and the epochs seen by the client
``push``    the frozen push: durable before it is sent, and resent until the server decides
``aside``   the withheld push: it is never sent again, only withdrawn
``own``     the range of CIDs of the last push, until the client's CID has passed the range
``follow``  the ranges that the client follows, and the progress of their fill
``bases``   the generation of the base values, if this client has ever kept any

A reset that an earlier version has begun has its progress in the record ``reset``. The opening of
the store turns it into a fill (`engine.following.following_at_opening`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry
from ..engine.base_values import BASES, BaseRecording, Bases
from ..engine.following import CHECKED, FOLLOW, UNCHECKED, Following, RangeState
from ..engine.records import Epoch
from .fields import Ack

#: The names of the records.
NAMES = ("id", "server", "push", "aside", "own", FOLLOW, BASES)


class Push(NamedTuple):
    """A frozen push.

    Attributes:
        seq: The sequence number of the push. It rises by one with each push of a client id.
        nonce: 32 random hex digits, which identify the push.
        changes: The changes, each ``[key, value]`` or ``[key]``.
        groups: The runs of `changes` that belong together, each as the index of its first change
            and their number.
        last_group: The highest number of a group at the freeze; 0 if the client had none.
    """

    seq: int
    nonce: str
    changes: list[Any]
    groups: tuple[tuple[int, int], ...] = ()
    last_group: int = 0

    @property
    def keys(self) -> list[str]:
        """The keys of the changes."""
        return [change[0] for change in self.changes]

    def to_stored(self) -> bytes:
        """Return the push as it is stored."""
        record: dict[str, Any] = {"seq": self.seq, "nonce": self.nonce, "changes": self.changes}
        if self.last_group:
            record |= {"groups": self.groups, "last_group": self.last_group}
        return orjson.dumps(record)

    def entries(self, space: _core.KeySpace) -> list[Entry]:
        """Return the changes, encoded: each key with its value, or with ``None`` for a delete."""
        return _core.Encoder(space).changes(self.changes)

    def records(self, space: _core.KeySpace) -> dict[bytes, bytes]:
        """Return the change record of each key."""
        return {key: _core.join_record(key, value) for key, value in self.entries(space)}


@dataclass(frozen=True, slots=True)
class ClientState:
    """The replication state of a client.

    Attributes:
        id: The client's id.
        seq: The sequence number of its last push.
        following: The ranges that the client follows, and the progress of their fill.
        cid: The client's CID. It has a record of its own, which `replacing` leaves alone.
        server: The server's id; ``None`` before the first exchange.
        max_head: The highest server CID at which a page was read that the client has applied; 0 if
            it is unknown, as after a manual sync.
        epochs: The epochs of the server that the client has seen, oldest first. Old ones are
            dropped.
        push: The frozen push.
        withheld_push: A push that the server forbade before it had decided. An earlier copy may
            have been accepted, so the client withdraws it as soon as it may push again.
        own_range: The CIDs of the changes of the last accepted push, until the client has pulled
            them.
        bases: The record of base values; ``None`` if this client has never recorded any.
    """

    id: str
    seq: int
    following: Following
    cid: int = 0
    server: str | None = None
    max_head: int = 0
    epochs: tuple[Epoch, ...] = ()
    push: Push | None = None
    withheld_push: Push | None = None
    own_range: Ack | None = None
    bases: Bases | None = None

    @property
    def may_freeze(self) -> bool:
        """True if a new push may be frozen.

        The last push has been decided, its changes have been pulled, and no reset is in progress.
        """
        undecided = self.push or self.withheld_push or self.own_range
        return not (undecided or self.following.is_resetting)

    @property
    def is_at_head(self) -> bool:
        """True if the followed ranges are filled, and hold the server's state at the client's CID.

        Lost changes are not considered. ``max_head`` is above the CID while a page announces more,
        and 0 after a manual sync, which does not tell if there is more.
        """
        following = self.following
        is_filled = following.is_complete and not following.is_resetting
        return is_filled and self.server is not None and self.cid == self.max_head

    @property
    def recording(self) -> BaseRecording | None:
        """The base values that local writes record; ``None`` if they record none."""
        return BaseRecording.of(self.bases, self.following, self.cid)

    def filling_again(self, state: RangeState) -> ClientState:
        """Return the state at the beginning of a fill of all followed ranges.

        Base values become void: the client forgets which of the server's values it has seen.
        """
        bases = None if self.bases is None else self.bases.void()
        return replace(self, following=self.following.fill_again(state), bases=bases)

    def resetting(self, common: int, *, is_dirty: bool) -> ClientState:
        """Return the state at the beginning of a reset.

        With dirty changes, the log after the last common CID decides on them. Without any, it is
        not needed.

        Args:
            common: The last CID that the client's history and the server's have in common.
            is_dirty: True if the client has dirty changes.
        """
        own_range = self.own_range
        state = replace(
            self,
            following=replace(self.following, is_resetting=True),
            cid=common,
            max_head=common,
            epochs=tuple(epoch for epoch in self.epochs if epoch.start < common),
            push=None,
            own_range=None if own_range is not None and own_range.after <= common else own_range,
        )
        return state.filling_again(CHECKED if is_dirty else UNCHECKED)

    def with_bases(self) -> ClientState:
        """Return the state with a record of base values, if local writes have to record some."""
        if self.bases is not None or not self.following.needs_base_values(self.cid):
            return self
        return replace(self, bases=Bases(1, kept=False))

    def replacing(self, before: ClientState | None, space: _core.KeySpace) -> list[Entry]:
        """Return the entries that turn a stored state into this one.

        Args:
            before: The stored state; ``None`` if no record of it is stored.
            space: The key space of the store.
        """
        old = [None] * len(NAMES) if before is None else before._records()
        records = zip(NAMES, self._records(), old, strict=True)
        return [(space.own_key(name), record) for name, record, stored in records if record != stored]

    def _records(self) -> list[bytes | None]:
        server = {"id": self.server, "hi": self.max_head, "epochs": [[*epoch] for epoch in self.epochs]}
        return [
            orjson.dumps([self.id, self.seq]),
            None if self.server is None else orjson.dumps(server),
            None if self.push is None else self.push.to_stored(),
            None if self.withheld_push is None else self.withheld_push.to_stored(),
            None if self.own_range is None else orjson.dumps([*self.own_range]),
            self.following.to_stored(self.cid),
            None if self.bases is None else self.bases.to_stored(),
        ]
