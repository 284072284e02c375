"""Stores for tests: levels over any backend and through either API, and the bytes below them."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from async_adapter import Bridge

from treehub_level import Level, MemoryBackend, Mode, StateError, _core, blocking
from treehub_level.backends import create
from treehub_level.backends.base import Backend

#: Whether the package was built with LevelDB at hand: "leveldb" is that one, then.
NATIVE = find_spec("treehub_level._store_c") is not None
#: The LevelDB engines that behaviour is tested on.
ENGINES = ["leveldb", "plyvel"] if NATIVE and _core.CORE == "c" else ["plyvel"]
#: The backends that processes share. What they have in common does not depend on the core. Where
#: wheels are tried, psycopg is not installed.
SHARED = ["sqlite", *(["postgres"] if find_spec("psycopg") else [])] if _core.CORE == "c" else []
#: What each opening of a client writes anew to a shared store, with its first write. `Stores.raw`
#: leaves it out.
HOLDER = b"!!holder"


def plyvel() -> Any:
    """The binding of LevelDB that is installed here, bare."""
    try:
        return importlib.import_module("plyvel_next")
    except ImportError:
        return importlib.import_module("plyvel")


class Stores:
    """Makes levels. A name is a store: two levels of one name see the same bytes, one after the other.

    Args:
        api: "async" or "blocking".
        backend: "memory", or one of ENGINES or SHARED.
        folder: Where stores on disk go.
        url: The database where those of PostgreSQL go.
    """

    def __init__(self, api: str, backend: str, folder: Path, url: str = "") -> None:
        self.api = api
        self.backend = backend
        self.folder = folder
        self.url = url
        # Stores of PostgreSQL lie in one table, beside those that other runs have left.
        self._prefix = f"{uuid4().hex}-"
        self._memories: dict[str, MemoryBackend] = {}
        self._levels: list[tuple[str, Any]] = []

    def path(self, name: str) -> str:
        """What `Level` is given as the name of this store."""
        if self.backend == "postgres":
            return self.url
        return name if self.backend == "memory" else str(self.folder / name)

    def level(self, name: str, **options: Any) -> Any:
        """A level that is not open yet."""
        made: Any
        made = (Level if self.api == "async" else blocking.Level)(self.path(name), **self.where(name), **options)
        if self.api == "blocking":
            made = Bridge(made)
        self._levels.append((name, made))
        return made

    async def open(self, name: str, **options: Any) -> Any:
        """An open level."""
        level = self.level(name, **options)
        await level.open()
        return level

    async def adopt(self, name: str, **options: Any) -> Any:
        """The level that ``Level.adopt`` gives."""
        made: Any
        options |= self.where(name)
        if self.api == "async":
            made = await Level.adopt(self.path(name), **options)
        else:
            made = Bridge(await asyncio.to_thread(blocking.Level.adopt, self.path(name), **options))
        self._levels.append((name, made))
        return made

    async def close_all(self) -> None:
        """Close every level that is still open."""
        for _, level in self._levels:
            with suppress(StateError):
                await level.close()

    def where(self, name: str) -> dict[str, Any]:
        """The backend of a store, as options of `Level`."""
        if self.backend == "memory":
            return {"backend": lambda _: self._memory(name)}
        if self.backend == "postgres":
            return {"backend": "postgres", "store": self._store(name)}
        return {"backend": self.backend}

    def _memory(self, name: str) -> MemoryBackend:
        return self._memories.setdefault(name, MemoryBackend(name))

    def _store(self, name: str) -> str:
        """What a store is called in the table."""
        return self._prefix + name.replace(" ", "-")

    def _bare(self, name: str) -> Backend:
        """The backend of a store that is in memory or shared."""
        if self.backend == "memory":
            return self._memory(name)
        return create(self.backend, self.path(name), {"store": self._store(name)} if self.url else {})

    # -------------------------------------------------------------------------- bytes, past the API

    async def bytes_of(self, level: Any) -> dict[bytes, bytes]:
        """Everything that an open level holds, metadata too. It is closed for a moment."""
        (name,) = (name for name, made in self._levels if made is level)
        await level.close()
        try:
            return self.raw(name)
        finally:
            await level.open()

    def raw(self, name: str) -> dict[bytes, bytes]:
        """Everything that a closed store holds, read without treehub-level where that is possible."""
        if self.backend == "memory":
            return dump(self._memory(name))
        if self.backend == "postgres":
            psycopg = importlib.import_module("psycopg")
            with psycopg.connect(self.url) as connection:
                found = connection.execute(
                    "SELECT key, value FROM treehub_level WHERE store = %s", [self._store(name)], binary=True
                )
                return {key: value for key, value in found if key != HOLDER}
        if self.backend == "sqlite":
            with closing(sqlite3.connect(self.path(name))) as connection:
                rows = dict(connection.execute("SELECT key, value FROM entries"))
            rows.pop(HOLDER, None)
            return rows
        with plyvel().DB(self.path(name)) as db:
            return dict(db)

    def stored_mode(self, name: str) -> Mode | None:
        """What mode a closed store says that it has."""
        return blocking.stored_mode(self.path(name), **self.where(name))

    def upgrade(self, name: str, **options: Any) -> int:
        """What ``treehub-level upgrade`` does to a closed store."""
        return blocking.upgrade(self.path(name), **self.where(name), **options)

    def seed(self, name: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Make a store of these very bytes, without treehub-level where that is possible."""
        if self.backend in ("memory", *SHARED):
            store = self._bare(name)
            store.open()
            with store.exclusive() as transaction:
                transaction.write(list(rows))
            store.close()
        else:
            with plyvel().DB(self.path(name), create_if_missing=True) as db:
                for key, value in rows:
                    db.put(key, value)


def dump(backend: Backend) -> dict[bytes, bytes]:
    """Everything that a backend holds. It is closed before and afterwards."""
    backend.open()
    cursor = backend.scan(None, None)
    rows = cursor.fetch(1_000_000)
    cursor.close()
    backend.close()
    return dict(rows)
