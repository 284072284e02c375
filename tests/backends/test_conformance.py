"""The conformance suite on the built-in embedded backends."""

from __future__ import annotations

from pathlib import Path

import pytest
from backends.directories import Engine
from backends.shared_memory import SharedMemory

from treehub_level import MemoryBackend
from treehub_level.backends.base import Backend
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.testing import BackendConformance
from treehub_level.testing.conformance import BackendFactory

pytestmark = pytest.mark.once


class TestMemory(BackendConformance):
    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        return lambda: MemoryBackend("store")


class TestLevelDB(BackendConformance):
    @pytest.fixture
    def backend_factory(self, make: Engine, tmp_path: Path) -> BackendFactory:
        return lambda: make(tmp_path / "store")

    @pytest.fixture
    def unusable(self, make: Engine, tmp_path: Path) -> Backend:
        (tmp_path / "file").touch()
        return make(tmp_path / "file" / "store")


class TestSQLite(BackendConformance):
    @pytest.fixture
    def backend_factory(self, tmp_path: Path) -> BackendFactory:
        return lambda: SQLiteBackend(tmp_path / "store")

    @pytest.fixture
    def unusable(self, tmp_path: Path) -> Backend:
        return SQLiteBackend(tmp_path / "nowhere" / "store")


class TestSharedMemory(BackendConformance):
    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        first = SharedMemory("store", None)
        return lambda: SharedMemory("store", first)
