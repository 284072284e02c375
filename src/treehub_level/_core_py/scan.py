"""Range scans, decoded in bulk. The counterpart of ``scan.pyx``."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, final

import orjson

from ..errors import DecodeError
from .json import object_of_pairs
from .keys import KeySpace, check_bytes, check_user_key, decode_key, encode_key, quoted
from .packed import unpack

if TYPE_CHECKING:
    from ..backends.base import Row, Rows


#: The length from which a result is moved to the oldest generation of the garbage collector.
PROMOTE_COUNT: Final = 10_000


@final
class Decoder:
    """See ``_core_c.pyi``."""

    __slots__ = ("_raw_keys", "_raw_values", "_strip")

    def __init__(self, *, strip: int = 0, raw_keys: bool = False, raw_values: bool = False) -> None:
        if strip < 0:
            raise ValueError(f"strip must be 0 or more bytes, not {strip}")
        self._strip = strip
        self._raw_keys = raw_keys
        self._raw_values = raw_values

    def key(self, key: bytes) -> Any:
        """Decode one key."""
        check_bytes(key, "a stored key")
        stripped = key[self._strip :]
        return stripped if self._raw_keys else decode_key(stripped)

    def value(self, key: bytes, value: bytes) -> Any:
        """Decode the value stored under key."""
        check_bytes(value, "a stored value")
        if self._raw_values:
            return value
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"the value stored under {quoted(key)} is not JSON: {error}") from error

    def items(self, rows: Rows) -> list[tuple[Any, Any]]:
        """Decode keys and values."""
        rows = _as_rows(rows)
        return list(zip(self.keys([key for key, _ in rows]), self.values(rows), strict=True))

    def keys(self, keys: Sequence[bytes]) -> list[Any]:
        """Decode many keys."""
        return [self.key(key) for key in keys]

    def values(self, rows: Rows) -> list[Any]:
        """Decode many values, with one call of the JSON parser if all of them are valid."""
        rows = _as_rows(rows)
        if not self._raw_values:
            decoded = _loads_all([value for _, value in rows])
            if decoded is not None:
                return decoded
        return [self.value(key, value) for key, value in rows]


def _as_rows(rows: Rows) -> Sequence[Row]:
    return cast("Sequence[Row]", unpack(rows)) if isinstance(rows, bytes) else rows


def collect(
    fetch: Callable[[int], Any],
    decode: Callable[[Any], list[Any]],
    keep: Callable[[Any], object] | None,
    limit: int | None,
    chunk: int,
) -> list[Any]:
    """See ``_core_c.pyi``."""
    if keep is None:
        return _without_gc(_collect_all, fetch, decode, limit, chunk)
    results: list[Any] = []
    while (limit is None or len(results) < limit) and (rows := fetch(chunk)):
        for result in _without_gc(decode, rows):
            if keep(result):
                results.append(result)
                if len(results) == limit:
                    break
    return results


def _collect_all(
    fetch: Callable[[int], Any], decode: Callable[[Any], list[Any]], limit: int | None, chunk: int
) -> list[Any]:
    results: list[Any] = []
    while limit is None or len(results) < limit:
        rows = fetch(chunk if limit is None else min(chunk, limit - len(results)))
        if not rows:
            break
        results += decode(rows)
    if len(results) >= PROMOTE_COUNT:
        promote()
    return results


def promote() -> None:
    """Move all young objects to the oldest generation of the garbage collector.

    A full collection would do the same. Without it, the next collection would traverse a large
    result while every thread waits.
    """
    if not gc.get_freeze_count():  # objects that the program has frozen stay frozen
        gc.freeze()
        gc.unfreeze()


def decode_changes(records: Sequence[bytes]) -> list[Any]:
    """See ``_core_c.pyi``."""
    changes = _loads_all(records)
    if changes is not None and all(map(_is_change, changes)):
        return changes
    return [_change(record) for record in records]


def _change(record: bytes) -> Any:
    check_bytes(record, "a change record")
    try:
        change = orjson.loads(record)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{quoted(record)} is not a change record: {error}") from error
    if not _is_change(change):
        raise ValueError(f"{quoted(record)} is not a change record: it is neither [key] nor [key,value]")
    return change


def _is_change(change: object) -> bool:
    return type(change) is list and 1 <= len(change) <= 2 and type(change[0]) is str


def find_damaged(space: KeySpace, records: Sequence[bytes]) -> int | None:
    """See ``_core_c.pyi``."""
    for index, record in enumerate(records):
        if not is_log_record(space, record):
            return index
    return None


def is_log_record(space: KeySpace, record: bytes) -> bool:
    """Return True if a record is a change of a user key, and no object names a member twice."""
    check_bytes(record, "a change record")
    try:
        change = orjson.loads(record)
        if not _is_change(change):
            return False
        check_user_key(space, encode_key(change[0]))
        if orjson.dumps(change) != record:  # @treehub/level has written it, or a member occurs twice
            json.loads(record, object_pairs_hook=object_of_pairs)
    except (ValueError, TypeError, RecursionError):  # orjson refuses to write deeply nested values
        return False
    return True


def _loads_all(texts: Sequence[bytes]) -> list[Any] | None:
    """Parse many JSON texts at once; return None if one of them is invalid."""
    try:
        parsed: list[Any] = orjson.loads(b"[%b]" % b",".join(texts))
    except (orjson.JSONDecodeError, TypeError):
        return None
    return parsed if len(parsed) == len(texts) else None


def _without_gc(function: Callable[..., list[Any]], *args: Any) -> list[Any]:
    if not gc.isenabled():
        return function(*args)
    gc.disable()
    try:
        return function(*args)
    finally:
        gc.enable()
