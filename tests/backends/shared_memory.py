"""Memory that several backends share, as processes share a database."""

from __future__ import annotations

from collections.abc import Callable

from treehub_level import MemoryBackend
from treehub_level.backends.base import Batch, Supports


class SharedMemory(MemoryBackend):
    """A backend over the data of another one, if it is given one."""

    supports = Supports(persistent=True, inline_reads=True, shared=True)

    def __init__(self, name: str, first: SharedMemory | None) -> None:
        super().__init__(name)
        self._callbacks: list[Callable[[], None]] = []
        if first is not None:
            self._data, self.write_lock, self._callbacks = first._data, first.write_lock, first._callbacks

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        super().write(batch, durable=durable)
        for heard in self._callbacks:
            heard()

    def listen(self, heard: Callable[[], None]) -> None:
        self._callbacks.append(heard)
