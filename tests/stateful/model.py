"""The model of a store: plain dicts and lists."""

from __future__ import annotations

from typing import Any, Final

import orjson

from treehub_level import Mode

#: The value of a deleted key in the model.
GONE: Final = object()
#: The name of the sublevel, and the prefix of its keys.
SUBLEVEL: Final = "sub"
PREFIX: Final = SUBLEVEL + "/"


class Model:
    """A store of one mode.

    Attributes:
        data: The data.
        cid: The CID.
        log: On a server, the CID and the change of each record.
        runs: On a server, the first and the last CID of each batch of two changes or more.
        dirty: On a client, the dirty change of each key: a value, or `GONE`.
        lost: On a client, each local change that lost, and the change that won.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.data: dict[str, Any] = {}
        self.cid = 0
        self.log: list[tuple[int, list[Any]]] = []
        self.runs: list[tuple[int, int]] = []
        self.dirty: dict[str, Any] = {}
        self.lost: list[tuple[list[Any], list[Any]]] = []

    def write(self, key: str, value: Any) -> None:
        """Put a value, or delete the key if the value is `GONE`."""
        self._store(key, value)
        if self.mode is Mode.SERVER:
            self.cid += 1
            self.log.append((self.cid, change_of(key, value)))
        if self.mode is Mode.CLIENT:
            self.dirty[key] = value

    def write_batch(self, written: list[tuple[str, Any]]) -> None:
        """Write changes that belong together."""
        if self.mode is Mode.SERVER and len(written) > 1:
            self.runs.append((self.cid + 1, self.cid + len(written)))
        for key, value in written:
            self.write(key, value)

    def page(self, since: int, limit: int | None) -> tuple[list[tuple[int, list[Any]]], bool]:
        """Return a page of the log after a CID, and whether the log goes on after it.

        A page that holds other changes, too, ends before a run of which it holds a part.
        """
        behind = [record for record in self.log if record[0] > since]
        shown = behind[:limit]
        if shown and shown[-1][0] < self.cid:
            last = shown[-1][0]
            start = next((first for first, end in self.runs if first <= last < end), last + 1)
            shown = [record for record in shown if record[0] < start] or shown
        return shown, len(shown) < len(behind)

    def apply(self, cid: int, changes: list[tuple[str, Any]]) -> None:
        """Apply a page of a server's log."""
        for key, value in changes:
            if key in self.dirty:
                local = change_of(key, self.dirty.pop(key))
                if encoded(local) != encoded(change_of(key, value)):
                    self.lost.append((local, change_of(key, value)))
            self._store(key, value)
        self.cid = cid

    def clean(self, cid: int, keys: list[str]) -> None:
        """Drop the dirty changes of keys that a server has accepted."""
        for key in keys:
            self.dirty.pop(key, None)
        self.cid = cid

    def compact(self) -> int:
        """Remove superseded changes from the log, and return their number."""
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
    """Return all data, or the data of the sublevel under its names there."""
    if not sublevel:
        return dict(data)
    return {key[len(PREFIX) :]: value for key, value in data.items() if key.startswith(PREFIX)}


def change_of(key: str, value: Any) -> list[Any]:
    """Return a change as it is logged."""
    return [key] if value is GONE else [key, value]


def encoded(thing: Any) -> bytes:
    """Encode as JSON, to compare types too: in Python ``1``, ``1.0`` and ``True`` are equal."""
    return orjson.dumps(thing)
