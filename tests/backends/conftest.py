"""Fixtures: LevelDB directories for each LevelDB backend, and PostgreSQL tables."""

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
    """The class of the LevelDB backend under test."""
    return class_of(engine)


@pytest.fixture
def opened(make: Engine) -> Iterator[Opened]:
    """A function that opens a backend. All of them are closed at the end of the test."""
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
    """A table name for this test only. The table does not exist yet."""
    table = Table(postgres_url, f"test_{os.getpid()}_{next(_NUMBERS)}")
    yield table
    table.drop()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        for parent, _, files in os.walk(folder):
            os.chmod(parent, 0o755)
            for file in files:
                os.chmod(Path(parent, file), 0o644)
