"""A store in memory that holds the engine to its promise: ``close()`` is called alone, when all else is closed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from treehub_level import MemoryBackend
from treehub_level.backends.base import Row


class StrictBackend(MemoryBackend):
    """Raises AssertionError where a LevelDB handle would take the process with it: closed while in use."""

    supports = replace(MemoryBackend.supports, guarded_get=False)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._inside: list[str] = []
        self._lent: list[Any] = []

    def close(self) -> None:
        assert not self._inside, f"it was closed within {self._inside[0]}"
        assert not self._lent, f"it was closed before {len(self._lent)} cursors and snapshots were"
        super().close()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._calling("get", super().get, key)
        return value

    def get_many(self, keys: Any) -> list[bytes | None]:
        values: list[bytes | None] = self._calling("get_many", super().get_many, keys)
        return values

    def scan(self, start: bytes | None, stop: bytes | None, **options: Any) -> Any:
        return self._lend(self._calling("scan", super().scan, start, stop, **options))

    def snapshot(self) -> Any:
        return self._lend(self._calling("snapshot", super().snapshot))

    @contextmanager
    def exclusive(self) -> Any:
        with super().exclusive() as transaction:
            self._inside.append("exclusive")
            try:
                time.sleep(0)
                yield transaction
            finally:
                self._inside.remove("exclusive")

    def _calling(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._inside.append(name)
        try:
            time.sleep(0)  # others have their turn just here
            return call(*args, **options)
        finally:
            self._inside.remove(name)

    def _lend(self, lent: Any) -> _Lent:
        self._lent.append(lent)
        return _Lent(self, lent)


class _Lent:
    """A cursor or a snapshot, until it is closed."""

    def __init__(self, owner: StrictBackend, lent: Any) -> None:
        self._owner = owner
        self._lent = lent

    def scan(self, *args: Any, **options: Any) -> _Lent:
        return self._owner._lend(self._owner._calling("scan", self._lent.scan, *args, **options))

    def fetch(self, limit: int) -> list[Row]:
        rows: list[Row] = self._owner._calling("fetch", self._lent.fetch, limit)
        return rows

    def fetch_keys(self, limit: int) -> list[bytes]:
        keys: list[bytes] = self._owner._calling("fetch_keys", self._lent.fetch_keys, limit)
        return keys

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._owner._calling("get", self._lent.get, key)
        return value

    def get_many(self, keys: Any) -> list[bytes | None]:
        values: list[bytes | None] = self._owner._calling("get_many", self._lent.get_many, keys)
        return values

    def close(self) -> None:
        if self._lent in self._owner._lent:
            self._owner._lent.remove(self._lent)
        self._lent.close()
