"""Stores of LevelDB for the tests of its backends."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import NATIVE, Opened

from treehub_level.backends._directory import DirectoryBackend


@pytest.fixture(params=["LevelDBBackend", "PlyvelBackend"], ids="engine={}".format)
def engine(request: pytest.FixtureRequest) -> type[DirectoryBackend]:
    """Each of the two that open LevelDB's directories, for what holds for both."""
    if request.param == "PlyvelBackend":
        module = "plyvel"
    elif NATIVE:
        module = "leveldb"
    else:
        pytest.skip("LevelDB was not there when the package was built")
    backend: type[DirectoryBackend] = getattr(
        importlib.import_module(f"treehub_level.backends.{module}"), request.param
    )
    return backend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened(engine: type[DirectoryBackend]) -> Iterator[Opened]:
    """Opens backends, and closes them at the end."""
    made: list[DirectoryBackend] = []

    def open_(path: str | Path, **options: Any) -> DirectoryBackend:
        backend = engine(path, **options)
        made.append(backend)
        backend.open()
        return backend

    yield open_
    for backend in made:
        backend.close()
