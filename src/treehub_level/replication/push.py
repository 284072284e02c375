"""The frozen push of a client.

A client freezes some of its dirty changes before it sends them: it stores them durably, with a
sequence number and a nonce. Every retry sends the same changes with the same nonce, until the
server has decided. So the server recognises a repeated push by its nonce. Changes that were written
together are pushed together: see ``engine.groups``.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import cached_property
from typing import NamedTuple

from .. import _core
from ..backends.base import Reader, Row
from ..engine.groups import Groups, group_bounds, last_group
from ..engine.records import OwnRecords
from ..engine.scan import first_key
from ..engine.uncompared import UncomparedChanges
from .canonical import same_record
from .fields import MAX_PUSH
from .limits import PushLimits
from .messages import MAX_BYTES
from .records import pushable_changes
from .state import ClientState, Push

#: The maximum number of changes in a push.
PUSH_CHANGES = MAX_PUSH


def freeze(
    reader: Reader, own: OwnRecords, limits: PushLimits, state: ClientState, lost: Collection[bytes]
) -> Push | None:
    """Return a new push of the first dirty changes, in key order, as many as the limits allow.

    The changes of a group are pushed together, or not at all. The first group or single change may
    be of any size that a push can have. The caller stores the push durably before sending it.

    Args:
        reader: The reader.
        own: The own records of the client.
        limits: The limits on pushing. A group that no push can hold is held back by them.
        state: The client's state.
        lost: The keys whose dirty changes have lost.

    Returns:
        The push; ``None`` if no dirty change may be pushed now.

    Raises:
        CorruptionError: A dirty change is damaged.
    """
    groups = DirtyGroups(reader, own)
    chosen: list[Row] = []
    runs: list[tuple[int, int]] = []
    size = 0
    for group in _pushable_groups(reader, own, limits, state, lost, groups):
        # The JSON counts: a key of control characters takes six times its bytes on the wire.
        size += group.size
        if chosen and (size > limits.max_bytes or len(chosen) + len(group.rows) > PUSH_CHANGES):
            break
        if len(group.rows) > 1:
            runs.append((len(chosen), len(group.rows)))
        chosen += group.rows
    if not chosen:
        return None
    changes = pushable_changes(own, chosen)
    number = last_group(reader, own) if groups else 0
    return Push(state.seq + 1, uuid.uuid4().hex, changes, tuple(runs), number)


class _PushableGroup(NamedTuple):
    """A dirty change, or the dirty changes of a group.

    Attributes:
        rows: The dirty changes, in key order.
        size: The size of their records, in bytes.
    """

    rows: list[Row]
    size: int


class DirtyGroups:
    """The groups of a client, and the dirty changes in them.

    Args:
        reader: The reader.
        own: The own records of the client.
    """

    def __init__(self, reader: Reader, own: OwnRecords) -> None:
        self._reader = reader
        self._own = own

    @cached_property
    def _groups(self) -> Groups:
        if first_key(self._reader, *group_bounds(self._own.space)) is None:
            return Groups({})
        return Groups.load(self._reader, self._own)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __contains__(self, key: bytes) -> bool:
        return key in self._groups

    def keys_with(self, key: bytes) -> list[bytes]:
        """Return the dirty keys that belong together with a dirty key, itself included."""
        return self._groups.component(key, self._is_dirty)

    def _is_dirty(self, key: bytes) -> bool:
        return self._reader.get(self._own.space.dirty_key(key)) is not None


def _pushable_groups(
    reader: Reader,
    own: OwnRecords,
    limits: PushLimits,
    state: ClientState,
    lost: Collection[bytes],
    groups: DirtyGroups,
) -> Iterator[_PushableGroup]:
    """Yield the groups of dirty changes that may be pushed, in the order of their first keys."""
    space, following = own.space, state.following
    uncompared = UncomparedChanges(reader, space, following)
    seen: set[bytes] = set()
    with closing(limits.pushable_rows(reader, space)) as rows:
        for row in rows:
            key = row[0][len(space.prefix) :]
            if key in seen:
                continue
            keys = groups.keys_with(key) if key in groups else [key]
            if len(keys) > 1:
                seen.update(keys)
            if any(other in lost or uncompared.is_unchecked(other) for other in keys):
                continue
            if limits.contended and not limits.contended.isdisjoint(map(space.dirty_key, keys)):
                continue
            if len(keys) == 1:
                yield _PushableGroup([row], len(row[1]))
                continue
            group = _read_group(reader, space, keys)
            if group is None:
                limits.hold_back([space.dirty_key(other) for other in keys], reader)
            elif limits.takes(group.rows):
                yield group


def _read_group(reader: Reader, space: _core.KeySpace, keys: list[bytes]) -> _PushableGroup | None:
    """Return the dirty changes of some keys; ``None`` if no push can hold them."""
    if len(keys) > MAX_PUSH:
        return None
    rows: list[Row] = []
    size = 0
    for dirty_key in map(space.dirty_key, keys):
        record = reader.get(dirty_key)
        assert record is not None, "the keys of a group are dirty"
        rows.append((dirty_key, record))
        size += len(record)
        if size > MAX_BYTES:
            return None
    return _PushableGroup(rows, size)


def is_as_frozen(record: bytes, key: bytes, value: bytes | None) -> bool:
    """Return True if a dirty record still holds the change that was frozen."""
    return same_record(record, _core.join_record(key, value))
