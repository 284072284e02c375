"""A store whose rows a test sets, below any level, on one of three backends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from treehub_level import MemoryBackend, Mode, _core, blocking
from treehub_level.backends import create
from treehub_level.backends.base import Backend
from treehub_level.maintenance.repair import Repair, Repairer
from treehub_level.maintenance.verify import examine


class RowStore:
    """A store on a backend: ``memory``, ``leveldb`` or ``sqlite``.

    Args:
        backend: The backend.
        folder: The folder for stores on disk.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        self._backend = backend
        self._folder = folder
        self._path = folder / "store"
        self._memory = MemoryBackend("store")

    def fill(self, rows: Mapping[bytes, bytes]) -> None:
        """Make the store hold exactly these rows."""
        if self._backend == "memory":
            self._memory = MemoryBackend("store")
        for path in self._folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with self._opened() as backend:
            backend.write([*rows.items()])

    @contextmanager
    def opened(self, mode: Mode) -> Iterator[blocking.Level]:
        """Open a level on the store. A client keeps base values if the store has some."""
        with blocking.Level(self._name, backend=self._create, mode=mode, keep_base=None) as level:
            yield level

    def verify(self) -> blocking.Verification:
        """Return the result of `verify`."""
        return blocking.verify(self._name, backend=self._create)

    def repair(self) -> Repair:
        """Repair the store; on other backends than LevelDB, by the part after LevelDB's own."""
        if self._backend == "leveldb":
            return blocking.repair(self._path)
        result, space = Repair(), _core.KeySpace("!")
        with self._opened() as backend:
            Repairer(backend, space, result).repair()
            with closing(backend.snapshot()) as reader:
                result.verification = examine(reader, space)
        return result

    @property
    def _name(self) -> str:
        return "store" if self._backend == "memory" else str(self._path)

    @property
    def _create(self) -> Callable[..., Backend]:
        return (lambda _: self._memory) if self._backend == "memory" else self._on_disk

    def _on_disk(self, name: str) -> Any:
        return create(self._backend, name, {})

    @contextmanager
    def _opened(self) -> Iterator[Backend]:
        backend = self._create(self._name)
        backend.open()
        try:
            yield backend
        finally:
            backend.close()
