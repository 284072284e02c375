"""The client's half of a fill: taking a part of the live entries of a range."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from .. import _core
from ..backends.base import Row, Transaction
from ..engine.following import Following
from .base_values import same_value
from .canonical import same_record
from .effects import Effects
from .journal import LostChange
from .messages import MAX_BYTES, FillPart

#: The number of local keys that one batch compares with a part.
SWEEP_KEYS = 65_536
#: Keys to read at a time.
_FETCH = 1000


class FillEffect(NamedTuple):
    """The effect of a part of a fill.

    Attributes:
        following: The ranges that the client follows, afterwards.
        entries: The number of entries that were written.
    """

    following: Following
    entries: int


class FillPartHandler:
    """Takes a part of a range that is being filled.

    A clean key gets the value of its entry; one without an entry is deleted. A dirty change is
    compared with the entry, unless the log decides on it.

    Args:
        effects: The effects of the reply.
        transaction: The transaction to read from.
        space: The key space of the store.
        following: The ranges that the client follows.
        cid: The CID at which the part was read.
        withheld: The change record of each key of the withheld push: see
            `ReplyHandler._withheld_records`.
    """

    def __init__(
        self,
        effects: Effects,
        transaction: Transaction,
        space: _core.KeySpace,
        following: Following,
        cid: int,
        withheld: Mapping[bytes, bytes],
    ) -> None:
        self._effects = effects
        self._transaction = transaction
        self._space = space
        self._following = following
        self._cid = cid
        self._withheld = withheld
        self._journaled = 0

    def apply(self, part: FillPart) -> FillEffect:
        """Collect the effects of a part.

        Memory stays bounded: if there are many local keys in the part, or large ones that go to the
        journal, only the beginning of the part is taken.
        """
        following, space = self._following, self._space
        prefix = part.prefix.encode()
        start = max(part.after.encode() + b"\0" if part.after else prefix, space.user_start)
        stop = _core.successor(prefix) if part.end else part.to.encode() + b"\0"
        local, local_cut = self._keys(start, stop)
        dirty, dirty_cut = self._dirty_keys(start, stop)
        cut = min((key for key in (local_cut, dirty_cut) if key is not None), default=None)
        if cut is not None:
            local, dirty = ([key for key in keys if key <= cut] for keys in (local, dirty))
        entries, end = part.entries, part.end
        cut = self._sweep(local, {*dirty}, {key for key, _ in entries}) or cut
        to = part.to
        if cut is not None:
            entries, end, to = [row for row in entries if row[0] <= cut], False, _core.decode_key(cut)
            dirty = [key for key in dirty if key <= cut]
        written = self._take(entries, dirty)
        return FillEffect(following.filled_to(part.prefix, to, end=end), written)

    def _keys(self, start: bytes, stop: bytes | None) -> tuple[list[bytes], bytes | None]:
        """Return the first stored keys of a range, and the last of them if there are more."""
        keys: list[bytes] = []
        with closing(self._transaction.scan(start, stop, values=False)) as cursor:
            while found := cursor.fetch_keys(_FETCH):
                keys += found
                if len(keys) >= SWEEP_KEYS:
                    return self._incomplete(keys), keys[-1]
        return self._incomplete(keys), None

    def _dirty_keys(self, start: bytes, stop: bytes | None) -> tuple[list[bytes], bytes | None]:
        """Return the first dirty keys of a range, and the last of them if there are more."""
        space = self._space
        dirty_stop = space.dirty_stop if stop is None else space.dirty_key(stop)
        found, cut = self._keys(space.dirty_key(start), dirty_stop)
        strip = len(space.prefix)
        keys = self._incomplete([key[strip:] for key in found])
        return [key for key in keys if key not in self._effects.cleaned], None if cut is None else cut[strip:]

    def _incomplete(self, keys: list[bytes]) -> list[bytes]:
        """Return the keys outside of the complete ranges: the part says nothing of the others."""
        following = self._following
        return [key for key in keys if not following.has(key)] if following.complete else keys

    def _sweep(self, local: list[bytes], dirty: set[bytes], live: set[bytes]) -> bytes | None:
        """Delete the clean local keys that the part proves absent.

        Returns:
            The last key that was compared, if not all were: the journal would grow too large.
        """
        gone = [key for key in local if key not in live and key not in dirty]
        if not self._following.is_resetting:
            self._effects.batch += [(key, None) for key in gone]
            return None
        written = {key for key, _ in self._effects.batch}
        size = 0
        for index, key in enumerate(gone):
            value = None if key in written else self._transaction.get(key)
            if value is not None:
                size += len(value)
                lost = LostChange(key, _core.join_record(key, value), None, self._cid, kind="reset")
                size += self._effects.replace([lost], [None], is_filled=True)
            else:
                self._effects.batch.append((key, None))
            if size > MAX_BYTES and index < len(gone) - 1:
                return key
        return None

    def _take(self, entries: list[Row], dirty: list[bytes]) -> int:
        """Write the entries of clean keys, and compare those of dirty ones.

        Returns:
            The number of entries that were written.
        """
        effects, following = self._effects, self._following
        if following.complete:  # a server sends none of these
            entries = [row for row in entries if not following.has(row[0])]
        if not dirty:
            effects.batch += entries
            return len(entries)
        among = {*dirty}
        effects.batch += [row for row in entries if row[0] not in among]
        live = dict(row for row in entries if row[0] in among)
        for key in dirty:
            self._compare(key, live.get(key))
        return len(entries) - len(live)

    def _compare(self, key: bytes, value: bytes | None) -> None:
        """Compare a dirty change with the server's value, unless the log decides on it."""
        effects = self._effects
        record = effects.record(key)
        if record is None:  # healed with its group
            return
        remote = _core.join_record(key, value)
        if effects.is_unchecked(key) and value is not None and not self._has_seen(key, value, remote):
            is_same = same_record(record, remote)
            if effects.loss(key) is not None:
                if not is_same:
                    effects.lose_group(key)
            elif is_same or not effects.lose_group(key):
                if not is_same:
                    effects.replace([LostChange(key, record, remote, self._cid, is_read=True)], [value], is_filled=True)
                else:
                    effects.clean(key)
                    effects.take(key, value)
                return
        effects.record_compared(key)
        if effects.loss(key) is None:
            effects.bases.learn_filled(key, value)
        else:
            effects.bases.forget(key)

    def _has_seen(self, key: bytes, value: bytes | None, remote: bytes) -> bool:
        """Return True if a dirty change was made with knowledge of the server's value."""
        base = self._effects.bases.known(key)
        if base is not None and same_value(base.value, value):
            return True
        return key in self._withheld and same_record(self._withheld[key], remote)
