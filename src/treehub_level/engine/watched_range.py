"""`WatchedRange`: the keys that a watch is about, and reading them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from ..backends.base import Reader, Row, Rows
from ..types import Change, ChangeOrigin, KeyRange
from .codec import Codec
from .handles import StoreCursor
from .key_ranges import ALL_KEYS, KeyRanges
from .ranges import parse_bounds
from .store import Store

#: The most prefixes of one watch. Each has a cursor of its own while the present state is read.
MAX_WATCHED: int = 256


class WatchedRange(NamedTuple):
    """The keys that a watch is about.

    Attributes:
        keys: The stored keys.
        codec: The codec of the level or sublevel.
    """

    keys: KeyRanges
    codec: Codec

    @classmethod
    def of(cls, codec: Codec, bounds: KeyRange, prefixes: Iterable[str] | None) -> WatchedRange:
        """Parse the arguments of ``watch()``.

        Raises:
            TypeError: An argument is of a wrong type, or unknown. One ``str`` is no list of
                prefixes.
            ValueError: Bounds are given together with ``prefixes``, or that has more than 256.
            InvalidKeyError: A bound cannot be part of a key.
        """
        if prefixes is None:
            return cls(KeyRanges([_span(codec, bounds)]), codec)
        if any(bound is not None for bound in bounds.values()):
            raise ValueError("give prefixes, or the bounds of one range, not both")
        if isinstance(prefixes, str | bytes) or not isinstance(prefixes, Iterable):
            raise TypeError(f"prefixes is several prefixes, not {prefixes!r:.80}: give prefix= for one")
        several = [*prefixes]
        if len(several) > MAX_WATCHED:
            raise ValueError(f"watch() takes at most {MAX_WATCHED} prefixes, not {len(several)}: watch a common one")
        return cls(KeyRanges(_span(codec, {**bounds, "prefix": prefix}) for prefix in several), codec)

    def wanted(self, store: Store) -> KeyRanges:
        """Return the keys for a search of the log, in which all user keys are `ALL_KEYS`."""
        for start, stop in self.keys:
            if stop is None and start <= store.space.user_start:
                return ALL_KEYS
        return self.keys

    def cursor(self, store: Store, reader: Reader) -> SpansCursor:
        """Open a cursor over the present pairs."""
        return SpansCursor(
            store.cursor(reader, start or None, stop, reverse=False, values=True) for start, stop in self.keys
        )

    def change(self, key: bytes, value: bytes | None, origin: ChangeOrigin) -> Change:
        """Return a change of a stored key, decoded.

        Raises:
            DecodeError: The stored bytes do not fit the encoding.
        """
        decoder = self.codec.decoder
        if value is None:
            change = Change.deletion(decoder.key(key))
        else:
            change = Change(decoder.key(key), decoder.value(key, value))
        change.origin = origin
        return change


class SpansCursor:
    """Cursors over ranges that follow each other, as one.

    All are open from the beginning, so that they read one state.

    Args:
        cursors: The cursors, in key order.
    """

    def __init__(self, cursors: Iterable[StoreCursor]) -> None:
        self._left = deque(cursors)

    def fetch_rows(self, limit: int) -> Rows:
        """Fetch the next rows, as `StoreCursor.fetch_rows` does. None are left if it has none."""
        while self._left:
            if rows := self._left[0].fetch_rows(limit):
                return rows
            self._left.popleft().close()
        return []

    def fetch_entries(self, limit: int) -> list[Row]:
        """Fetch the next rows, as `StoreCursor.fetch_entries` does."""
        while self._left:
            if rows := self._left[0].fetch_entries(limit):
                return rows
            self._left.popleft().close()
        return []

    def close(self) -> None:
        """Close the cursors. Closing them again is harmless."""
        for cursor in self._left:
            cursor.close()


def _span(codec: Codec, bounds: KeyRange) -> tuple[bytes, bytes | None]:
    start, stop = parse_bounds(codec, "watch", bounds)
    return start or b"", stop
