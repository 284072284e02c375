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
        lost: On a client, each local change that lost, and the change that won; for one that was
            refused, also the reason.
        followed: On a client, the followed prefixes, and True for those that are complete.
        groups: On a client, the keys that were written together and are not all pushed.
        is_at_head: On a client, True if it has pulled all that its server had.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.data: dict[str, Any] = {}
        self.cid = 0
        self.log: list[tuple[int, list[Any]]] = []
        self.runs: list[tuple[int, int]] = []
        self.dirty: dict[str, Any] = {}
        self.lost: list[tuple[Any, ...]] = []
        self.followed = {"": False}
        self.groups: list[set[str]] = []
        self.is_at_head = False

    def write(self, key: str, value: Any) -> None:
        """Put a value, or delete the key if the value is `GONE`."""
        self._store(key, value)
        if self.mode is Mode.SERVER:
            self.cid += 1
            self.log.append((self.cid, change_of(key, value)))
        if self.mode is Mode.CLIENT:
            self.dirty[key] = value

    def write_batch(self, written: list[tuple[str, Any]], *, together: bool | None = None) -> None:
        """Write changes that belong together, unless ``together`` is False."""
        if self.mode is Mode.SERVER and len(written) > 1 and together is not False:
            self.runs.append((self.cid + 1, self.cid + len(written)))
        for key, value in written:
            self.write(key, value)
        keys = {key for key, _ in written}
        if self.mode is Mode.CLIENT and len(keys) > 1 and together is not False:
            self.groups.append(keys)

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

    @property
    def may_move(self) -> bool:
        """True if a manual sync may move the CID of a client: nothing is being filled."""
        return not self.cid or all(self.followed.values())

    @property
    def is_consistent(self) -> bool:
        """True if a client has the data of its server, apart from dirty changes."""
        return self.is_at_head and all(self.followed.values())

    def apply(self, cid: int, changes: list[tuple[str, Any]]) -> None:
        """Apply a page of a server's log."""
        for key, value in changes:
            if key in self.dirty:
                local = change_of(key, self.dirty.pop(key))
                if encoded(local) != encoded(change_of(key, value)):
                    self.lost.append((local, change_of(key, value)))
            self._store(key, value)
        self._move(cid)

    def clean(self, cid: int, keys: list[str]) -> None:
        """Drop the dirty changes of keys that a server has accepted."""
        for key in keys:
            self.dirty.pop(key, None)
        self._move(cid)

    def _move(self, cid: int) -> None:
        """Move the CID of a client by manual sync."""
        if cid != self.cid:
            self.is_at_head = False
            if not self.cid:
                self.followed = dict.fromkeys(self.followed, True)
        self.cid = cid
        self._end_groups()
        self.evict()

    def follow(self, prefix: str) -> None:
        """Follow a prefix. A part of a complete range is complete."""
        if prefix not in self.followed:
            self.followed[prefix] = any(
                prefix.startswith(other) and is_complete for other, is_complete in self.followed.items()
            )

    def unfollow(self, prefix: str) -> None:
        """Stop to follow a prefix, and remove its clean keys."""
        if self.followed.pop(prefix, None) is not None:
            self.evict()

    def evict(self) -> None:
        """Remove the clean keys that are not followed."""
        prefixes = tuple(self.followed)
        self.data = {key: value for key, value in self.data.items() if key.startswith(prefixes) or key in self.dirty}

    def dirty_groups(self) -> list[list[str]]:
        """Return the dirty keys, those that belong together in one list, in order."""
        left, found = {*self.dirty}, []
        while left:
            group, grown = {min(left)}, {min(left)}
            while grown:
                grown = {key for keys in self.groups if keys & group for key in keys if key in self.dirty} - group
                group |= grown
            left -= group
            found.append(sorted(group))
        return sorted(found)

    def sync(self, refused: list[list[str]], reason: str) -> list[tuple[Any, ...]]:
        """Synchronise with a server that has no other changes.

        Args:
            refused: The groups that the server refuses. It has none of their keys.
            reason: The reason.

        Returns:
            The changes that are lost.
        """
        lost: list[tuple[Any, ...]] = []
        for key in (key for keys in refused for key in keys):
            lost.append((change_of(key, self.dirty.pop(key)), [key], reason))
            self.data.pop(key, None)
        self.cid += len(self.dirty)
        self.dirty.clear()
        self.groups.clear()
        self.followed = dict.fromkeys(self.followed, True)
        self.is_at_head = True
        self.evict()
        return lost

    def _end_groups(self) -> None:
        self.groups = [keys for keys in self.groups if len(keys & self.dirty.keys()) > 1]

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
