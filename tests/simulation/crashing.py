"""A store in memory that crashes: whole batches survive, and of those behind the last durable one only a first part."""

from __future__ import annotations

from collections.abc import Sequence

from treehub_level.backends.base import Backend, Batch, Row, Supports


class CrashError(BaseException):
    """The process dies here."""


class CrashingBackend(Backend):
    """See the module.

    Attributes:
        commits: Batches written, those that a power cut took not counted.
        honest: Whether a durable write is durable.
    """

    supports = Supports(persistent=True, inline_reads=True)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.commits = 0
        self.honest = True
        self._values: dict[bytes, bytes] = {}
        self._on_disk: dict[bytes, bytes] = {}
        self._since: list[Batch] = []
        self._fuse = 0
        self._before = False

    def arm(self, writes: int, *, before: bool) -> None:
        """Crash at the ``writes``-th write from now on, before it is done or after; 0 for never."""
        self._fuse, self._before = writes, before

    def cut_power(self, survivors: int) -> None:
        """Lose what was written behind the last durable batch, but for the first ``survivors`` batches."""
        self.commits -= len(self._since) - survivors
        self._since = self._since[:survivors]
        self._values = dict(self._on_disk)
        for batch in self._since:
            _write(self._values, batch)

    def settle(self) -> None:
        """Put everything on disk."""
        self._on_disk, self._since = dict(self._values), []

    @property
    def at_risk(self) -> int:
        """Batches that a power cut might take."""
        return len(self._since)

    def copy(self) -> dict[bytes, bytes]:
        """A backup."""
        return dict(self._values)

    def replace(self, backup: dict[bytes, bytes]) -> None:
        """Restore a backup."""
        self._values = dict(backup)
        self._on_disk = dict(backup)
        self._since = []
        self.commits += 1

    def open(self) -> None:
        self._fuse = 0

    def close(self) -> None:
        pass

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._values.get(key) for key in keys]

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> _Rows:
        keys = sorted(key for key in self._values if (start is None or key >= start) and (stop is None or key < stop))
        return _Rows([(key, self._values[key]) for key in (reversed(keys) if reverse else keys)])

    def snapshot(self) -> _Snapshot:
        return _Snapshot(self)

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        self._fuse -= 1
        crash = self._fuse == 0
        if crash and self._before:
            raise CrashError
        _write(self._values, batch)
        self._since.append(list(batch))
        self.commits += 1
        if durable and self.honest:
            self.settle()
        if crash:
            raise CrashError


def _write(values: dict[bytes, bytes], batch: Batch) -> None:
    for key, value in batch:
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value


class _Rows:
    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def fetch(self, limit: int) -> list[Row]:
        rows, self._rows = self._rows[:limit], self._rows[limit:]
        return rows

    def fetch_keys(self, limit: int) -> list[bytes]:
        return [key for key, _ in self.fetch(limit)]

    def close(self) -> None:
        pass


class _Snapshot(CrashingBackend):
    """A moment: a copy that nobody writes to."""

    def __init__(self, origin: CrashingBackend) -> None:
        super().__init__(origin.name)
        self._values = origin.copy()
