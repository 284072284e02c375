"""A disk in memory that crashes when it is told to: what is not durable by then may be lost with the power."""

from __future__ import annotations

import random

from ..backends.base import Batch, Supports
from ..backends.memory import MemoryBackend, VersionedData
from ..errors import LockedError


class CrashError(BaseException):
    """The process died here, or is dead. It is no ``Exception``, since no handler of the application outlives that."""


class CrashingDisk:
    """Stores that outlive the levels that have them open, and crash when they are told to.

    ::

        disk = CrashingDisk(seed=7)
        with blocking.Level("notes", backend=disk) as notes:
            notes.put("a", 1, durable=True)
            notes.put("b", 2)
            disk.crash(power=True)
        with blocking.Level("notes", backend=disk) as notes:
            notes.get("a")  # 1; "b" is there or not, as the seed decides

    A crash kills every level that has one of them open. All that it looks up or writes from then on
    raises `CrashError`, and nothing of it reaches the disk; closing it does nothing. Open a new
    `Level` to see what is left.

    As on a real disk, whole batches are written or none of them; ``durable=True`` puts a batch and
    all that were written to that store before on disk; what came later outlives the process, and
    may be lost with the power, from some write on.

    Args:
        seed: Decides how much of what is not on disk outlives a power cut.

    Attributes:
        honest: Whether a durable write is durable. ``False`` for a disk that lies: what must notice
            that, should.
    """

    def __init__(self, *, seed: int | str = 0) -> None:
        self.honest = True
        self._rng = random.Random(seed)
        self._stores: dict[str, _Stored] = {}
        self._fuse = 0
        self._before = self._power = False

    def __call__(self, name: str) -> CrashingBackend:
        """The backend of a level: the store of this name, which is made where there is none."""
        return CrashingBackend(name, self, self._stores.setdefault(name, _Stored()))

    def crash(self, *, power: bool = False) -> None:
        """Let the process die now.

        Args:
            power: Whether the power is cut too: of the batches that are not on disk, only the first
                ones are left.
        """
        self._fuse = 0
        for store in self._stores.values():
            store.kill(self._rng.randint(0, len(store.at_risk)) if power else len(store.at_risk))

    def crash_at(self, write: int, *, before: bool = False, power: bool = False) -> None:
        """Let the process die over a write to come, whatever store it is to: it raises `CrashError`.

        (A task of asyncio whose write shares a commit with others gets StorageError, and
        `CrashError` from then on.)

        Args:
            write: Which one, 1 for the next; 0 for none after all.
            before: Whether it dies before the batch is written, or else right after.
            power: See `crash`.

        Raises:
            ValueError: Below 0.
        """
        if write < 0:
            raise ValueError(f"the write to crash at is 1 for the next one, or 0 for none, not {write}")
        self._fuse, self._before, self._power = write, before, power

    def flush(self) -> None:
        """Put all that was written on disk."""
        for store in self._stores.values():
            store.at_risk.clear()

    def at_risk(self, name: str) -> int:
        """How many of a store's batches a power cut might take."""
        return len(self._stores[name].at_risk)

    def commits(self, name: str) -> int:
        """How many batches were ever written to a store, those not counted that a power cut took."""
        return self._stores[name].commits

    def backup(self, name: str) -> dict[bytes, bytes]:
        """A copy of all that a store holds, for `restore`."""
        return dict(self._stores[name].data.values)

    def restore(self, name: str, backup: dict[bytes, bytes]) -> None:
        """Replace a store by a copy that was made earlier, of this store or of another. Whoever has it open dies."""
        store = self._stores.setdefault(name, _Stored())
        store.kill(len(store.at_risk))
        store.write([*((key, None) for key in store.data.values), *backup.items()], durable=True)

    def _write(self, store: _Stored, batch: Batch, durable: bool) -> None:
        self._fuse -= 1
        if self._fuse or not self._before:
            store.write(batch, durable=durable and self.honest)
        if not self._fuse:
            self.crash(power=self._power)
            raise _death()


class _Stored:
    """What the disk has of one store, and what a power cut would undo."""

    def __init__(self) -> None:
        self.data = VersionedData()
        #: For each batch behind the last durable one: what it overwrote.
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

    def kill(self, survivors: int) -> None:
        """Let whoever uses it die; undo what is at risk, but for the first batches."""
        with self.data.lock:
            if self.user is not None:
                self.user.is_dead = True
                self.user = None
            while len(self.at_risk) > survivors:
                self.data.write(self.at_risk.pop())
                self.commits -= 1


class CrashingBackend(MemoryBackend):
    """A store of a `CrashingDisk`, which makes it."""

    supports = Supports(persistent=True, inline_reads=True, guarded_get=True)

    def __init__(self, name: str, disk: CrashingDisk, stored: _Stored) -> None:
        super().__init__(name)
        self._disk = disk
        self._stored = stored
        self._data = stored.data
        self.is_dead = False

    def open(self) -> None:
        """Let the data be used.

        Raises:
            LockedError: It is open already, here or elsewhere.
        """
        self._check_alive()
        if self._stored.user not in (None, self):
            raise LockedError(f"the store {self.name!r} of this disk is open already: close the level that has it open")
        super().open()
        self._stored.user = self

    def close(self) -> None:
        """See `Backend.close`. What is dead can be closed too."""
        super().close()
        if self._stored.user is self:
            self._stored.user = None

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`."""
        self._check_open()
        self._disk._write(self._stored, batch, durable)

    def _check_open(self) -> None:
        self._check_alive()
        super()._check_open()

    def _check_alive(self) -> None:
        if self.is_dead:
            raise _death()


def _death() -> CrashError:
    return CrashError("the process that had this store open has crashed: open a new level over the same disk")
