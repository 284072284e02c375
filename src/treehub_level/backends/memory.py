"""A store in memory, for tests, caches and clients without a disk.

A write updates a dict. New keys are sorted only when an iteration next needs the order, so a bulk
load sorts once. Each snapshot and cursor reads a `Version`; a write saves in every live version the
values that it is about to overwrite. The cost of a snapshot is thus proportional to the keys
written since it was taken, and no data is copied when it is taken.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sortedcontainers import SortedList

from ..errors import LockedError, NotOpenError
from ..locks import WITHOUT_WAITING, ErrorCheckingLock
from ..weak_registry import WeakRegistry
from .base import Backend, Batch, Row, Supports, take_within


class MemoryBackend(Backend):
    """A store in memory. The data lives as long as this object, across ``close()`` and ``open()``.

    Args:
        name: A label for error messages. Two objects of the same name are two stores. To open one
            store in several levels, one after the other, pass the same object to each:
            ``backend=lambda name: instance``.
    """

    supports = Supports(persistent=False, inline_reads=True, guarded_get=True)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._data = VersionedData()
        self._is_open = False

    def open(self) -> None:
        """See `Backend.open`.

        Raises:
            LockedError: The store is open already.
        """
        with self._data.lock.entry():
            if self._is_open:
                raise LockedError(
                    f"the memory store {self.name!r} is open already: close the level that has it open first"
                )
            self._is_open = True

    def close(self) -> None:
        """Close the store. The data is kept until the next ``open()``."""
        with self._data.lock.entry():
            self._is_open = False

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        with self._data.lock.entry():
            self._check_open()
            return self._data.values.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        with self._data.lock.entry():
            self._check_open()
            return [*map(self._data.values.get, keys)]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> MemoryCursor:
        """See `Reader.scan`."""
        return MemoryCursor(self._data, self._new_version(), start, stop, reverse)

    def snapshot(self) -> MemorySnapshot:
        """See `Backend.snapshot`."""
        return MemorySnapshot(self._data, self._new_version())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. ``durable`` has no effect in memory."""
        changes = dict(batch)
        with self._data.lock.entry():
            self._check_open()
            self._data.write(changes)

    def writes_at_once(self) -> bool:
        """Return True unless a thread holds the lock, as it does to sort keys or to read rows."""
        taken: list[bool] = []
        try:
            taken.extend(map(self._data.lock.acquire, WITHOUT_WAITING))
            return taken[0]
        finally:
            if True in taken:
                self._data.lock.release()

    def _new_version(self) -> Version:
        with self._data.lock.entry():
            self._check_open()
            return self._data.version()

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotOpenError(f"the memory store {self.name!r} is not open")
        if self._data.changing is not None:
            self._data.recover()


class SortedKeys:
    """A sorted set of keys. Added keys are sorted in by the next iteration, all at once."""

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._sorted = SortedList()
        self._unsorted: set[bytes] = {*keys}

    def add(self, keys: Iterable[bytes]) -> None:
        """Add keys, none of which is in the set."""
        self._unsorted.update(keys)

    def remove(self, key: bytes) -> None:
        """Remove a key that is in the set."""
        if key in self._unsorted:
            self._unsorted.remove(key)
        else:
            self._sorted.remove(key)

    def iterate(self, start: bytes | None, stop: bytes | None, reverse: bool) -> Iterator[bytes]:
        """Return an iterator over the keys with ``start <= key < stop``."""
        if self._unsorted:
            self._sorted.update(self._unsorted)
            self._unsorted.clear()
        keys: Iterator[bytes] = self._sorted.irange(start, stop, inclusive=(True, False), reverse=reverse)
        return keys


class VersionedData:
    """The current rows, and the versions that older snapshots and cursors read.

    Every method must be called with ``lock`` held.

    A signal handler may raise in the middle of a change. The rows and the old values of versions
    are data; their order and the deleted keys follow from these. So `recover` completes the change
    of the rows, and derives the rest again.
    """

    def __init__(self) -> None:
        self.lock = ErrorCheckingLock("use this memory store")
        #: The rows of the change that was begun last; ``None`` once it is complete.
        self.changing: dict[bytes, bytes | None] | None = None
        self.values: dict[bytes, bytes] = {}
        self.order = SortedKeys()
        # Weak, so that a version goes away together with the last snapshot or cursor that reads it.
        self._versions: WeakRegistry[Version] = WeakRegistry()

    def version(self) -> Version:
        """Return a new version, which keeps the current rows readable."""
        version = Version(self)
        self._versions.add(version)
        return version

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """Store the value of each key, and delete the keys whose value is ``None``."""
        values = self.values
        puts = {key: value for key, value in changes.items() if value is not None}
        created = [key for key in puts if key not in values]
        deleted = [key for key in changes.keys() - puts.keys() if key in values] if len(puts) < len(changes) else []
        self.changing = {}
        for version in self._versions.alive():
            version.record(changes, created, deleted)
        self.changing = changes  # from here on, the change is made
        for key in deleted:
            del values[key]
            self.order.remove(key)
        self.order.add(created)
        values.update(puts)
        self.changing = None

    def settle(self) -> None:
        """Complete a change that was interrupted, if there is one."""
        if self.changing is not None:
            self.recover()

    def recover(self) -> None:
        """Complete a change that was interrupted."""
        for key, value in (self.changing or {}).items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self.order = SortedKeys(self.values)
        for version in self._versions.alive():
            version.recover()
        self.changing = None


class Version:
    """The rows as they were when the version was made.

    It keeps the old values of changed keys, and reads the rest from the current rows. Every method
    must be called with the lock of the data held.
    """

    def __init__(self, data: VersionedData) -> None:
        self._data = data
        #: The old value of each key written since; ``None`` if the key was absent.
        self._old_values: dict[bytes, bytes | None] = {}
        #: The keys that this version has and the current rows lack.
        self._deleted = SortedKeys()

    def record(self, changes: Iterable[bytes], created: Iterable[bytes], deleted: Iterable[bytes]) -> None:
        """Save the values of the keys in ``changes`` before a write.

        Args:
            changes: All keys of the write.
            created: The keys that are absent now and present after the write.
            deleted: The keys that are present now and absent after the write.
        """
        old = self._old_values
        old.update({key: self._data.values.get(key) for key in changes if key not in old})
        self._deleted.add([key for key in deleted if old[key] is not None])
        for key in created:
            if old[key] is not None:
                self._deleted.remove(key)

    def recover(self) -> None:
        """Derive the deleted keys again."""
        current = self._data.values
        self._deleted = SortedKeys(
            key for key, value in self._old_values.items() if value is not None and key not in current
        )

    def get(self, key: bytes) -> bytes | None:
        return self._old_values[key] if key in self._old_values else self._data.values.get(key)

    def iterate(self, start: bytes | None, stop: bytes | None, reverse: bool) -> Iterator[bytes]:
        """Return an iterator over the keys of this version with ``start <= key < stop``."""
        self._data.changing = {}  # sorting changes the order
        keys = self._data.order.iterate(start, stop, reverse)
        deleted = self._deleted.iterate(start, stop, reverse) if self._old_values else None
        self._data.changing = None
        if deleted is None:
            return keys
        # Merge first, then drop the keys created since. In the other order, the merge's look-ahead
        # for one old key could skip any number of new keys, again in each chunk.
        merged = heapq.merge(keys, deleted, reverse=reverse)
        return (key for key in merged if self._old_values.get(key, b"") is not None)

    def rows(self, keys: Iterable[bytes]) -> list[Row]:
        """Return the rows of the given keys; absent keys are left out."""
        get = self.get if self._old_values else self._data.values.get
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
        with self._data.lock.entry():
            self._data.settle()
            return version.rows(self._next_keys(version, limit)) if version else []

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        version = self._version
        with self._data.lock.entry():
            self._data.settle()
            rows = version.rows(self._next_keys(version, limit)) if version else []
            taken, _ = take_within(iter(rows), limit, max_bytes)
            if len(taken) < len(rows):
                self._version = version
                self._continue_after(taken[-1][0])
            return taken

    def fetch_keys(self, limit: int) -> list[bytes]:
        version = self._version
        with self._data.lock.entry():
            self._data.settle()
            return self._next_keys(version, limit) if version else []

    def _next_keys(self, version: Version, limit: int) -> list[bytes]:
        keys = [*islice(version.iterate(self._start, self._stop, self._reverse), limit)]
        if len(keys) < limit:
            self._version = None
        elif keys:
            self._continue_after(keys[-1])
        return keys

    def _continue_after(self, key: bytes) -> None:
        if self._reverse:
            self._stop = key
        else:
            self._start = key + b"\0"

    def close(self) -> None:
        self._version = None


class MemorySnapshot:
    """See `base.Snapshot`."""

    def __init__(self, data: VersionedData, version: Version) -> None:
        self._data = data
        self._open_version: Version | None = version

    @property
    def _version(self) -> Version:
        if self._open_version is None:
            raise NotOpenError("the snapshot is closed")
        return self._open_version

    def get(self, key: bytes) -> bytes | None:
        with self._data.lock.entry():
            self._data.settle()
            return self._version.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._data.lock.entry():
            self._data.settle()
            return [*map(self._version.get, keys)]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> MemoryCursor:
        return MemoryCursor(self._data, self._version, start, stop, reverse)

    def close(self) -> None:
        self._open_version = None
