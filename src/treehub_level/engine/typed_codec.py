"""`TypedCodec`: the codec of a view whose keys are tuples, or whose values are instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import _core
from ..errors import DecodeError, InvalidValueError
from ..ordered import TupleKey
from ..types import Delete, Put
from .codec import Codec
from .conversion import Conversion, MismatchError

if TYPE_CHECKING:
    from ..backends.base import Entry, Rows

T = TypeVar("T")


class TypedCodec(Codec):
    """A codec that also converts keys and values.

    Every verb encodes and decodes by the codec of its namespace. So all verbs of a view, and their
    filters, take and return tuples and instances.

    Args:
        codec: The codec of the level or sublevel of the view.
        prefix: The beginning of the keys of the view, within the level.
        model: The type of the values; ``None`` for JSON.
        key: The type of the keys; ``None`` for ``str``.

    Raises:
        TypeError: The level stores bytes, an argument is of a wrong type, or the type of the values
            cannot be converted.
        InvalidKeyError: No key can begin with the prefix.
        ModuleNotFoundError: The extra ``typed`` is not installed.
    """

    def __init__(self, codec: Codec, prefix: str, model: Any, key: Any) -> None:
        if codec.key_encoding != "utf8" or codec.value_encoding != "json":
            raise TypeError("a typed view needs str keys and JSON: the level was opened with another encoding")
        if not isinstance(prefix, str):
            raise TypeError(f"the prefix of a view is a str, not {prefix!r:.80}")
        if key is not None and not isinstance(key, TupleKey):
            raise TypeError(f"the keys of a view are of a type such as ordered.Tuple[str, int], not {key!r:.80}")
        if prefix:
            codec.encoder.key(prefix)
        super().__init__(codec.mode, codec.space, namespace=f"{codec.namespace!s}{prefix}")
        self._metadata = ""
        self._key = key
        values = None if model is None else Conversion(model)
        self.encoder = cast("_core.Encoder", TypedEncoder(self.encoder, key, values))
        self.decoder = cast("_core.Decoder", TypedDecoder(self.decoder, key, values))

    def inside(self, name: str, separator: str) -> Codec:
        """Refuse: a view has no sublevels."""
        raise TypeError("a typed view has no sublevels: make them from the level")

    def bounds(
        self, gt: object, gte: object, lt: object, lte: object, prefix: object
    ) -> tuple[bytes | None, bytes | None]:
        """See `Codec.bounds`. A bound of tuples may have the first elements only."""
        if self._key is not None:
            gt, gte, lt, lte, prefix = (
                None if bound is None else self._key.prefix(bound) for bound in (gt, gte, lt, lte, prefix)
            )
        return super().bounds(gt, gte, lt, lte, prefix)


class TypedEncoder:
    """An encoder that converts keys and values first: see ``_core.Encoder``."""

    def __init__(self, encoder: _core.Encoder, key: TupleKey | None, values: Conversion | None) -> None:
        self._encoder = encoder
        self._key = key
        self._values = values

    def key(self, key: Any) -> bytes:
        """Encode one key."""
        return self._encoder.key(self._text(key))

    def put(self, key: Any, value: Any) -> Entry:
        """Encode one put."""
        return self._encoder.put(self._text(key), self._json(key, value))

    def delete(self, key: Any) -> Entry:
        """Encode one deletion."""
        return self._encoder.delete(self._text(key))

    def ops(self, ops: Iterable[object]) -> list[Entry]:
        """Encode the operations of a batch."""
        return self._encoder.ops(_each(ops, self._op, "operation"))

    def pairs(self, pairs: Iterable[tuple[object, object]]) -> list[Entry]:
        """Encode (key, value) pairs as puts."""
        return self._encoder.pairs(_each(pairs, self._pair, "item"))

    def _text(self, key: Any) -> Any:
        return key if self._key is None else self._key.encode(key)

    def _json(self, key: Any, value: Any) -> Any:
        if self._values is None:
            return value
        try:
            return self._values.dump(value)
        except MismatchError as error:
            raise _located(
                InvalidValueError(
                    f"the value for the key {key!r:.80} is no {self._values.name}: {error.fault} at {error.path}"
                ),
                key,
                error.path,
            ) from None

    def _op(self, op: object) -> object:
        if isinstance(op, Put):
            return Put(self._text(op.key), self._json(op.key, op.value))
        if isinstance(op, Delete):
            return Delete(self._text(op.key))
        if isinstance(op, dict) and "key" in op:
            key = op["key"]
            op = {**op, "key": self._text(key)}
            if op.get("type") == "put" and "value" in op:
                op["value"] = self._json(key, op["value"])
        return op  # the encoder names the fault of another one

    def _pair(self, pair: Any) -> Any:
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            return self._text(pair[0]), self._json(pair[0], pair[1])
        return pair


class TypedDecoder:
    """A decoder that converts the keys and values afterwards: see ``_core.Decoder``."""

    def __init__(self, decoder: _core.Decoder, key: TupleKey | None, values: Conversion | None) -> None:
        self._decoder = decoder
        self._key = key
        self._values = values

    def key(self, key: bytes) -> Any:
        """Decode one key."""
        return self._tuple(self._decoder.key(key))

    def value(self, key: bytes, value: bytes) -> Any:
        """Decode the value stored under a key."""
        decoded = self._decoder.value(key, value)
        return decoded if self._values is None else self._load(self._values, self._decoder.key(key), decoded)

    def items(self, rows: Rows) -> list[tuple[Any, Any]]:
        """Decode keys and values."""
        pairs = self._decoder.items(rows)
        if self._values is not None:
            pairs = [(key, self._load(self._values, key, value)) for key, value in pairs]
        return pairs if self._key is None else [(self._tuple(key), value) for key, value in pairs]

    def keys(self, keys: Sequence[bytes]) -> list[Any]:
        """Decode many keys."""
        decoded = self._decoder.keys(keys)
        return decoded if self._key is None else [self._tuple(key) for key in decoded]

    def values(self, rows: Rows) -> list[Any]:
        """Decode many values."""
        return self._decoder.values(rows) if self._values is None else [value for _, value in self.items(rows)]

    def _tuple(self, key: str) -> Any:
        return key if self._key is None else self._key.decode(key)

    def _load(self, values: Conversion, key: str, value: Any) -> Any:
        try:
            return values.load(value)
        except MismatchError as error:
            located = self._tuple(key)
            raise _located(
                DecodeError(
                    f"the value stored under {located!r:.80} is no {values.name}: {error.fault} at {error.path}"
                ),
                located,
                error.path,
            ) from None


E = TypeVar("E", InvalidValueError, DecodeError)


def _located(error: E, key: Any, path: str) -> E:
    error.key, error.path = key, path
    return error


def _each(items: Any, convert: Callable[[Any], Any], noun: str) -> Any:
    """Return converted items; an argument that is no list of items unaltered, to be refused."""
    if isinstance(items, (str, bytes, dict)) or not isinstance(items, Iterable):
        return items
    return _converted(items, convert, noun)


def _converted(items: Iterable[Any], convert: Callable[[Any], Any], noun: str) -> Iterator[Any]:
    for index, item in enumerate(items):
        try:
            converted = convert(item)
        except (TypeError, ValueError) as error:
            error.args = (f"{noun} {index}: {error}",)
            raise
        yield converted
