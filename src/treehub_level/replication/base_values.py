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
from ..engine.records import OwnRecords


class BaseValueChanges:
    """The base values that one batch changes.

    Args:
        reader: The store before the batch.
        own: The own records of the client.
        bases: The record of base values after the batch; ``None`` if the store never had any.
    """

    def __init__(self, reader: Reader, own: OwnRecords, bases: Bases | None) -> None:
        self._reader = reader
        self._own = own
        self._bases = bases
        self._changed: dict[bytes, KnownBase | None] = {}

    def learn(self, key: bytes, value: bytes | None) -> None:
        """Record the server's value of a key that stays dirty: ``None`` if it has no such key."""
        if self._bases is not None and self._bases.kept:
            self._changed[key] = KnownBase(value)

    def forget(self, key: bytes) -> None:
        """Drop the base value of a key that becomes clean."""
        if self._bases is not None:
            self._changed[key] = None

    def void(self) -> Bases | None:
        """Void all base values, also those that this batch has recorded, and return the record."""
        self._bases = None if self._bases is None else self._bases.void()
        self._changed = dict.fromkeys(self._changed)
        return self._bases

    def change_of(self, key: bytes) -> bytes | None:
        """Return the change record of the base value of a dirty key; ``None`` if it is unknown.

        Raises:
            CorruptionError: The base value is damaged.
        """
        known = self._changed[key] if key in self._changed else self._stored(key)
        return None if known is None else _core.join_record(key, known.value)

    def _stored(self, key: bytes) -> KnownBase | None:
        if self._bases is None or not self._bases.kept:
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
