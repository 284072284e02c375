"""`KeyRanges`: a set of stored keys, given by ranges. It says of a key in a few steps if it has it.

A client follows up to 256 prefixes, and its user may have some. A client gets the keys in a
combination of both: a union, an intersection and a difference of ranges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from .. import _core
from ..errors import InvalidKeyError

#: A range of stored keys: its start (inclusive) and its stop (exclusive, ``None`` for no end).
KeySpan = tuple[bytes, bytes | None]


class KeyRanges:
    """The union of ranges of stored keys.

    Args:
        spans: The ranges, in any order. They may overlap, or be empty.
    """

    __slots__ = ("_bounds",)

    def __init__(self, spans: Iterable[KeySpan]) -> None:
        # Starts and stops in turn, rising. An open end has no stop. So a key is in a range if an
        # odd number of bounds is at most the key.
        self._bounds: list[bytes] = []
        for start, stop in sorted(spans, key=lambda span: span[0]):
            self._append(start, stop)

    def _append(self, start: bytes, stop: bytes | None) -> None:
        """Append a range that starts at the start of the last one or after it."""
        bounds = self._bounds
        if (stop is not None and stop <= start) or len(bounds) % 2:
            return
        if bounds and start <= bounds[-1]:
            start = bounds[-2]
            stop = None if stop is None else max(stop, bounds[-1])
            del bounds[-2:]
        bounds.append(start)
        if stop is not None:
            bounds.append(stop)

    @classmethod
    def of_prefixes(cls, prefixes: Iterable[bytes]) -> KeyRanges:
        """Return the keys that begin with one of the prefixes."""
        return cls((prefix, _core.successor(prefix)) for prefix in prefixes)

    def __contains__(self, key: bytes) -> bool:
        return bisect_right(self._bounds, key) % 2 == 1

    def __bool__(self) -> bool:
        """Return True unless the set is empty."""
        return bool(self._bounds)

    def __iter__(self) -> Iterator[KeySpan]:
        """Iterate over the ranges in key order. They do not overlap."""
        bounds = [*self._bounds, *([None] if len(self._bounds) % 2 else [])]
        for start, stop in zip(bounds[::2], bounds[1::2], strict=True):
            assert start is not None, "only the last bound is open"
            yield start, stop

    @property
    def is_all(self) -> bool:
        """True if every key is in the set."""
        return self._bounds == [b""]

    def union(self, other: Iterable[KeySpan]) -> KeyRanges:
        """Return the keys that are in either set."""
        return KeyRanges([*self, *other])

    def within(self, start: bytes, stop: bytes | None) -> KeyRanges:
        """Return the keys of this set from ``start`` to before ``stop``."""
        return KeyRanges((max(start, first), _lower(stop, last)) for first, last in self)

    def intersection(self, other: Iterable[KeySpan]) -> KeyRanges:
        """Return the keys that are in both sets."""
        return KeyRanges(span for start, stop in other for span in self.within(start, stop))

    def without(self, other: KeyRanges) -> KeyRanges:
        """Return the keys of this set that are not in the other one."""
        return KeyRanges(span for start, stop in other._gaps() for span in self.within(start, stop))

    def _gaps(self) -> Iterator[KeySpan]:
        """Iterate over the ranges of the keys that are not in this set."""
        start = b""
        for first, stop in self:
            yield start, first
            if stop is None:
                return
            start = stop
        yield start, None


#: The set of all keys.
ALL_KEYS: Final = KeyRanges([(b"", None)])


def _lower(one: bytes | None, other: bytes | None) -> bytes | None:
    """Return the lower one of two stops."""
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def encode_prefix(space: _core.KeySpace, prefix: str) -> bytes:
    """Return a prefix of user keys as it is stored.

    Args:
        space: The key space of the store.
        prefix: The prefix; ``""`` for all keys.

    Raises:
        TypeError: ``prefix`` is not a str.
        InvalidKeyError: No key that users may write begins with the prefix.
    """
    encoded = _core.encode_key(prefix)
    stop = _core.successor(encoded)
    if len(encoded) > _core.MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"the prefix {prefix!r:.80} has {len(encoded)} bytes, and a key at most {_core.MAX_KEY_BYTES}"
        )
    if stop is not None and stop <= space.user_start:
        raise InvalidKeyError(
            f"no key begins with {prefix!r:.80}: keys up to {space.prefix.decode()!r} are those of the store itself"
        )
    return encoded
