"""What a client keeps for replication between two exchanges, each under ``P + P`` and its name (``format.md``).

``id``      its id, and the number of its last frozen push
``server``  the server's id, ``hi``, and the epochs of it that were seen
``push``    the frozen push: durable before it is sent, and resent as it is until the server has decided
``aside``   one that the server forbade before it had decided: it is never sent again, only taken back
``own``     the CIDs that its own last push got, until its CID has passed them
``reset``   how far a reset has come
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from ..engine.modes import Epoch
from ..errors import CorruptionError
from .fields import Ack

_NAMES = ("id", "server", "push", "aside", "own", "reset")


class Push(NamedTuple):
    """A frozen push."""

    seq: int
    nonce: str
    changes: list[Any]

    @property
    def keys(self) -> list[str]:
        """What it changes."""
        return [change[0] for change in self.changes]


class Resetting(NamedTuple):
    """A reset under way.

    Attributes:
        common: The CID up to which dirty changes were made in knowledge of the server's.
        phase: ``"A"``: pulling everything from CID 0. ``"B"``: comparing keys.
        cursor: The key up to which they were compared.
    """

    common: int
    phase: str
    cursor: str


@dataclass(frozen=True, slots=True)
class State:
    """A client's own records.

    Attributes:
        id: The client's id.
        seq: The number of its last frozen push.
        server: The server's id; ``None`` before the first exchange.
        hi: The highest CID of the server at which a page that was applied was read.
        epochs: The epochs of the server that were seen, oldest first; old ones are forgotten.
        push: The frozen push.
        aside: A push that was forbidden, and of which nobody knows whether an earlier copy was taken.
        own: The CIDs of its own last push, while its CID is below their last.
        reset: The reset under way.
    """

    id: str
    seq: int
    server: str | None = None
    max_head: int = 0
    epochs: tuple[Epoch, ...] = ()
    push: Push | None = None
    withheld_push: Push | None = None
    own_range: Ack | None = None
    reset: Resetting | None = None

    @classmethod
    def read(cls, reader: Reader, space: _core.KeySpace) -> State:
        """Read the records.

        Raises:
            CorruptionError: One is missing, or is not what this class writes.
        """
        stored = reader.get_many([space.own_key(name) for name in _NAMES])
        try:
            identity, server, push, withheld_push, own_range, reset = (
                None if record is None else orjson.loads(record) for record in stored
            )
            id, seq = identity  # type: ignore[misc]  # None raises a TypeError, as it should
            return cls(
                id=str(id),
                seq=int(seq),
                server=None if server is None else str(server["id"]),
                max_head=0 if server is None else int(server["hi"]),
                epochs=() if server is None else tuple(Epoch(str(id), int(start)) for id, start in server["epochs"]),
                push=_read_push(push),
                withheld_push=_read_push(withheld_push),
                own_range=None if own_range is None else Ack(*own_range),
                reset=reset and Resetting(int(reset["common"]), str(reset["phase"]), str(reset["cursor"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            shown = dict(zip(_NAMES, stored, strict=True))
            raise CorruptionError(f"this client's own records cannot be read: {shown!r:.200}") from error

    def replacing(self, before: State, space: _core.KeySpace) -> list[Entry]:
        """What to write where ``before`` is stored, so that this is."""
        records = zip(_NAMES, self._records(), before._records(), strict=True)
        return [(space.own_key(name), record) for name, record, old in records if record != old]

    def _records(self) -> list[bytes | None]:
        server = {"id": self.server, "hi": self.max_head, "epochs": [[*epoch] for epoch in self.epochs]}
        return [
            orjson.dumps([self.id, self.seq]),
            None if self.server is None else orjson.dumps(server),
            None if self.push is None else orjson.dumps(self.push._asdict()),
            None if self.withheld_push is None else orjson.dumps(self.withheld_push._asdict()),
            None if self.own_range is None else orjson.dumps([*self.own_range]),
            None if self.reset is None else orjson.dumps(self.reset._asdict()),
        ]


def _read_push(record: Any) -> Push | None:
    return None if record is None else Push(int(record["seq"]), str(record["nonce"]), list(record["changes"]))
