"""Writes that depend on the present value of their key: ``if_absent`` and ``if_value``.

Two values are equal if they are the same JSON, in the form in which this package writes it. So 1
and 1.0 differ, and so do objects with the same members in another order. A value that was read
equals the one that is stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backends.base import Entry
from ..engine.codec import Codec
from ..engine.pending import PendingReader
from ..engine.store import Store
from ..engine.transact import transact
from ..errors import ConditionError
from ..types import ANY_VALUE, MISSING
from .canonical import same_record


class Condition(NamedTuple):
    """The value that a key must have for a write.

    Attributes:
        codec: The codec of the level.
        key: The key, as the caller gives it.
        stored_key: The stored key.
        wanted: The encoded value; ``None`` if the key must be absent.
    """

    codec: Codec
    key: Any
    stored_key: bytes
    wanted: bytes | None

    def require(self, reader: PendingReader) -> None:
        """Check the present value.

        Raises:
            ConditionError: It is another one.
        """
        found = reader.get(self.stored_key)
        if found is None or self.wanted is None:
            holds = found is self.wanted
        else:
            is_json = self.codec.value_encoding == "json"
            holds = same_record(found, self.wanted) if is_json else found == self.wanted
        if not holds:
            value = MISSING if found is None else self.codec.decoder.value(self.stored_key, found)
            fault = "is absent" if found is None else "has another value" if self.wanted else "exists already"
            raise ConditionError(
                f"the key {self.key!r:.80} {fault}, and nothing was written: `found` has the present value; "
                "read again, and decide anew",
                key=self.key,
                found=value,
            )


def condition_of(codec: Codec, key: Any, *, if_absent: object = False, if_value: Any = ANY_VALUE) -> Condition | None:
    """Return the condition of a write; ``None`` without one.

    Args:
        codec: The codec of the level.
        key: The key.
        if_absent: True if the key must be absent.
        if_value: The value that the key must have; `MISSING` if it must be absent.

    Raises:
        TypeError: ``if_absent`` is not a ``bool``, or the key is no key.
        ValueError: Both arguments are given.
        InvalidKeyError, InvalidValueError: The key, or the value, cannot be stored.
    """
    if not isinstance(if_absent, bool):
        raise TypeError(f"if_absent is True or False, not {if_absent!r:.80}")
    if if_value is ANY_VALUE:
        if not if_absent:
            return None
        if_value = MISSING
    elif if_absent:
        raise ValueError("give if_absent or if_value, not both")
    if if_value is MISSING:
        return Condition(codec, key, codec.encoder.key(key), None)
    stored_key, wanted = codec.encoder.put(key, if_value)
    return Condition(codec, key, stored_key, wanted)


def write_if(store: Store, condition: Condition, entry: Entry, *, durable: bool) -> None:
    """Write an entry if its condition holds.

    Raises:
        ConditionError: The condition does not hold. Nothing was written.
    """

    def write(pending: PendingReader) -> None:
        condition.require(pending)
        pending.accept([entry])

    transact(store, write, durable=durable)
