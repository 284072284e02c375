"""The frozen push of a client.

A client freezes some of its dirty changes before it sends them: it stores them durably, with a
sequence number and a nonce. Every retry sends the same changes with the same nonce, until the
server has decided. So the server recognises a repeated push by its nonce.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from itertools import islice

from .. import _core
from ..backends.base import Reader, Row
from ..engine.records import OwnRecords
from .fields import MAX_PUSH
from .limits import PushLimits
from .manual import same_record
from .records import pushable_changes
from .state import Push

#: The maximum number of changes in a push.
PUSH_CHANGES = MAX_PUSH


def freeze(reader: Reader, own: OwnRecords, limits: PushLimits, seq: int) -> Push:
    """Return a new push of the first dirty changes, in key order, as many as the limits allow.

    The caller stores the push durably before sending it.

    Raises:
        CorruptionError: A dirty change is damaged.
    """
    chosen: list[Row] = []
    size = 0
    with closing(limits.pushable_rows(reader, own.space)) as rows:
        for row in islice(rows, PUSH_CHANGES):
            # The JSON counts: a key of control characters takes six times its bytes on the wire.
            size += len(row[1])
            if chosen and size > limits.max_bytes:
                break
            chosen.append(row)
    return Push(seq, uuid.uuid4().hex, pushable_changes(own, chosen))


def is_as_frozen(record: bytes, key: bytes, value: bytes | None) -> bool:
    """Return True if a dirty record still holds the change that was frozen."""
    return same_record(record, _core.join_record(key, value))
