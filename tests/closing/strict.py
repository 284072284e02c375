"""A backend in memory that checks the contract of ``close()``: no call runs, no handle is open."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from treehub_level import MemoryBackend
from treehub_level.backends.base import Row


class StrictBackend(MemoryBackend):
    """Raises AssertionError where LevelDB would crash: closed in a call, or with open handles."""

    supports = replace(MemoryBackend.supports, guarded_get=False)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._inside: list[str] = []
        self._open: list[Any] = []

    def close(self) -> None:
        assert not self._inside, f"it was closed within {self._inside[0]}"
        assert not self._open, f"it was closed before {len(self._open)} cursors and snapshots were"
        super().close()

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._calling("get", super().get, key)
        return value

    def get_many(self, keys: Any) -> list[bytes | None]:
        values: list[bytes | None] = self._calling("get_many", super().get_many, keys)
        return values

    def scan(self, start: bytes | None, stop: bytes | None, **options: Any) -> Any:
        return self._wrap(self._calling("scan", super().scan, start, stop, **options))

    def snapshot(self) -> Any:
        return self._wrap(self._calling("snapshot", super().snapshot))

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
            time.sleep(0)  # lets other threads run
            return call(*args, **options)
        finally:
            self._inside.remove(name)

    def _wrap(self, handle: Any) -> _Handle:
        self._open.append(handle)
        return _Handle(self, handle)


class _Handle:
    """A cursor or a snapshot of a `StrictBackend`."""

    def __init__(self, owner: StrictBackend, handle: Any) -> None:
        self._owner = owner
        self._handle = handle

    def scan(self, *args: Any, **options: Any) -> _Handle:
        return self._owner._wrap(self._owner._calling("scan", self._handle.scan, *args, **options))

    def fetch(self, limit: int) -> list[Row]:
        rows: list[Row] = self._owner._calling("fetch", self._handle.fetch, limit)
        return rows

    def fetch_keys(self, limit: int) -> list[bytes]:
        keys: list[bytes] = self._owner._calling("fetch_keys", self._handle.fetch_keys, limit)
        return keys

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._owner._calling("get", self._handle.get, key)
        return value

    def get_many(self, keys: Any) -> list[bytes | None]:
        values: list[bytes | None] = self._owner._calling("get_many", self._handle.get_many, keys)
        return values

    def close(self) -> None:
        if self._handle in self._owner._open:
            self._owner._open.remove(self._handle)
        self._handle.close()
