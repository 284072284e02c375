"""A disk for schedules over SQLite and PostgreSQL, with the interface of a `CrashingDisk`.

The engine commits every batch. A power cut is simulated by undoing batches from the end, as the
engine's write-ahead log would lose them. Other tests show that the engines keep acknowledged
commits: `tests.sharing` and `tests.replicas` kill processes and stop databases.
"""

from __future__ import annotations

import os
import random
import shutil
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory, mkdtemp
from types import TracebackType
from typing import Any, Final, Protocol
from uuid import uuid4

from databases import database_url
from stores import HOLDER, dump

from treehub_level.backends import create
from treehub_level.backends.base import Backend, Batch, Cursor, Snapshot, Supports
from treehub_level.testing import CrashError, CrashingDisk

#: Creates the backend of a store.
Make = Callable[[str], Backend]


class Disk(Protocol):
    """The methods of a `CrashingDisk` that schedules call."""

    honest: bool

    def __call__(self, name: str) -> Backend: ...
    def crash(self, *, power: bool = False) -> None: ...
    def crash_at(self, write: int, *, before: bool = False, power: bool = False) -> None: ...
    def flush(self) -> None: ...
    def commits(self, name: str) -> int: ...
    def backup(self, name: str) -> dict[bytes, bytes]: ...
    def restore(self, name: str, backup: dict[bytes, bytes]) -> None: ...


#: Creates a disk from a seed.
MakeDisk = Callable[[int], Disk]


def crashing_disk(seed: int) -> Disk:
    """Return a disk in memory."""
    return CrashingDisk(seed=seed)


class EngineDisk:
    """A disk over a real engine: see the module, and `CrashingDisk` for its methods.

    Args:
        make: Creates the backend of a store.
        seed: Decides how many of the batches that are not durable survive a power cut.
    """

    def __init__(self, make: Make, seed: int) -> None:
        self.honest = True
        self._make = make
        self._rng = random.Random(seed)
        self._stores: dict[str, _StoreState] = {}
        self._writes_left = 0
        self._before = self._power = False

    def __call__(self, name: str) -> Backend:
        return CrashableBackend(self._make(name), self, self._stores.setdefault(name, _StoreState()))

    def crash(self, *, power: bool = False) -> None:
        self._writes_left = 0
        for name, store in self._stores.items():
            self._end_process(name, self._rng.randint(0, len(store.at_risk)) if power else len(store.at_risk))

    def crash_at(self, write: int, *, before: bool = False, power: bool = False) -> None:
        self._writes_left, self._before, self._power = write, before, power

    def flush(self) -> None:
        for store in self._stores.values():
            store.at_risk.clear()

    def commits(self, name: str) -> int:
        return self._stores[name].commits

    def backup(self, name: str) -> dict[bytes, bytes]:
        rows = dump(self._make(name))
        rows.pop(HOLDER, None)
        return rows

    def restore(self, name: str, backup: dict[bytes, bytes]) -> None:
        store = self._stores.setdefault(name, _StoreState())
        self._end_process(name, len(store.at_risk))
        self._write_bare(name, [*((key, None) for key in self.backup(name)), *backup.items()])
        store.commits += 1
        store.at_risk.clear()

    def count_write(self) -> str:
        """Count a write.

        Returns:
            ``"before"`` or ``"after"`` if the process crashes before or after this write, else
            ``""``.
        """
        self._writes_left -= 1
        return "" if self._writes_left else "before" if self._before else "after"

    def crash_now(self) -> None:
        """Crash as `crash_at` has arranged."""
        self.crash(power=self._power)
        raise CrashError

    def _end_process(self, name: str, survivors: int) -> None:
        store = self._stores[name]
        if store.user is not None:
            store.user.is_dead = True
            store.user = None
        lost = store.at_risk[survivors:]
        del store.at_risk[survivors:]
        store.commits -= len(lost)
        for overwritten in reversed(lost):
            self._write_bare(name, [*overwritten.items()])

    def _write_bare(self, name: str, batch: Batch) -> None:
        backend = self._make(name)
        backend.open()
        try:
            backend.write(batch)
        finally:
            backend.close()


class _StoreState:
    """The batches of a store that a power cut may undo, and the backend that has the store open."""

    def __init__(self) -> None:
        self.at_risk: list[dict[bytes, bytes | None]] = []
        self.commits = 0
        self.user: CrashableBackend | None = None


class CrashableBackend(Backend):
    """A backend that crashes when its disk says so."""

    supports = Supports(persistent=True, inline_reads=False, shared=True)

    def __init__(self, inner: Backend, disk: EngineDisk, stored: _StoreState) -> None:
        super().__init__(inner.name)
        self.inner = inner
        self.disk = disk
        self.stored = stored
        self.is_dead = False

    def open(self) -> None:
        self.inner.open()
        self.stored.user = self

    def close(self) -> None:
        self.inner.close()
        if self.stored.user is self:
            self.stored.user = None

    def get(self, key: bytes) -> bytes | None:
        return self.alive.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.alive.get_many(keys)

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        return self.alive.scan(start, stop, reverse=reverse, values=values)

    def snapshot(self) -> Snapshot:
        return self.alive.snapshot()

    def exclusive(self) -> Any:
        return _CrashableTransaction(self, self.alive)

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        with self.exclusive() as transaction:
            transaction.write(batch, durable=durable)

    def exists(self) -> bool:
        return self.inner.exists()

    @property
    def alive(self) -> Backend:
        if self.is_dead:
            raise CrashError
        return self.inner


class _CrashableTransaction:
    """A transaction in which the process may crash."""

    def __init__(self, backend: CrashableBackend, inner: Backend) -> None:
        self._backend = backend
        self._context = inner.exclusive()
        self._overwritten: dict[bytes, bytes | None] | None = None
        self._is_on_disk = False
        self._crashes = ""

    def __enter__(self) -> _CrashableTransaction:
        self._inner = self._context.__enter__()
        self.get, self.get_many, self.scan = self._inner.get, self._inner.get_many, self._inner.scan
        return self

    @property
    def connection_epoch(self) -> Hashable:
        return self._inner.connection_epoch

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        if [key for key, _ in batch] == [HOLDER]:  # the holder record of an opening, which schedules do not count
            self._inner.write(batch, durable=durable)
            return
        self._crashes = self._backend.disk.count_write()
        if self._crashes == "before":
            raise CrashError
        keys = [key for key, _ in batch]
        self._overwritten = dict(zip(keys, self._inner.get_many(keys), strict=True))
        self._is_on_disk = durable and self._backend.disk.honest
        self._inner.write(batch, durable=durable)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, traceback)
        stored = self._backend.stored
        if error is None and self._overwritten is not None:
            stored.at_risk.append(self._overwritten)
            stored.commits += 1
            if self._is_on_disk:
                stored.at_risk.clear()
        if self._crashes:
            self._backend.disk.crash_now()


@contextmanager
def sqlite_disks() -> Iterator[MakeDisk]:
    """Provide disks that are folders of SQLite files."""
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:

        def make_disk(seed: int) -> Disk:
            place = mkdtemp(dir=folder)
            disk = EngineDisk(lambda name: create("sqlite", os.path.join(place, name), {}), seed)
            weakref.finalize(disk, shutil.rmtree, place, ignore_errors=True)  # a long run would fill /dev/shm
            return disk

        yield make_disk


@contextmanager
def postgres_disks() -> Iterator[MakeDisk]:
    """Provide disks that are tables of a PostgreSQL database."""
    with database_url() as url:
        yield postgres_disks_at(url)


def postgres_disks_at(url: str) -> MakeDisk:
    """Return a function that creates disks in the database at ``url``."""

    def make_disk(seed: int) -> Disk:
        prefix = f"{uuid4().hex}-"
        return EngineDisk(lambda name: create("postgres", url, {"store": prefix + name}), seed)

    return make_disk


#: The backends that ``--over`` offers, by name.
DISKS: Final = {"sqlite": sqlite_disks, "postgres": postgres_disks}
