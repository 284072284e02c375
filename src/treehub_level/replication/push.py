"""The frozen push of a client.

A client freezes some of its dirty changes before it sends them: it stores them durably, with a
sequence number and a nonce. Every retry sends the same changes with the same nonce, until the
server has decided. So the server recognises a repeated push by its nonce.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from ..errors import CorruptionError, ProtocolError
from .fields import MAX_CHANGES
from .limits import PushLimits
from .manual import same_record

#: The maximum number of changes in a push.
PUSH_CHANGES = MAX_CHANGES


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

    @classmethod
    def from_stored(cls, record: Any) -> Push:
        """Return the push that `to_stored` has encoded, from its decoded JSON.

        Raises:
            KeyError, TypeError, ValueError: ``record`` is not an encoded push.
        """
        return cls(int(record["seq"]), str(record["nonce"]), list(record["changes"]))

    def to_stored(self) -> bytes:
        """Return the push as it is stored."""
        return orjson.dumps(self._asdict())

    def entries(self, space: _core.KeySpace) -> list[Entry]:
        """Return the changes, encoded: each key with its value, or with ``None`` for a delete."""
        return _core.Encoder(space).changes(self.changes)

    def records(self, space: _core.KeySpace) -> dict[bytes, bytes]:
        """Return the change record of each key."""
        return {key: _core.join_record(key, value) for key, value in self.entries(space)}


def freeze(reader: Reader, space: _core.KeySpace, limits: PushLimits, seq: int) -> Push:
    """Return a new push of the first dirty changes, in key order, as many as the limits allow.

    The caller stores the push durably before sending it.

    Raises:
        CorruptionError: A dirty change cannot be decoded.
    """
    encoder = _core.Encoder(space)
    changes: list[Any] = []
    size = 0
    with closing(limits.pushable_rows(reader, space)) as rows:
        for stored_key, record in islice(rows, PUSH_CHANGES):
            try:
                change = _core.decode_changes([record])[0]
                ((key, value),) = encoder.changes([change])
            except (ValueError, ProtocolError) as error:
                raise CorruptionError(f"the dirty change under {stored_key!r} cannot be sent: {error}") from error
            size += len(key) + len(value or b"")
            if changes and size > limits.max_bytes:
                break
            changes.append(change)
    return Push(seq, uuid.uuid4().hex, changes)


def is_as_frozen(record: bytes, key: bytes, value: bytes | None) -> bool:
    """Return True if a dirty record still holds the change that was frozen."""
    return same_record(record, _core.join_record(key, value))
