"""`CrashingDisk`: stores in memory that survive crashes as stores on a disk do."""

from __future__ import annotations

import random

from ..backends.base import Batch, Supports
from ..backends.memory import MemoryBackend, VersionedData
from ..errors import LockedError


class CrashError(BaseException):
    """The simulated process has crashed.

    The class derives from ``BaseException``, not ``Exception``, so that error handlers of the
    application do not catch it: they would not run in a crashed process either.
    """


class CrashingDisk:
    """A simulated disk with stores in memory. Pass it to levels as their backend.

    ::

        disk = CrashingDisk(seed=7)
        with blocking.Level("notes", backend=disk) as notes:
            notes.put("a", 1, durable=True)
            notes.put("b", 2)
            disk.crash(power=True)
        with blocking.Level("notes", backend=disk) as notes:
            notes.get("a")  # 1; `seed` decides if "b" is lost

    A crash kills every level that has a store of the disk open. Each later read or write of such a
    level raises `CrashError`, and writes nothing; ``close()`` does nothing. Open a new `Level` to
    read the data that survived.

    Batches are atomic. A write with ``durable=True`` puts its batch and all earlier batches of that
    store on disk. Later batches survive a crash of the process. A power cut loses the last few of
    them, as if the disk had written only the first ones.

    Args:
        seed: Determines how many batches survive each power cut.

    Attributes:
        honest: True if durable writes are durable. Set it to ``False`` to simulate a disk that
            ignores flushes, and check that your test notices.
    """

    def __init__(self, *, seed: int | str = 0) -> None:
        self.honest = True
        self._rng = random.Random(seed)
        self._stores: dict[str, _StoredData] = {}
        self._writes_until_crash = 0
        self._crash_before_write = self._cut_power = False

    def __call__(self, name: str) -> CrashingBackend:
        """Return the backend of a level for the store ``name``, which is created if needed."""
        return CrashingBackend(name, self, self._stores.setdefault(name, _StoredData()))

    def crash(self, *, power: bool = False) -> None:
        """Crash the process now.

        Args:
            power: True to cut the power too: of the batches that are not on disk, only the first
                ones survive.
        """
        self._writes_until_crash = 0
        for store in self._stores.values():
            store.crash(self._rng.randint(0, len(store.at_risk)) if power else len(store.at_risk))

    def crash_at(self, write: int, *, before: bool = False, power: bool = False) -> None:
        """Crash the process at a later write, to any store. That write raises `CrashError`.

        With asyncio, writes of several tasks can share a commit. Each of these writes raises
        ``StorageError``; later ones raise `CrashError`.

        Args:
            write: The number of the write: 1 for the next one, 0 to cancel the crash.
            before: True to crash before the batch is written, False to crash after.
            power: See `crash`.

        Raises:
            ValueError: ``write`` is negative.
        """
        if write < 0:
            raise ValueError(f"the write to crash at is 1 for the next one, or 0 for none, not {write}")
        self._writes_until_crash, self._crash_before_write, self._cut_power = write, before, power

    def flush(self) -> None:
        """Put all batches on disk, so that a power cut loses none of them."""
        for store in self._stores.values():
            store.at_risk.clear()

    def at_risk(self, name: str) -> int:
        """Return the number of batches of a store that a power cut can lose."""
        return len(self._stores[name].at_risk)

    def commits(self, name: str) -> int:
        """Return the number of batches written to a store, without those that a crash has lost."""
        return self._stores[name].commits

    def backup(self, name: str) -> dict[bytes, bytes]:
        """Return a copy of the data of a store, for `restore`."""
        return dict(self._stores[name].data.values)

    def restore(self, name: str, backup: dict[bytes, bytes]) -> None:
        """Replace the data of a store by a backup. A level that has the store open crashes.

        Args:
            name: The store, which is created if needed.
            backup: The result of `backup` for this store or another.
        """
        store = self._stores.setdefault(name, _StoredData())
        store.crash(len(store.at_risk))
        store.write([*((key, None) for key in store.data.values), *backup.items()], durable=True)

    def _write(self, store: _StoredData, batch: Batch, durable: bool) -> None:
        self._writes_until_crash -= 1
        crashes = self._writes_until_crash == 0
        if not (crashes and self._crash_before_write):
            store.write(batch, durable=durable and self.honest)
        if crashes:
            self.crash(power=self._cut_power)
            raise _crash_error()


class _StoredData:
    """The data of one store, with the undo log of the batches that are not on disk."""

    def __init__(self) -> None:
        self.data = VersionedData()
        #: The previous values of each batch since the last durable one, oldest batch first.
        self.at_risk: list[dict[bytes, bytes | None]] = []
        self.commits = 0
        self.user: CrashingBackend | None = None

    def write(self, batch: Batch, *, durable: bool) -> None:
        changes = dict(batch)
        with self.data.lock:
            self.at_risk.append({key: self.data.values.get(key) for key in changes})
            self.data.write(changes)
            self.commits += 1
            if durable:
                self.at_risk.clear()

    def crash(self, survivors: int) -> None:
        """Crash the backend that has the store open, and undo batches at risk.

        Args:
            survivors: The number of batches at risk that are not undone: the oldest ones.
        """
        with self.data.lock:
            if self.user is not None:
                self.user.has_crashed = True
                self.user = None
            while len(self.at_risk) > survivors:
                self.data.write(self.at_risk.pop())
                self.commits -= 1


class CrashingBackend(MemoryBackend):
    """The backend of a store on a `CrashingDisk`. It is created by the disk.

    Attributes:
        has_crashed: True after a crash; all reads and writes raise `CrashError` then.
    """

    supports = Supports(persistent=True, inline_reads=True, guarded_get=True)

    def __init__(self, name: str, disk: CrashingDisk, stored: _StoredData) -> None:
        super().__init__(name)
        self._disk = disk
        self._stored = stored
        self._data = stored.data
        self.has_crashed = False

    def open(self) -> None:
        """Open the store.

        Raises:
            LockedError: Another backend has the store open.
            CrashError: This backend has crashed.
        """
        self._check_alive()
        if self._stored.user not in (None, self):
            raise LockedError(f"the store {self.name!r} of this disk is open already: close the level that has it open")
        super().open()
        self._stored.user = self

    def close(self) -> None:
        """Close the store. A crashed backend can be closed too."""
        super().close()
        if self._stored.user is self:
            self._stored.user = None

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """Write a batch; see `Transaction.write`."""
        self._check_open()
        self._disk._write(self._stored, batch, durable)

    def _check_open(self) -> None:
        self._check_alive()
        super()._check_open()

    def _check_alive(self) -> None:
        if self.has_crashed:
            raise _crash_error()


def _crash_error() -> CrashError:
    return CrashError("the process that had this store open has crashed: open a new level over the same disk")
