"""Encoding of user operations, and the batches of each mode. The counterpart of ``batch.pyx``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, final

from ..errors import InvalidValueError, ProtocolError
from ..types import Delete, Put
from .json import encode_value, json_value
from .json_structure import count_nodes
from .keys import (
    MAX_CID,
    MAX_VALUE_BYTES,
    KeySpace,
    check_bytes,
    check_cid,
    check_user_key,
    cid_key,
    decode_key,
    encode_key,
)
from .records import join_record, split_record

if TYPE_CHECKING:
    from ..backends.base import Entry

T = TypeVar("T")


@final
class Encoder:
    """See ``_core_c.pyi``."""

    __slots__ = ("_limit", "_prefix", "_raw_keys", "_raw_values", "_space")

    def __init__(
        self,
        space: KeySpace | None = None,
        *,
        key_prefix: str | bytes = "",
        raw_keys: bool = False,
        raw_values: bool = False,
    ) -> None:
        self._space = space
        self._limit = None if space is None else MAX_VALUE_BYTES
        self._prefix = key_prefix if isinstance(key_prefix, bytes) else encode_key(key_prefix)
        self._raw_keys = raw_keys
        self._raw_values = raw_values

    def key(self, key: object) -> bytes:
        """Encode one key."""
        if self._raw_keys:
            check_bytes(key, "a key of this store")
            return self._prefix + key  # type: ignore[operator]
        encoded = self._prefix + encode_key(key)  # type: ignore[arg-type]
        return encoded if self._space is None else check_user_key(self._space, encoded)

    def value(self, value: object) -> bytes:
        """Encode one value."""
        if self._raw_values:
            check_bytes(value, "a value of this store")
            return value  # type: ignore[return-value]
        return encode_value(value, self._limit)

    def put(self, key: object, value: object) -> Entry:
        """Encode one put."""
        return self.key(key), self.value(value)

    def delete(self, key: object) -> Entry:
        """Encode one deletion."""
        return self.key(key), None

    def ops(self, ops: Iterable[object]) -> list[Entry]:
        """See ``_core_c.pyi``."""
        return _encode_each(ops, self._op, "operation")

    def pairs(self, pairs: Iterable[tuple[object, object]]) -> list[Entry]:
        """See ``_core_c.pyi``."""
        return _encode_each(pairs, self._pair, "item")

    def changes(self, changes: Iterable[object]) -> list[Entry]:
        """See ``_core_c.pyi``."""
        return _encode_each(changes, self._change, "change")

    def records(self, records: Iterable[bytes]) -> list[Entry]:
        """See ``_core_c.pyi``."""
        return _encode_each(records, self._record, "change")

    def _op(self, op: object) -> Entry:
        if isinstance(op, Put):
            return self.put(op.key, op.value)
        if isinstance(op, Delete):
            return self.delete(op.key)
        if not isinstance(op, dict):
            raise TypeError(f"it must be a Put, a Delete or a dict, not {type(op).__name__}")
        kind = _field(op, "type")
        if kind == "put":
            return self.put(_field(op, "key"), _field(op, "value"))
        if kind == "del":
            return self.delete(_field(op, "key"))
        raise ValueError(f'its type must be "put" or "del", not {kind!r:.60}')

    def _pair(self, pair: object) -> Entry:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"it must be a (key, value) pair, not {_describe(pair)}")
        return self.put(pair[0], pair[1])

    def _change(self, change: object) -> Entry:
        if not isinstance(change, (tuple, list)) or not 1 <= len(change) <= 2:
            raise TypeError(f"it must be [key, value] or [key], not {_describe(change)}")
        return self.put(change[0], change[1]) if len(change) == 2 else self.delete(change[0])

    def _record(self, record: bytes) -> Entry:
        key, value = split_record(record)
        if value is None:
            return self.delete(decode_key(key))
        if self._limit is not None and len(value) > self._limit and count_nodes(value) > self._limit:
            # This core parses values. Each node takes at least one byte of JSON.
            raise InvalidValueError(f"the value takes more than {self._limit} bytes of JSON")
        return self.put(decode_key(key), json_value(value))


def _encode_each(items: Iterable[T], encode: Callable[[T], Entry], noun: str) -> list[Entry]:
    entries: list[Entry] = []
    for item in check_iterable(items, noun):
        try:
            entries.append(encode(item))
        except (TypeError, ValueError) as error:
            raise item_error(error, noun, len(entries)) from error
    return entries


def check_iterable(items: Iterable[T], noun: str) -> Iterable[T]:
    """Return items, or raise unless they are an iterable of operations, items or changes.

    Args:
        items: The argument of a user. A str, bytes or dict is iterable, but never meant as a list.
        noun: "operation", "item" or "change".

    Raises:
        TypeError: ``items`` is not a list of operations or items.
        ProtocolError: ``items`` is not a list of changes.
    """
    if isinstance(items, (str, bytes, dict)) or not hasattr(type(items), "__iter__"):
        kind = ProtocolError if noun == "change" else TypeError
        raise kind(f"a list of {noun}s is needed, not {type(items).__name__}")
    return items


def item_error(error: Exception, noun: str, number: int) -> Exception:
    """Return an error that names the faulty item: a ProtocolError if it is a change."""
    kind = ProtocolError if noun == "change" else type(error)
    return kind(f"{noun} {number}: {error}")


def _field(op: dict[Any, Any], name: str) -> object:
    try:
        return op[name]
    except KeyError:
        raise TypeError(f'the field "{name}" is missing') from None


def _describe(item: object) -> str:
    kind = type(item).__name__
    return f"a {kind} of {len(item)}" if isinstance(item, (tuple, list)) else kind


def server_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> list[Entry]:
    """See ``_core_c.pyi``."""
    check_cid(cid, 0)
    if not entries:
        return []
    if cid + len(entries) > MAX_CID:
        raise ValueError(f"{len(entries)} changes after change id {cid} would exceed {MAX_CID}, the highest change id")
    batch: list[Entry] = []
    for entry in entries:
        key, value = _check_entry(entry)
        cid += 1
        batch.append(entry)
        batch.append((space.prefix + cid_key(cid), join_record(key, value)))
    batch.append((space.prefix, b"%d" % cid))
    return batch


def client_batch(space: KeySpace, entries: Sequence[Entry]) -> list[Entry]:
    """See ``_core_c.pyi``."""
    batch: list[Entry] = []
    for entry in entries:
        key, value = _check_entry(entry)
        batch.append(entry)
        batch.append((space.prefix + key, join_record(key, value)))
    return batch


def apply_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> list[Entry]:
    """See ``_core_c.pyi``."""
    check_cid(cid, 0)
    batch: list[Entry] = []
    for entry in entries:
        key, _ = _check_entry(entry)
        batch.append(entry)
        batch.append((space.prefix + key, None))
    batch.append((space.prefix, b"%d" % cid))
    return batch


def _check_entry(entry: Entry) -> Entry:
    if type(entry) is tuple and len(entry) == 2:
        key, value = entry
        if isinstance(key, bytes) and (value is None or isinstance(value, bytes)):
            return entry
    raise TypeError("an entry must be a tuple of a key in bytes and a value in bytes, or None")
