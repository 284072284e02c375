"""Stores for the tests of backends: directories of LevelDB, on each engine in turn, and tables of PostgreSQL."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from backends.directories import Engine, Opened, class_of
from backends.tables import Table

from treehub_level.backends.leveldb.directory import DirectoryBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def make(engine: str) -> Engine:
    """The class of the engine."""
    return class_of(engine)


@pytest.fixture
def opened(make: Engine) -> Iterator[Opened]:
    """Opens backends, and closes them at the end."""
    made: list[DirectoryBackend] = []

    def open_(path: str | Path, **options: Any) -> DirectoryBackend:
        backend = make(path, **options)
        made.append(backend)
        backend.open()
        return backend

    yield open_
    for backend in made:
        backend.close()


_NUMBERS: Final = itertools.count()


@pytest.fixture
def table(postgres_url: str) -> Iterator[Table]:
    """A table of the test's own, which is not there yet."""
    table = Table(postgres_url, f"test_{os.getpid()}_{next(_NUMBERS)}")
    yield table
    table.drop()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that others may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        for parent, _, files in os.walk(folder):
            os.chmod(parent, 0o755)
            for file in files:
                os.chmod(Path(parent, file), 0o644)
