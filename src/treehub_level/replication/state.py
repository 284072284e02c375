"""The replication state of a client: its records between two exchanges (``docs/format.md``).

Each record is stored under ``P + P + name``, where ``P`` is the prefix:

``id``      the client's id, and the sequence number of its last push
``server``  the server's id, ``hi`` (`ClientState.max_head`), and the epochs seen by the client
``push``    the frozen push: durable before it is sent, and resent until the server decides
``aside``   the withheld push: it is never sent again, only withdrawn
``own``     the range of CIDs of the last push, until the client's CID has passed the range
``reset``   the progress of a reset
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from ..engine.modes import Epoch
from ..errors import CorruptionError
from .fields import Ack
from .push import Push

_NAMES = ("id", "server", "push", "aside", "own", "reset")


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

    @classmethod
    def read(cls, reader: Reader, space: _core.KeySpace) -> ClientState:
        """Read the records.

        Raises:
            CorruptionError: A record is missing or malformed.
        """
        stored = reader.get_many([space.own_key(name) for name in _NAMES])
        try:
            identity, server, push, withheld_push, own_range, reset = (
                None if record is None else orjson.loads(record) for record in stored
            )
            id, seq = identity  # type: ignore[misc]  # None raises TypeError, which is caught below
            return cls(
                id=str(id),
                seq=int(seq),
                server=None if server is None else str(server["id"]),
                max_head=0 if server is None else int(server["hi"]),
                epochs=() if server is None else tuple(Epoch(str(id), int(start)) for id, start in server["epochs"]),
                push=None if push is None else Push.from_stored(push),
                withheld_push=None if withheld_push is None else Push.from_stored(withheld_push),
                own_range=None if own_range is None else Ack(*own_range),
                reset=reset and ResetProgress(int(reset["common"]), str(reset["phase"]), str(reset["cursor"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            records = dict(zip(_NAMES, stored, strict=True))
            raise CorruptionError(f"the replication state of this client cannot be read: {records!r:.200}") from error

    def replacing(self, before: ClientState, space: _core.KeySpace) -> list[Entry]:
        """Return the entries that turn the stored state ``before`` into this one."""
        records = zip(_NAMES, self._records(), before._records(), strict=True)
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
        ]
