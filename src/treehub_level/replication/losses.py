"""Losses: dirty changes that have lost, and wait for the server's value of their key.

A loss is stored under ``P + P + "lost/" + key``, as the JSON object ``{"kind", "reason"?, "local"?,
"overtaken"?}``. The dirty change stays until a reply has the server's value. Then one batch
journals it, and takes that value.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from ..engine.records import OwnRecords
from ..engine.scan import first_key, rows
from .canonical import same_record
from .fields import MAX_REASON

_LOST: Final = "lost/"
#: The first name after those of losses: "0" follows "/" in ASCII.
_AFTER_LOSSES: Final = "lost0"
_OVERTAKEN: Final = {"overtaken": True}


class Loss(NamedTuple):
    """The loss of a dirty change.

    Attributes:
        kind: ``"conflict"``: another change has won. ``"refused"``: the rules of the server, or the
            rights of a token, refuse it.
        reason: The reason of a refusal.
        local: The refused change record. A later change of the key has not been judged.
        is_overtaken: True if others have changed the key since the refusal: a later change of the
            key, which was made without knowledge of theirs, has lost to them.
    """

    kind: Literal["conflict", "refused"]
    reason: str | None = None
    local: bytes | None = None
    is_overtaken: bool = False

    def to_stored(self) -> bytes:
        """Return the loss as it is stored."""
        members = b'{"kind":%b' % orjson.dumps(self.kind)
        if self.reason is not None:
            members += b',"reason":%b' % orjson.dumps(self.reason)
        if self.local is not None:
            members += b',"local":%b' % self.local
        if self.is_overtaken:
            members += b',"overtaken":true'
        return members + b"}"

    def of(self, record: bytes) -> Loss | None:
        """Return the loss of the dirty change with a record; ``None`` if that one has not lost."""
        if self.local is None or same_record(self.local, record):
            return self
        return CONFLICT if self.is_overtaken else None


CONFLICT: Final = Loss("conflict")


def loss_bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    """Return the range of the keys of all losses."""
    return space.own_key(_LOST), space.own_key(_AFTER_LOSSES)


def loss_key(space: _core.KeySpace, key: bytes) -> bytes:
    """Return the key of the loss of a user key's dirty change."""
    return space.own_key(_LOST) + key


def has_losses(reader: Reader, space: _core.KeySpace) -> bool:
    """Return True if there is a loss."""
    return first_key(reader, *loss_bounds(space)) is not None


def parse_loss(own: OwnRecords, stored_key: bytes, record: bytes) -> Loss:
    """Decode a loss.

    Raises:
        CorruptionError: The record is malformed.
    """
    match own.decode(stored_key, record):
        case {"kind": "conflict"} as document if len(document) == 1:
            return CONFLICT
        case {"kind": "refused", "reason": str(reason), "local": list(local), **rest} if rest in ({}, _OVERTAKEN):
            change = _local_record(record, local, is_overtaken=bool(rest))
            if 0 < len(reason) <= MAX_REASON and change is not None and change[0] == key_of(own, stored_key):
                return Loss("refused", reason, change[1], bool(rest))
    raise own.damaged(
        stored_key, 'of a lost change is neither a conflict nor a refusal with "reason" and "local"', record
    )


def _local_record(record: bytes, local: Any, *, is_overtaken: bool) -> tuple[bytes, bytes] | None:
    """Return the key and the record of a refused change; ``None`` if it is malformed."""
    rest = record.removesuffix(b"}").removesuffix(b',"overtaken":true' if is_overtaken else b"")
    text = rest[rest.index(b',"local":') + len(b',"local":') :] if b',"local":' in rest else b""
    try:
        if orjson.loads(text) != local:
            text = orjson.dumps(local)
        return _core.split_record(text)[0], text
    except ValueError:
        return None


def key_of(own: OwnRecords, stored_key: bytes) -> bytes:
    """Return the user key of a loss."""
    return stored_key[len(own.key(_LOST)) :]


def read_losses(reader: Reader, own: OwnRecords) -> dict[bytes, Loss]:
    """Return the loss of each key, in key order.

    Raises:
        CorruptionError: A record is malformed.
    """
    return {key_of(own, key): parse_loss(own, key, record) for key, record in rows(reader, *loss_bounds(own.space))}


def read_current_losses(reader: Reader, own: OwnRecords) -> tuple[dict[bytes, Loss], list[bytes]]:
    """Return the losses of changes that are still the same, and the keys of the others.

    Raises:
        CorruptionError: A record is malformed.
    """
    losses = read_losses(reader, own)
    current: dict[bytes, Loss] = {}
    for key, loss in losses.items():
        record = reader.get(own.space.dirty_key(key))
        present = None if record is None else loss.of(record)
        if present is not None:
            current[key] = present
    return current, [key for key in losses if key not in current]


def loss_entry(space: _core.KeySpace, key: bytes, loss: Loss | None) -> Entry:
    """Return the entry that stores, or with ``None`` deletes, the loss of a key."""
    return loss_key(space, key), None if loss is None else loss.to_stored()
