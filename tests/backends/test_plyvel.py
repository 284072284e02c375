"""The LevelDB backend on top of plyvel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends.directories import KIB, Opened

from treehub_level import CorruptionError, LockedError, NotOpenError, StorageError
from treehub_level.backends.leveldb.directory import DirectoryBackend
from treehub_level.backends.leveldb.plyvel import _vendor as vendor

pytestmark = pytest.mark.once


@pytest.fixture
def engine() -> str:
    return "plyvel"


@pytest.mark.parametrize(
    ("option", "value", "reaches"),
    [
        ("write_buffer_size", 1_000_000, "write_buffer_size"),
        ("bloom_filter_bits", 0, "bloom_filter_bits"),
        ("block_cache_size", 0, "lru_cache_size"),
        ("block_size", 16 * KIB, "block_size"),
        ("max_open_files", 100, "max_open_files"),
        ("max_file_size", 1_000_000, "max_file_size"),
        ("compression", None, "compression"),
    ],
)
def test_every_option_reaches_leveldb(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: object, reaches: str
) -> None:
    given: list[dict[str, object]] = []
    make = vendor.DB

    def record(name: bytes, **options: object) -> Any:
        given.append(options)
        return make(name, **options)

    monkeypatch.setattr(vendor, "DB", record)
    opened(path).close()
    opened(path, **{option: value})
    assert given[1] == {**given[0], reaches: value}
    assert given[0] == {
        "create_if_missing": True,
        "paranoid_checks": True,
        "write_buffer_size": 64 * KIB * KIB,
        "bloom_filter_bits": 10,
        "lru_cache_size": 32 * KIB * KIB,
        "block_size": 4 * KIB,
        "max_open_files": 1000,
        "max_file_size": 2 * KIB * KIB,
        "compression": "snappy",
    }


def test_a_store_that_bare_plyvel_has_open_is_locked(opened: Opened, path: Path) -> None:
    with vendor.DB(str(path), create_if_missing=True), pytest.raises(LockedError):
        opened(path)


class _Failing:
    """A database in which every method raises ``error``."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return self if name == "write_batch" else self._raise

    def __call__(self, **options: object) -> _Failing:
        return self

    def _raise(self, *arguments: object, **options: object) -> None:
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "verb",
    [
        lambda backend: backend.get(b"k"),
        lambda backend: backend.get_many([b"k"]),
        lambda backend: backend.scan(None, None),
        lambda backend: backend.snapshot(),
        lambda backend: backend.write([(b"k", b"v")]),
        lambda backend: backend.write([(b"k", None)]),
        lambda backend: backend.write([]),
        lambda backend: backend.compact(),
        lambda backend: backend.approximate_size(b"", b"k"),
        lambda backend: backend.stats(),
    ],
    ids=["get", "get_many", "scan", "snapshot", "put", "delete", "write", "compact", "size", "stats"],
)
@pytest.mark.parametrize(
    ("error", "translation"),
    [
        (vendor.Error(b"Not implemented: this"), StorageError),
        (vendor.Error(), StorageError),
        (vendor.IOError(b"IO error: no space left"), StorageError),
        (vendor.CorruptionError(b"Corruption: bad block"), CorruptionError),
        (RuntimeError("Database is closed"), NotOpenError),
    ],
    ids=["Error", "Error-without-text", "IOError", "CorruptionError", "RuntimeError"],
)
def test_every_error_of_plyvel_is_translated(
    opened: Opened,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[[DirectoryBackend], object],
    error: Exception,
    translation: type[Exception],
) -> None:
    monkeypatch.setattr(vendor, "DB", lambda name, **options: _Failing(error))
    backend = opened(path)
    with pytest.raises(translation) as caught:
        verb(backend)
    assert error in (caught.value.__cause__, caught.value.__context__)
    assert repr(str(path)) in str(caught.value)


def test_other_errors_are_not_translated(opened: Opened, path: Path) -> None:
    backend = opened(path)
    with pytest.raises(TypeError):
        backend.get("text")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError):
        backend.write([(b"fine", b"1"), (b"k", "text")])  # type: ignore[arg-type]  # the point of the test
    assert backend.get(b"fine") is None
