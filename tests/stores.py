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

from async_adapter import AsyncAdapter

from treehub_level import Level, MemoryBackend, Mode, StateError, _core, blocking
from treehub_level.backends import create
from treehub_level.backends.base import Backend

#: True if the package has its native LevelDB engine, the backend "leveldb".
NATIVE = find_spec("treehub_level._store_c") is not None
#: The LevelDB engines that behaviour is tested on.
ENGINES = ["leveldb", "plyvel"] if NATIVE and _core.CORE == "c" else ["plyvel"]
#: The backends that several processes can share. They do not depend on the core, so only the
#: compiled one has them. Clean environments of wheels have no psycopg.
SHARED = ["sqlite", *(["postgres"] if find_spec("psycopg") else [])] if _core.CORE == "c" else []
#: The record of the opening that holds a shared client store, rewritten by the first write of each
#: opening. `Stores.raw` leaves it out.
HOLDER = b"!!holder"


def plyvel() -> Any:
    """Return the installed Python binding of LevelDB, without treehub-level."""
    try:
        return importlib.import_module("plyvel_next")
    except ImportError:
        return importlib.import_module("plyvel")


class Stores:
    """Makes levels. Each name is one store: levels of one name, opened in turn, see the same bytes.

    Args:
        api: "async" or "blocking".
        backend: "memory", or one of ENGINES or SHARED.
        folder: The folder for stores on disk.
        url: The URL of the PostgreSQL database.
    """

    def __init__(self, api: str, backend: str, folder: Path, url: str = "") -> None:
        self.api = api
        self.backend = backend
        self.folder = folder
        self.url = url
        # All PostgreSQL stores are in one table, beside those of earlier runs.
        self._prefix = f"{uuid4().hex}-"
        self._memories: dict[str, MemoryBackend] = {}
        self._levels: list[tuple[str, Any]] = []

    def path(self, name: str) -> str:
        """Return the first argument of `Level` for this store."""
        if self.backend == "postgres":
            return self.url
        return name if self.backend == "memory" else str(self.folder / name)

    def level(self, name: str, **options: Any) -> Any:
        """Return a level that is not open."""
        made: Any
        made = (Level if self.api == "async" else blocking.Level)(self.path(name), **self.where(name), **options)
        if self.api == "blocking":
            made = AsyncAdapter(made)
        self._levels.append((name, made))
        return made

    async def open(self, name: str, **options: Any) -> Any:
        """Return an open level."""
        level = self.level(name, **options)
        await level.open()
        return level

    async def adopt(self, name: str, **options: Any) -> Any:
        """Return the open level that ``Level.adopt`` returns."""
        made: Any
        options |= self.where(name)
        if self.api == "async":
            made = await Level.adopt(self.path(name), **options)
        else:
            made = AsyncAdapter(await asyncio.to_thread(blocking.Level.adopt, self.path(name), **options))
        self._levels.append((name, made))
        return made

    async def close_all(self) -> None:
        """Close every level that is still open."""
        for _, level in self._levels:
            with suppress(StateError):
                await level.close()

    def where(self, name: str) -> dict[str, Any]:
        """Return the options of `Level` that select the backend of a store."""
        if self.backend == "memory":
            return {"backend": lambda _: self._memory(name)}
        if self.backend == "postgres":
            return {"backend": "postgres", "store": self._store(name)}
        return {"backend": self.backend}

    def _memory(self, name: str) -> MemoryBackend:
        return self._memories.setdefault(name, MemoryBackend(name))

    def _store(self, name: str) -> str:
        """Return the name of a store in the table of PostgreSQL."""
        return self._prefix + name.replace(" ", "-")

    def _bare(self, name: str) -> Backend:
        """Return the backend object of a store in memory, in SQLite or in PostgreSQL."""
        if self.backend == "memory":
            return self._memory(name)
        return create(self.backend, self.path(name), {"store": self._store(name)} if self.url else {})

    # -------------------------------------------------------------------------- bytes, past the API

    async def bytes_of(self, level: Any) -> dict[bytes, bytes]:
        """Return all rows of an open level, with metadata, which is closed meanwhile."""
        (name,) = (name for name, made in self._levels if made is level)
        await level.close()
        try:
            return self.raw(name)
        finally:
            await level.open()

    def raw(self, name: str) -> dict[bytes, bytes]:
        """Return all rows of a closed store, read without treehub-level where possible."""
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
        """Return the mode recorded in a closed store."""
        return blocking.stored_mode(self.path(name), **self.where(name))

    def upgrade(self, name: str, **options: Any) -> int:
        """Do the same as ``treehub-level upgrade`` to a closed store."""
        return blocking.upgrade(self.path(name), **self.where(name), **options)

    def seed(self, name: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Make a store of these rows, without treehub-level where possible."""
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
    """Return all rows of a backend that is closed before and after the call."""
    backend.open()
    cursor = backend.scan(None, None)
    rows = cursor.fetch(1_000_000)
    cursor.close()
    backend.close()
    return dict(rows)
