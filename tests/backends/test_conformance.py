"""The suite that ships, on the backends that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from treehub_level import MemoryBackend
from treehub_level.backends._directory import DirectoryBackend
from treehub_level.backends.base import Supports
from treehub_level.testing import BackendConformance
from treehub_level.testing.conformance import BackendFactory

pytestmark = pytest.mark.once


class TestMemory(BackendConformance):
    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        return lambda: MemoryBackend("store")


class TestLevelDB(BackendConformance):
    @pytest.fixture
    def backend_factory(self, engine: type[DirectoryBackend], tmp_path: Path) -> BackendFactory:
        return lambda: engine(tmp_path / "store")

    @pytest.fixture
    def unusable(self, engine: type[DirectoryBackend], tmp_path: Path) -> DirectoryBackend:
        (tmp_path / "file").touch()
        return engine(tmp_path / "file" / "store")


class SharedMemory(MemoryBackend):
    """Memory that several backends share, as processes share a database: it runs the part of the suite for those."""

    supports = Supports(persistent=True, inline_reads=True, shared=True)

    def __init__(self, name: str, first: SharedMemory | None) -> None:
        super().__init__(name)
        if first is not None:
            self._data, self._exclusive = first._data, first._exclusive


class TestSharedMemory(BackendConformance):
    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        first = SharedMemory("store", None)
        return lambda: SharedMemory("store", first)
