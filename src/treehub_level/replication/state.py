"""The replication state of a client: its records between two exchanges (``docs/format.md``).

`records.read_state` reads and checks it.

Each record is stored under ``P + P + name``, where ``P`` is the prefix:

``id``      the client's id, and the sequence number of its last push
``server``  the server's id, ``hi`` (`ClientState.max_head`), and the epochs seen by the client
``push``    the frozen push: durable before it is sent, and resent until the server decides
``aside``   the withheld push: it is never sent again, only withdrawn
``own``     the range of CIDs of the last push, until the client's CID has passed the range
``reset``   the progress of a reset
``bases``   the generation of the base values, if this client has ever kept any
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry
from ..engine.base_values import BASES, Bases
from ..engine.records import Epoch
from .fields import Ack

#: The names of the records.
NAMES = ("id", "server", "push", "aside", "own", "reset", BASES)


class Push(NamedTuple):
    """A frozen push.

    Attributes:
        seq: The sequence number of the push. It rises by one with each push of a client id.
        nonce: 32 random hex digits, which identify the push.
        changes: The changes, each ``[key, value]`` or ``[key]``.
    """

    seq: int
    nonce: str
    changes: list[Any]

    @property
    def keys(self) -> list[str]:
        """The keys of the changes."""
        return [change[0] for change in self.changes]

    def to_stored(self) -> bytes:
        """Return the push as it is stored."""
        return orjson.dumps(self._asdict())

    def entries(self, space: _core.KeySpace) -> list[Entry]:
        """Return the changes, encoded: each key with its value, or with ``None`` for a delete."""
        return _core.Encoder(space).changes(self.changes)

    def records(self, space: _core.KeySpace) -> dict[bytes, bytes]:
        """Return the change record of each key."""
        return {key: _core.join_record(key, value) for key, value in self.entries(space)}


class ResetProgress(NamedTuple):
    """The progress of a reset.

    Attributes:
        common: The last CID that the client's history and the server's have in common. A change of
            the server up to this CID does not overwrite a dirty change: the client knew it before.
        phase: ``"A"``: pull the log from CID 0. ``"B"``: delete the keys that the server no longer
            has.
        cursor: The last key that phase B has compared; ``""`` before the first.
    """

    common: int
    phase: str
    cursor: str


@dataclass(frozen=True, slots=True)
class ClientState:
    """The replication state of a client.

    Attributes:
        id: The client's id.
        seq: The sequence number of its last push.
        server: The server's id; ``None`` before the first exchange.
        max_head: The highest server CID at which a page was read that the client has applied.
        epochs: The epochs of the server that the client has seen, oldest first. Old ones are
            dropped.
        push: The frozen push.
        withheld_push: A push that the server forbade before it had decided. An earlier copy may
            have been accepted, so the client withdraws it as soon as it may push again.
        own_range: The CIDs of the changes of the last accepted push, until the client has pulled
            them.
        reset: The reset in progress.
        bases: The record of base values; ``None`` if this client has never kept any.
    """

    id: str
    seq: int
    server: str | None = None
    max_head: int = 0
    epochs: tuple[Epoch, ...] = ()
    push: Push | None = None
    withheld_push: Push | None = None
    own_range: Ack | None = None
    reset: ResetProgress | None = None
    bases: Bases | None = None

    @property
    def base_generation(self) -> int | None:
        """The generation of the base values that local writes record; ``None`` if they do not.

        During a reset the data may be of a history that the server no longer has.
        """
        return self.bases.generation if self.bases is not None and self.bases.kept and self.reset is None else None

    @property
    def may_freeze(self) -> bool:
        """True if a new push may be frozen.

        The last push has been decided, its changes have been pulled, and no reset is in progress.
        """
        return self.push is None and self.withheld_push is None and self.own_range is None and self.reset is None

    @property
    def keys_after(self) -> str | None:
        """The key after which phase B of a reset continues; ``None`` outside phase B."""
        return self.reset.cursor if self.reset is not None and self.reset.phase == "B" else None

    def replacing(self, before: ClientState, space: _core.KeySpace) -> list[Entry]:
        """Return the entries that turn the stored state ``before`` into this one."""
        records = zip(NAMES, self._records(), before._records(), strict=True)
        return [(space.own_key(name), record) for name, record, old in records if record != old]

    def _records(self) -> list[bytes | None]:
        server = {"id": self.server, "hi": self.max_head, "epochs": [[*epoch] for epoch in self.epochs]}
        return [
            orjson.dumps([self.id, self.seq]),
            None if self.server is None else orjson.dumps(server),
            None if self.push is None else self.push.to_stored(),
            None if self.withheld_push is None else self.withheld_push.to_stored(),
            None if self.own_range is None else orjson.dumps([*self.own_range]),
            None if self.reset is None else orjson.dumps(self.reset._asdict()),
            None if self.bases is None else self.bases.to_stored(),
        ]
