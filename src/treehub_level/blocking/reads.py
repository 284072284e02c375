"""The verbs that read, shared by levels, sublevels and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, Protocol, overload

from .. import _core
from ..backends.base import Cursor, Reader, row_fetcher
from ..engine.call_guard import CallGuard
from ..engine.codec import Codec
from ..engine.namespace import Namespace
from ..engine.ranges import Range, parse_range
from ..engine.scan import CHUNK
from ..engine.store import Store
from ..replication.manual import check_cid
from ..types import Default, Found, Key, RangeOptions, Value

if TYPE_CHECKING:
    from typing_extensions import Unpack

Chunks = Generator[list[tuple[Any, Any]], None, None]


class _KeyReader(Protocol):
    """A reader of single keys: the store, or a snapshot of it."""

    @property
    def get(self) -> Callable[[bytes], bytes | None]: ...


class ReadVerbs(Generic[Key, Value, Found]):
    """The verbs that read. Each call reads from one snapshot.

    The verbs that read a range take `RangeOptions`: ``gt``, ``gte``, ``lt``, ``lte``, ``prefix``,
    ``reverse`` and ``limit``. Keys are ordered by their UTF-8 bytes, which is the order of code
    points. Metadata keys are never in a range.

    All verbs raise:
        NotOpenError: The level is not open.
        TypeError: A key or bound is not of the type of the level's keys, or an option is of a wrong
            type.
        ValueError: ``gt`` with ``gte``, ``lt`` with ``lte``, or a negative ``limit``.
        InvalidKeyError: The mode cannot hold the key, or a key or bound contains a lone surrogate.
        DecodeError: The stored bytes do not fit the encoding; the message names the key.
        StorageError, CorruptionError: The backend could not read.
    """

    _store: Store
    _codec: Codec
    _key_reader: _KeyReader

    #: The guard of the object that is read: that of the store, or of a snapshot.
    _guard: CallGuard

    def _reader(self) -> Reader:
        """Return a reader, to be used inside the guards of the store and of this object."""
        raise NotImplementedError

    @overload
    def get(self, key: Key) -> Found: ...

    @overload
    def get(self, key: Key, default: Default) -> Value | Default: ...

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key.

        In CLIENT and SERVER mode metadata is readable under the keys of `@treehub/level`:
        ``get("!")`` is the CID, ``get("!7")`` on a server is change 7, and ``get("!foo")`` on a
        client is the dirty change of ``foo``.

        Args:
            key: The key.
            default: The result if the key is absent. To tell a stored ``None`` from an absent key,
                pass ``MISSING``.
        """
        stored_key = self._stored_key(key)
        value = self._key_reader.get(stored_key)
        return default if value is None else self._codec.decoder.value(stored_key, value)

    def has(self, key: Key) -> bool:
        """Return True if a key is present. Its value may be ``None``."""
        return self._key_reader.get(self._stored_key(key)) is not None

    @overload
    def get_many(self, keys: Iterable[Key]) -> list[Found]: ...

    @overload
    def get_many(self, keys: Iterable[Key], default: Default) -> list[Value | Default]: ...

    def get_many(self, keys: Iterable[Key], default: Any = None) -> list[Any]:
        """Return the values of several keys, all from one snapshot.

        Args:
            keys: The keys. The same key may occur twice.
            default: The value for each absent key.

        Returns:
            One value for each key, in the order of ``keys``.
        """
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"get_many() takes several keys, not the one key {keys!r:.80}")
        with self._store.guard.thread.lock, self._guard.thread.lock:
            reader = self._reader()
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
            # Either a metadata key or an invalid one. A closed level is reported first.
            with self._store.guard.thread.lock, self._guard.thread.lock:
                self._reader()
                return self._codec.stored_key(key)

    def query(
        self, *, filter: Callable[[Key, Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> list[tuple[Key, Value]]:
        """Return the pairs of a range, in key order.

        Args:
            filter: Called with key and value; a pair is dropped if the result is false. An
                exception ends the query.
            **options: See `RangeOptions`.
        """
        span = parse_range(self._codec, "query", options)
        keep = _pair_filter(filter)
        with self._store.guard.thread.lock, self._guard.thread.lock, self._cursor(span) as cursor:
            return _core.collect(row_fetcher(cursor), self._codec.decoder.items, keep, span.limit, CHUNK)

    def keys(self, *, filter: Callable[[Key], object] | None = None, **options: Unpack[RangeOptions]) -> list[Key]:
        """Return the keys of a range, in order.

        Args:
            filter: Called with each key; the key is dropped if the result is false.
            **options: See `RangeOptions`.
        """
        span = parse_range(self._codec, "keys", options)
        _check_filter(filter)
        with self._store.guard.thread.lock, self._guard.thread.lock, self._cursor(span, values=False) as cursor:
            return _core.collect(cursor.fetch_keys, self._codec.decoder.keys, filter, span.limit, CHUNK)

    def values(
        self, *, filter: Callable[[Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> list[Value]:
        """Return the values of a range, in key order.

        Args:
            filter: Called with each value; the value is dropped if the result is false.
            **options: See `RangeOptions`.
        """
        span = parse_range(self._codec, "values", options)
        _check_filter(filter)
        with self._store.guard.thread.lock, self._guard.thread.lock, self._cursor(span) as cursor:
            return _core.collect(row_fetcher(cursor), self._codec.decoder.values, filter, span.limit, CHUNK)

    def count(self, *, filter: Callable[[Key, Value], object] | None = None, **options: Unpack[RangeOptions]) -> int:
        """Return the number of pairs that `query` would return, in bounded memory.

        Args:
            filter: Called with key and value; a pair is not counted if the result is false.
            **options: See `RangeOptions`.
        """
        span = parse_range(self._codec, "count", options)
        keep = _pair_filter(filter)
        found = 0
        with (
            self._store.guard.thread.lock,
            self._guard.thread.lock,
            self._cursor(span, values=keep is not None) as cursor,
        ):
            while span.limit is None or found < span.limit:
                if keep is None:
                    fetched = len(cursor.fetch_keys(CHUNK))
                    found += fetched
                else:
                    rows = cursor.fetch(CHUNK)
                    fetched = len(rows)
                    found += sum(1 for pair in self._codec.decoder.items(rows) if keep(pair))
                if not fetched:
                    break
        return found if span.limit is None else min(found, span.limit)

    def scan(
        self, *, filter: Callable[[Key, Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> Iterator[tuple[Key, Value]]:
        """Iterate over the pairs of a range, from one snapshot, in bounded memory.

        The snapshot is taken when the first pair is requested. Leaving the loop early is fine.

        Args:
            filter: Called with key and value; a pair is dropped if the result is false.
            **options: See `RangeOptions`.

        Raises:
            NotOpenError: The level was closed, also during the iteration.
        """
        return _pairs(scan_chunks(self, filter, options))

    def _cursor(self, span: Range, *, values: bool = True) -> closing[Cursor]:
        """Return a cursor for one call. The call stays in flight until the cursor is closed."""
        return closing(self._reader().scan(span.start, span.stop, reverse=span.reverse, values=values))

    def _fetch_chunks(self, span: Range, keep: Callable[[Any], object] | None) -> Chunks:
        left = span.limit
        with self._store.guard.thread.lock, self._guard.thread.lock:
            cursor = self._store.cursor(self._reader(), span.start, span.stop, reverse=span.reverse, values=True)
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


def scan_chunks(
    verbs: ReadVerbs[Any, Any, Any], filter: Callable[[Any, Any], object] | None, options: RangeOptions
) -> Chunks:
    """Return the pairs of ``verbs.scan(...)`` as a generator of lists.

    Between two lists the level accepts other calls, and can be closed.
    """
    span = parse_range(verbs._codec, "scan", options)
    keep = _pair_filter(filter)
    with verbs._store.guard.thread.lock, verbs._guard.thread.lock:
        verbs._reader()
        return verbs._fetch_chunks(span, keep)


class Snapshot(ReadVerbs[Key, Value, Found]):
    """A read-only view of a level as it was when the snapshot was taken, or at an earlier CID.

    Close the snapshot, or use it in a ``with`` block: the store keeps overwritten data for it. A
    snapshot that is collected while it is open is released too, with a ResourceWarning.
    """

    def __init__(self, namespace: Namespace, at: int | None = None) -> None:
        self._store = namespace.store
        self._codec = namespace.codec
        self._snapshot = self._key_reader = namespace.store.snapshot(None if at is None else check_cid(at))
        self._guard = self._snapshot.guard

    def _reader(self) -> Reader:
        return self._snapshot.reader

    def close(self) -> None:
        """Release the snapshot. Closing it again is harmless."""
        self._snapshot.close()

    def __enter__(self) -> Snapshot[Key, Value, Found]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _pairs(chunks: Chunks) -> Iterator[tuple[Any, Any]]:
    try:
        for chunk in chunks:
            yield from chunk
    finally:
        chunks.close()


def _check_filter(filter: object) -> None:
    if filter is not None and not callable(filter):
        raise TypeError(f"filter is None or a function, not {filter!r:.80}")


def _pair_filter(filter: Callable[[Any, Any], object] | None) -> Callable[[Sequence[Any]], object] | None:
    """Return a filter of pairs for a filter of key and value."""
    _check_filter(filter)
    if filter is None:
        return None
    return lambda pair: filter(pair[0], pair[1])
