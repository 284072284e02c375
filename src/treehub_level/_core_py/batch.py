"""User operations to one write batch, for write, change, apply and clean. The twin of ``batch.pyx``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import orjson

from ..errors import InvalidValueError, ProtocolError
from ..types import Delete, Put
from .keys import (
    MAX_CID,
    MAX_DEPTH,
    MAX_VALUE_BYTES,
    KeySpace,
    check_bytes,
    check_cid,
    check_user_key,
    cid_key,
    encode_key,
    shown,
    shown_int,
)
from .records import join_record

if TYPE_CHECKING:
    from ..backends.base import Entry

T = TypeVar("T")

_ONLY_STR: Final = frozenset({str})
#: Types of which orjson refuses every value that would not come back equal, so that it alone need look at them.
_SIMPLE: Final = frozenset({str, int, bool, type(None)})
#: What orjson returns keeps the buffer that it was written in, of 1 KiB (3.11) or 4 KiB (3.13), however short it is.
#: Copies take a tenth of the memory, and half of the time, since every value is then written in the same warm buffer.
_WORTH_COPYING: Final = 2048


class JSONBytes(bytes):
    """See ``_core_c.pyi``."""

    __slots__ = ()


def check_value(value: object) -> None:
    """See ``_core_c.pyi``."""
    if not isinstance(value, JSONBytes):
        _check(value, "$", MAX_DEPTH)


def encode_value(value: object, limit: int | None = None) -> bytes:
    """See ``_core_c.pyi``."""
    if isinstance(value, JSONBytes):
        encoded: bytes = value
    else:
        if not _plain(value, MAX_DEPTH):
            _check(value, "$", MAX_DEPTH)
        try:
            encoded = orjson.dumps(value)
        except orjson.JSONEncodeError as error:
            _check(value, "$", MAX_DEPTH)
            raise InvalidValueError(f"the value cannot be encoded: {error}") from error
        if len(encoded) < _WORTH_COPYING:
            encoded = b"%b" % encoded
    if limit is not None and len(encoded) > limit:
        raise InvalidValueError(f"the value takes {len(encoded)} bytes of JSON, and at most {limit} are allowed")
    return encoded


def _plain(value: object, depth: int) -> bool:
    """Whether all types in here are plain and all floats finite, so that orjson finds whatever else may be wrong."""
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if depth == 0:
        return False
    inner: Iterable[object]
    if kind is dict:
        if not _ONLY_STR.issuperset(map(type, value)):  # type: ignore[call-overload]
            return False
        inner = value.values()  # type: ignore[attr-defined]
    elif kind is list or kind is tuple:
        inner = value  # type: ignore[assignment]
    else:
        return False
    return not any(type(item) not in _SIMPLE and not _plain(item, depth - 1) for item in inner)


def _check(value: object, path: str, depth: int) -> None:
    """Raise InvalidValueError, naming the fault and its place, for whatever would not come back equal."""
    if isinstance(value, Enum):
        # orjson writes a member as its value; only one that equals its value comes back equal.
        if not isinstance(value, (str, int)) or value != value.value:
            raise _unstorable(value, path)
        value = value.value
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not _encodable(value):
            raise InvalidValueError(f"a str with a lone surrogate {_at(path)}: it is not Unicode text, remove it")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidValueError(f"{shown_int(value)} {_at(path)}: an int lies between -2**63 and 2**64 - 1")
    elif type(value) is float:
        if not math.isfinite(value):
            raise InvalidValueError(f"{value} {_at(path)}: JSON holds finite numbers only")
    elif isinstance(value, (list, dict)) or type(value) is tuple:
        if depth == 0:
            raise InvalidValueError(f"more than {MAX_DEPTH} containers inside each other {_at(path)}")
        if isinstance(value, dict):
            for key, item in dict.items(value):
                _check(item, f"{path}{_step(key, path)}", depth - 1)
        else:
            for index, item in enumerate(tuple(value)):
                _check(item, f"{path}[{index}]", depth - 1)
    else:
        raise _unstorable(value, path)


def _step(key: object, path: str) -> str:
    if type(key) is not str:
        raise InvalidValueError(f"a dict key of type {type(key).__name__} {_at(path)}: it must be a str")
    if not _encodable(key):
        raise InvalidValueError(f"a dict key with a lone surrogate {_at(path)}: it is not Unicode text, remove it")
    return f".{key}" if key.isidentifier() else f"[{shown(key)}]"


def _encodable(text: str) -> bool:
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True


def _unstorable(value: object, path: str) -> InvalidValueError:
    return InvalidValueError(
        f"a value of type {type(value).__name__} {_at(path)}: only None, bool, int, float, str, list, tuple and dict "
        f"can be stored, convert it first"
    )


def _at(path: str) -> str:
    return f"at {path}" if len(path) <= 120 else f"at {path[:60]}…{path[-59:]}"


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
        return _each(ops, self._op, "operation")

    def pairs(self, pairs: Iterable[tuple[object, object]]) -> list[Entry]:
        """See ``_core_c.pyi``."""
        return _each(pairs, self._pair, "item")

    def changes(self, changes: Iterable[object]) -> list[Entry]:
        """See ``_core_c.pyi``."""
        return _each(changes, self._change, "change")

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
            raise TypeError(f"it must be a (key, value) pair, not {_described(pair)}")
        return self.put(pair[0], pair[1])

    def _change(self, change: object) -> Entry:
        if not isinstance(change, (tuple, list)) or not 1 <= len(change) <= 2:
            raise TypeError(f"it must be [key, value] or [key], not {_described(change)}")
        return self.put(change[0], change[1]) if len(change) == 2 else self.delete(change[0])


def _each(items: Iterable[T], encode: Callable[[T], Entry], what: str) -> list[Entry]:
    entries: list[Entry] = []
    for item in iterate(items, what):
        try:
            entries.append(encode(item))
        except (TypeError, ValueError) as error:
            raise numbered(error, what, len(entries)) from error
    return entries


def iterate(items: Iterable[T], what: str) -> Iterable[T]:
    """Return items, unless they are nothing that can be a list of operations, items or changes."""
    if isinstance(items, (str, bytes, dict)) or not hasattr(type(items), "__iter__"):
        kind = ProtocolError if what == "change" else TypeError
        raise kind(f"a list of {what}s is needed, not {type(items).__name__}")
    return items


def numbered(error: Exception, what: str, number: int) -> Exception:
    """The error that tells which item of many was at fault: of the same type, or for a change a ProtocolError."""
    kind = ProtocolError if what == "change" else type(error)
    return kind(f"{what} {number}: {error}")


def _field(op: dict[Any, Any], name: str) -> object:
    try:
        return op[name]
    except KeyError:
        raise TypeError(f'the field "{name}" is missing') from None


def _described(item: object) -> str:
    kind = type(item).__name__
    return f"a {kind} of {len(item)}" if isinstance(item, (tuple, list)) else kind


def server_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> list[Entry]:
    """See ``_core_c.pyi``."""
    check_cid(cid, 0)
    if not entries:
        return []
    if cid + len(entries) > MAX_CID:
        raise ValueError(f"{len(entries)} changes after change id {cid} would pass {MAX_CID}, the highest there is")
    batch: list[Entry] = []
    for entry in entries:
        key, value = _parts(entry)
        cid += 1
        batch.append(entry)
        batch.append((space.prefix + cid_key(cid), join_record(key, value)))
    batch.append((space.prefix, b"%d" % cid))
    return batch


def client_batch(space: KeySpace, entries: Sequence[Entry]) -> list[Entry]:
    """See ``_core_c.pyi``."""
    batch: list[Entry] = []
    for entry in entries:
        key, value = _parts(entry)
        batch.append(entry)
        batch.append((space.prefix + key, join_record(key, value)))
    return batch


def apply_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> list[Entry]:
    """See ``_core_c.pyi``."""
    check_cid(cid, 0)
    batch: list[Entry] = []
    for entry in entries:
        key, _ = _parts(entry)
        batch.append(entry)
        batch.append((space.prefix + key, None))
    batch.append((space.prefix, b"%d" % cid))
    return batch


def _parts(entry: Entry) -> Entry:
    if type(entry) is tuple and len(entry) == 2:
        key, value = entry
        if isinstance(key, bytes) and (value is None or isinstance(value, bytes)):
            return entry
    raise TypeError("an entry must be a tuple of a key in bytes and a value in bytes, or None")
