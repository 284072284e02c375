"""The verbs that read, shared by levels, sublevels and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NamedTuple, Protocol

from .. import _core
from ..backends.base import Cursor, Reader, row_fetcher
from ..engine.codec import Codec
from ..engine.store import Store
from ..types import JSON

#: Rows that are fetched and decoded at a time: enough to make the cost of a call vanish, small enough for a cache.
CHUNK = 1000


Chunks = Generator[list[tuple[str, JSON]], None, None]


class Range(NamedTuple):
    """What a query walks over."""

    start: bytes | None
    stop: bytes | None
    reverse: bool
    limit: int | None


def check_limit(limit: object) -> int | None:
    """``limit`` if it is ``None`` or an int of at least 0.

    Raises:
        TypeError: Another type (a ``bool`` is no int here).
        ValueError: Below 0.
    """
    if limit is None:
        return None
    if type(limit) is not int:
        raise TypeError(f"limit is None or an int, not {limit!r:.80}")
    if limit < 0:
        raise ValueError(f"limit is at least 0, not {limit}")
    return limit


class _Points(Protocol):
    """Where single keys are read, open or not: a `_view` would cost half as much as the read."""

    @property
    def get(self) -> Callable[[bytes], bytes | None]:
        """See `Reader.get`."""


class ReadVerbs:
    """Reading, at one moment for each call.

    Ranges: ``gt``, ``gte``, ``lt``, ``lte`` are keys, ``prefix`` the beginning of keys; ``None`` means not given, an
        empty string is a
    real bound, and a lower bound at or above the upper one is an empty result. Order is that of the keys' UTF-8 bytes,
    which is that of ``str``. ``limit`` counts results, after ``filter``. Metadata never appears, whatever the bounds.

    All of them raise:
        NotOpenError: The level is not open.
        TypeError: A key or bound of another type than the level's keys, or an option of a wrong type.
        ValueError: ``gt`` with ``gte``, ``lt`` with ``lte``, or a negative ``limit``.
        InvalidKeyError: A key that this mode cannot hold, or a lone surrogate in a key or bound.
        DecodeError: Stored bytes are not what the encoding promises; names the key.
        StorageError, CorruptionError: The engine could not read.
    """

    _store: Store
    _codec: Codec
    _points: _Points

    def _view(self) -> AbstractContextManager[Reader]:
        raise NotImplementedError

    def get(self, key: str, default: Any = None) -> JSON:
        """Return the value of a key.

        In CLIENT and SERVER mode metadata keys are read as the seed names them: ``get("!")`` is the CID, ``get("!7")``
        on a server the seventh change, ``get("!foo")`` on a client the dirty change of ``foo``.

        Args:
            key: The key.
            default: What to return if it is absent. A stored ``None`` differs from an absent key: pass ``MISSING`` to
                tell.
        """
        stored_key = self._stored_key(key)
        value = self._points.get(stored_key)
        return default if value is None else self._codec.decoder.value(stored_key, value)

    def has(self, key: str) -> bool:
        """Return whether a key is present, whatever its value."""
        return self._points.get(self._stored_key(key)) is not None

    def get_many(self, keys: Iterable[str], default: Any = None) -> list[JSON]:
        """Return the values of several keys, in the order asked, all of one moment.

        Args:
            keys: The keys; one may occur twice.
            default: What to return for those that are absent.
        """
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"get_many() takes several keys, not the one key {keys!r:.80}")
        with self._view() as reader:
            stored_keys = [self._codec.stored_key(key) for key in keys]
            values = reader.get_many(stored_keys)
        decode = self._codec.decoder.value
        return [
            default if value is None else decode(key, value) for key, value in zip(stored_keys, values, strict=True)
        ]

    def _stored_key(self, key: object) -> bytes:
        try:
            return self._codec.encoder.key(key)
        except (TypeError, ValueError):
            # A metadata key, or none at all; but if this is not open, that comes first.
            with self._view():
                return self._codec.stored_key(key)

    def query(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str, JSON], object] | None = None,
    ) -> list[tuple[str, JSON]]:
        """Return the pairs of a range, in key order.

        Args:
            gt: Only keys above this one.
            gte: Only keys from this one on.
            lt: Only keys below this one.
            lte: Only keys up to this one.
            prefix: Only keys that start with this.
            reverse: From the last key down.
            limit: At most so many results.
            filter: Called with key and value; what it finds false is left out. If it raises, so does the call.
        """
        walk = self._range(gt, gte, lt, lte, prefix, reverse, limit)
        keep = _applied(filter)
        with self._view() as reader, _walking(reader, walk) as cursor:
            return _core.collect(row_fetcher(cursor), self._codec.decoder.items, keep, walk.limit, CHUNK)

    def keys(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str], object] | None = None,
    ) -> list[str]:
        """Return the keys of a range, in order. The options are those of `query`; ``filter`` is called with the key."""
        walk = self._range(gt, gte, lt, lte, prefix, reverse, limit)
        _check_filter(filter)
        with self._view() as reader, _walking(reader, walk, values=False) as cursor:
            return _core.collect(cursor.fetch_keys, self._codec.decoder.keys, filter, walk.limit, CHUNK)

    def values(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[JSON], object] | None = None,
    ) -> list[JSON]:
        """Return the values of a range, in key order.

        The options are those of `query`; ``filter`` is called with the value.
        """
        walk = self._range(gt, gte, lt, lte, prefix, reverse, limit)
        _check_filter(filter)
        with self._view() as reader, _walking(reader, walk) as cursor:
            return _core.collect(row_fetcher(cursor), self._codec.decoder.values, filter, walk.limit, CHUNK)

    def count(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str, JSON], object] | None = None,
    ) -> int:
        """Return how many pairs `query` would return, without holding them."""
        walk = self._range(gt, gte, lt, lte, prefix, reverse, limit)
        keep = _applied(filter)
        found = 0
        with self._view() as reader, _walking(reader, walk, values=keep is not None) as cursor:
            while walk.limit is None or found < walk.limit:
                if keep is None:
                    fetched = len(cursor.fetch_keys(CHUNK))
                    found += fetched
                else:
                    rows = cursor.fetch(CHUNK)
                    fetched = len(rows)
                    found += sum(1 for pair in self._codec.decoder.items(rows) if keep(pair))
                if not fetched:
                    break
        return found if walk.limit is None else min(found, walk.limit)

    def scan(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str, JSON], object] | None = None,
    ) -> Iterator[tuple[str, JSON]]:
        """Iterate over the pairs of a range, streamed in chunks from one snapshot, in bounded memory.

        The options are those of `query`. The snapshot is taken when the first pair is asked for. Break out whenever
        you like.

        Raises:
            NotOpenError: Also when the level is closed while the iteration is under way.
        """
        walk = self._range(gt, gte, lt, lte, prefix, reverse, limit)
        return _pairs(self._chunks(walk, filter))

    def _chunks(self, walk: Range, filter: Callable[[str, JSON], object] | None) -> Chunks:
        """The pairs of a scan, a chunk at a time. Between two chunks other calls, and closing, go on."""
        keep = _applied(filter)
        with self._view():
            return self._fetch_chunks(walk, keep)

    def _fetch_chunks(self, walk: Range, keep: Callable[[Any], object] | None) -> Chunks:
        left = walk.limit
        with self._view() as reader:
            cursor = self._store.cursor(reader, walk.start, walk.stop, reverse=walk.reverse, values=True)
        try:
            while left is None or left > 0:
                rows = cursor.fetch_rows(CHUNK if left is None or keep else min(CHUNK, left))
                if not rows:
                    return
                pairs = self._codec.decoder.items(rows)
                if keep is not None:
                    pairs = [pair for pair in pairs if keep(pair)]
                if left is not None:
                    pairs = pairs[:left]
                    left -= len(pairs)
                yield pairs
        finally:
            cursor.close()

    def _range(
        self, gt: object, gte: object, lt: object, lte: object, prefix: object, reverse: object, limit: object
    ) -> Range:
        if not isinstance(reverse, bool):
            raise TypeError(f"reverse is True or False, not {reverse!r:.80}")
        start, stop = self._codec.bounds(gt, gte, lt, lte, prefix)
        return Range(start, stop, reverse, check_limit(limit))


def _walking(reader: Reader, walk: Range, *, values: bool = True) -> closing[Cursor]:
    """A cursor for one call, which stays inside the gate throughout: closing waits for it."""
    return closing(reader.scan(walk.start, walk.stop, reverse=walk.reverse, values=values))


class Snapshot(ReadVerbs):
    """A level at one moment.

    Close it, or use it in a ``with`` block: it keeps what was overwritten since from being dropped.
    """

    def __init__(self, store: Store, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._handle = self._points = store.snapshot()

    @contextmanager
    def _view(self) -> Iterator[Reader]:
        with self._store.guard, self._handle.guard:
            yield self._handle.reader

    def close(self) -> None:
        """Let the moment go. Closing twice is harmless."""
        self._handle.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _pairs(chunks: Chunks) -> Iterator[tuple[str, JSON]]:
    try:
        for chunk in chunks:
            yield from chunk
    finally:
        chunks.close()


def _check_filter(filter: object) -> None:
    if filter is not None and not callable(filter):
        raise TypeError(f"filter is None or a function, not {filter!r:.80}")


def _applied(filter: Callable[[Any, Any], object] | None) -> Callable[[Sequence[Any]], object] | None:
    """A filter of key and value as one of the pair."""
    _check_filter(filter)
    if filter is None:
        return None
    return lambda pair: filter(pair[0], pair[1])
