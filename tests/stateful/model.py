"""What a store is, told by a plain dict, a list and another dict."""

from __future__ import annotations

from typing import Any, Final

import orjson

from treehub_level import Mode

#: What a deletion leaves.
GONE: Final = object()
#: The sublevel, and what its keys begin with.
SUBLEVEL: Final = "sub"
PREFIX: Final = SUBLEVEL + "/"


class Model:
    """A store of one mode.

    Attributes:
        data: What it holds.
        cid: Its CID.
        log: On a server, the CID and the change of each record.
        dirty: On a client, the last local change of each key that no server has acknowledged.
        lost: On a client, each local change that lost, and what won.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.data: dict[str, Any] = {}
        self.cid = 0
        self.log: list[tuple[int, list[Any]]] = []
        self.dirty: dict[str, Any] = {}
        self.lost: list[tuple[list[Any], list[Any]]] = []

    def write(self, key: str, value: Any) -> None:
        """A put, or a deletion if the value is GONE."""
        self._store(key, value)
        if self.mode is Mode.SERVER:
            self.cid += 1
            self.log.append((self.cid, change_of(key, value)))
        if self.mode is Mode.CLIENT:
            self.dirty[key] = value

    def apply(self, cid: int, changes: list[tuple[str, Any]]) -> None:
        """A page of a server's log is pulled."""
        for key, value in changes:
            if key in self.dirty:
                local = change_of(key, self.dirty.pop(key))
                if encoded(local) != encoded(change_of(key, value)):
                    self.lost.append((local, change_of(key, value)))
            self._store(key, value)
        self.cid = cid

    def clean(self, cid: int, keys: list[str]) -> None:
        """A server has taken what was dirty."""
        for key in keys:
            self.dirty.pop(key, None)
        self.cid = cid

    def compact(self) -> int:
        """Superseded changes leave the log. Returns how many."""
        last = {change[0]: cid for cid, change in self.log}
        before = len(self.log)
        self.log = [(cid, change) for cid, change in self.log if last[change[0]] == cid]
        return before - len(self.log)

    def _store(self, key: str, value: Any) -> None:
        if value is GONE:
            self.data.pop(key, None)
        else:
            self.data[key] = value


def part(data: dict[str, Any], sublevel: bool) -> dict[str, Any]:
    """All of the data, or what lies in the sublevel, by its names there."""
    if not sublevel:
        return dict(data)
    return {key[len(PREFIX) :]: value for key, value in data.items() if key.startswith(PREFIX)}


def change_of(key: str, value: Any) -> list[Any]:
    """A change as it is logged."""
    return [key] if value is GONE else [key, value]


def encoded(thing: Any) -> bytes:
    """As JSON: to Python ``1``, ``1.0`` and ``True`` are equal."""
    return orjson.dumps(thing)
