"""A memory backend that declares itself shared, for the conformance tests of shared stores."""

from __future__ import annotations

from collections.abc import Callable

from treehub_level import MemoryBackend
from treehub_level.backends.base import Batch, Supports


class SharedMemory(MemoryBackend):
    """A memory backend that uses the data of another one.

    Args:
        name: The label.
        first: The backend whose data to use; ``None`` for new data.
    """

    supports = Supports(persistent=True, inline_reads=True, shared=True)

    def __init__(self, name: str, first: SharedMemory | None) -> None:
        super().__init__(name)
        self._callbacks: list[Callable[[], None]] = []
        if first is not None:
            self._data, self._exclusive, self._callbacks = first._data, first._exclusive, first._callbacks

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        super().write(batch, durable=durable)
        for callback in self._callbacks:
            callback()

    def listen(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
