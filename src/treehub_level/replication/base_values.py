"""The effect of an exchange, or of a manual sync, on the base values of a client.

The rule: the base value of a dirty key is the last value of the key on the server that the client
knows of. So it becomes the accepted value if a push is accepted while its key was rewritten, and
the pulled value if a dirty change stays although its key was pulled (``docs/protocol.md``, "Base
values"). It goes when the key is clean.
"""

from __future__ import annotations

from .. import _core
from ..backends.base import Entry, Reader
from ..engine.base_values import Bases, KnownBase, base_key, base_record, parse_base
from ..engine.following import Following
from ..engine.records import OwnRecords
from .canonical import same_record


class BaseValueChanges:
    """The base values that one batch changes.

    Args:
        reader: The store before the batch.
        own: The own records of the client.
        bases: The record of base values after the batch; ``None`` if the store never had any.
        following: The ranges that the client follows. A value that was recorded in a range that is
            not filled may be of a history that the server no longer has.
    """

    def __init__(self, reader: Reader, own: OwnRecords, bases: Bases | None, following: Following) -> None:
        self._following = following
        self._reader = reader
        self._own = own
        self._bases = bases
        self._changed: dict[bytes, KnownBase | None] = {}
        self._kept: dict[bytes, KnownBase] = {}

    @property
    def record(self) -> Bases | None:
        """The record of base values after the batch; ``None`` if the store never had any."""
        return self._bases

    def learn(self, key: bytes, value: bytes | None) -> None:
        """Record the server's value of a key that stays dirty: ``None`` if it has no such key."""
        if self._bases is not None and self._bases.kept and self._following.is_filled(key):
            self._changed[key] = KnownBase(value)

    def learn_accepted(self, key: bytes, value: bytes | None) -> None:
        """Record the value that the server has accepted for a key that stays dirty.

        In an unchecked range, a part of a fill may bring this value: the client has seen it.
        """
        if not self._following.is_unchecked(key):
            self.learn(key, value)
            return
        if self._bases is None:
            self._bases = Bases(1, kept=False)
        self._changed[key] = KnownBase(value)

    def forget(self, key: bytes) -> None:
        """Drop the base value of a key that becomes clean."""
        if self._bases is not None:
            self._changed[key] = None

    def learn_filled(self, key: bytes, value: bytes | None) -> None:
        """Record the server's value of a dirty key in a part of a fill, if base values are kept."""
        if self._bases is not None:
            self._changed[key] = KnownBase(value) if self._bases.kept else None

    def learn_merged(self, key: bytes, value: bytes | None, *, is_filled: bool) -> None:
        """Record the server's value that a merged change was made with.

        Args:
            key: The key.
            value: The server's value.
            is_filled: True if a part of a fill has brought the value.
        """
        self.forget(key)
        if is_filled:
            self.learn_filled(key, value)
        else:
            self.learn_accepted(key, value)

    def keep(self, key: bytes) -> None:
        """Keep the base value of an uncompared change when all others become void."""
        known = self.known(key)
        if known is not None:
            self._kept[key] = known

    def void(self, bases: Bases | None) -> None:
        """Void all base values, also those that this batch has recorded.

        Args:
            bases: The record of base values afterwards.
        """
        self._bases = bases
        self._changed = {**dict.fromkeys(self._changed), **self._kept}

    def change_of(self, key: bytes) -> bytes | None:
        """Return the change record of the base value of a dirty key; ``None`` if it is unknown.

        Raises:
            CorruptionError: The base value is damaged.
        """
        if self._bases is None or not self._bases.kept or not self._following.is_filled(key):
            return None
        known = self.known(key)
        return None if known is None else _core.join_record(key, known.value)

    def known(self, key: bytes) -> KnownBase | None:
        """Return the base value of a dirty key; ``None`` if it is unknown.

        Raises:
            CorruptionError: The base value is damaged.
        """
        if key in self._changed:
            return self._changed[key]
        if self._bases is None:
            return None
        stored_key = base_key(self._own.space, key)
        record = self._reader.get(stored_key)
        return None if record is None else parse_base(self._own, stored_key, record, self._bases)

    def entries(self) -> list[Entry]:
        """Return the entries of the batch."""
        if self._bases is None:
            return []
        space, generation = self._own.space, self._bases.generation
        return [
            (base_key(space, key), None if known is None else base_record(generation, known.value))
            for key, known in self._changed.items()
        ]


def same_value(one: bytes | None, other: bytes | None) -> bool:
    """Return True if two stored values are the same JSON, or both absent."""
    if one is None or other is None:
        return one is other
    return same_record(one, other)
