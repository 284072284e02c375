"""Stores of LevelDB for the tests of its backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treehub_level.backends.plyvel import PlyvelBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def opened() -> Iterator[Callable[..., PlyvelBackend]]:
    """Opens backends, and closes them at the end."""
    made: list[PlyvelBackend] = []

    def open_(path: str | Path, **options: Any) -> PlyvelBackend:
        backend = PlyvelBackend(path, **options)
        made.append(backend)
        backend.open()
        return backend

    yield open_
    for backend in made:
        backend.close()
