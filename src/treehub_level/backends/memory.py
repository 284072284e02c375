"""A store in memory: sorted, atomic, with snapshots. For tests, for caches, for a client that needs no disk.

A write is a dict update; new keys are sorted in only when a walk next needs them, so a bulk load is one sort.
Every snapshot and cursor looks at a `Version`, in which each write records what it is about to overwrite. So a
moment costs as much as was written since it was made, and nothing is ever copied whole.
"""

from __future__ import annotations

import heapq
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sortedcontainers import SortedList

from ..errors import LockedError, NotOpenError
from .base import Backend, Batch, Row, Supports


class MemoryBackend(Backend):
    """A store that lives as long as this object: its data survives ``close()`` and ``open()``.

    Args:
        name: A label, for messages only. Two objects of the same name are two stores; to share one between levels
            that are open one after the other, hand them the same object: ``backend=lambda name: instance``.
    """

    supports = Supports(persistent=False, inline_reads=True, guarded_get=True)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._data = VersionedData()
        self._is_open = False

    def open(self) -> None:
        """Let the data be used.

        Raises:
            LockedError: It is open already.
        """
        with self._data.lock:
            if self._is_open:
                raise LockedError(
                    f"the memory store {self.name!r} is open already: close the level that has it open first"
                )
            self._is_open = True

    def close(self) -> None:
        """Keep the data, and let nobody use it until the next ``open()``."""
        with self._data.lock:
            self._is_open = False

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        with self._data.lock:
            self._check_open()
            return self._data.values.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        with self._data.lock:
            self._check_open()
            return [*map(self._data.values.get, keys)]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> MemoryCursor:
        """See `Reader.scan`."""
        return MemoryCursor(self._data, self._version(), start, stop, reverse)

    def snapshot(self) -> MemorySnapshot:
        """Hold this moment for reading."""
        return MemorySnapshot(self._data, self._version())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. There is no disk to be durable on."""
        changes = dict(batch)
        with self._data.lock:
            self._check_open()
            self._data.write(changes)

    def writes_at_once(self) -> bool:
        """See `Backend.writes_at_once`: unless a thread is walking, or sorting keys in."""
        return not self._data.lock.locked()

    def _version(self) -> Version:
        with self._data.lock:
            self._check_open()
            return self._data.version()

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotOpenError(f"the memory store {self.name!r} is not open")


class KeyOrder:
    """Keys in order. New ones wait in a set until the keys are next walked over."""

    def __init__(self) -> None:
        self._sorted = SortedList()
        self._new: set[bytes] = set()

    def add(self, keys: Iterable[bytes]) -> None:
        """Take in keys that are not there yet."""
        self._new.update(keys)

    def remove(self, key: bytes) -> None:
        """Drop a key that is there."""
        if key in self._new:
            self._new.remove(key)
        else:
            self._sorted.remove(key)

    def walk(self, start: bytes | None, stop: bytes | None, reverse: bool) -> Iterator[bytes]:
        """The keys from ``start`` to before ``stop``."""
        if self._new:
            self._sorted.update(self._new)
            self._new.clear()
        keys: Iterator[bytes] = self._sorted.irange(start, stop, inclusive=(True, False), reverse=reverse)
        return keys


class VersionedData:
    """What the store holds now, and the moments that still need what it held before. Used with ``lock`` held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: dict[bytes, bytes] = {}
        self.order = KeyOrder()
        # Weak, so that recording for a moment ends with the last cursor or snapshot that looks at it.
        self._versions: weakref.WeakSet[Version] = weakref.WeakSet()

    def version(self) -> Version:
        """Begin to record what is overwritten from now on."""
        version = Version(self)
        self._versions.add(version)
        return version

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """Store every value, and drop every key whose value is ``None``."""
        values = self.values
        puts = {key: value for key, value in changes.items() if value is not None}
        created = [key for key in puts if key not in values]
        deleted = [key for key in changes.keys() - puts.keys() if key in values] if len(puts) < len(changes) else []
        for version in self._versions:
            version.record(changes, created, deleted)
        for key in deleted:
            del values[key]
            self.order.remove(key)
        self.order.add(created)
        values.update(puts)


class Version:
    """The store as it was when this was made: what was overwritten since, laid over what is there now.

    Used with the lock of the data held.
    """

    def __init__(self, data: VersionedData) -> None:
        self._data = data
        #: What every key that was written since held then; ``None`` if it was not there.
        self._past: dict[bytes, bytes | None] = {}
        #: The keys that were there then and are not now.
        self._gone = KeyOrder()

    def record(self, changes: Iterable[bytes], created: Iterable[bytes], deleted: Iterable[bytes]) -> None:
        """Keep the values of the keys that are about to change, be created, be deleted."""
        past = self._past
        past.update({key: self._data.values.get(key) for key in changes if key not in past})
        self._gone.add([key for key in deleted if past[key] is not None])
        for key in created:
            if past[key] is not None:
                self._gone.remove(key)

    def get(self, key: bytes) -> bytes | None:
        return self._past[key] if key in self._past else self._data.values.get(key)

    def walk(self, start: bytes | None, stop: bytes | None, reverse: bool) -> Iterator[bytes]:
        """The keys that were there, from ``start`` to before ``stop``."""
        keys = self._data.order.walk(start, stop, reverse)
        if not self._past:
            return keys
        # First merge, then leave out what was created since: the other way round, looking ahead for one old key could
        # walk over any number of new ones, chunk after chunk.
        merged = heapq.merge(keys, self._gone.walk(start, stop, reverse), reverse=reverse)
        return (key for key in merged if self._past.get(key, b"") is not None)

    def rows(self, keys: Iterable[bytes]) -> list[Row]:
        """Those of ``keys`` that were there, with their values."""
        get = self.get if self._past else self._data.values.get
        return [(key, value) for key in keys if (value := get(key)) is not None]


class MemoryCursor:
    """See `base.Cursor`."""

    def __init__(
        self, data: VersionedData, version: Version, start: bytes | None, stop: bytes | None, reverse: bool
    ) -> None:
        self._data = data
        self._version: Version | None = version
        self._start = start
        self._stop = stop
        self._reverse = reverse

    def fetch(self, limit: int) -> list[Row]:
        version = self._version
        with self._data.lock:
            return version.rows(self._advance(version, limit)) if version else []

    def fetch_keys(self, limit: int) -> list[bytes]:
        version = self._version
        with self._data.lock:
            return self._advance(version, limit) if version else []

    def _advance(self, version: Version, limit: int) -> list[bytes]:
        keys = [*islice(version.walk(self._start, self._stop, self._reverse), limit)]
        if len(keys) < limit:
            self._version = None
        elif keys and self._reverse:
            self._stop = keys[-1]
        elif keys:
            self._start = keys[-1] + b"\0"
        return keys

    def close(self) -> None:
        self._version = None


class MemorySnapshot:
    """See `base.Snapshot`."""

    def __init__(self, data: VersionedData, version: Version) -> None:
        self._data = data
        self._held: Version | None = version

    @property
    def _version(self) -> Version:
        if self._held is None:
            raise NotOpenError("the snapshot is closed")
        return self._held

    def get(self, key: bytes) -> bytes | None:
        with self._data.lock:
            return self._version.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._data.lock:
            return [*map(self._version.get, keys)]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> MemoryCursor:
        return MemoryCursor(self._data, self._version, start, stop, reverse)

    def close(self) -> None:
        self._held = None
