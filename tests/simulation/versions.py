"""The versions of each key on a server, and the rules for the base values of its clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from .sides import SWEPT, UNKNOWN, ClientUnderTest, Content, InvariantError, Loss


class Commit(NamedTuple):
    """The CIDs of a commit of the server, and the weight of its changes."""

    first: int
    last: int
    weight: int


class Logged(NamedTuple):
    """A change in a history of the server, and its commit."""

    author: str
    key: str
    content: Content
    commit: Commit = Commit(0, 0, 0)


#: A change of a history, with its CID; CID 0 if the key has never existed.
Version = tuple[str, Content, int]


class Versions:
    """The versions that each version has replaced, in any history that the server ever had."""

    def __init__(self) -> None:
        self._replaced: defaultdict[Version, set[Version]] = defaultdict(set)
        self._last: dict[str, Version] = {}

    def follow(self, history: Mapping[int, Logged]) -> None:
        """Continue with another history."""
        self._last.clear()
        for cid in sorted(history):
            self._last[history[cid].key] = history[cid].key, history[cid].content, cid

    def record(self, cid: int, key: str, content: Content) -> None:
        """Record a new change of the present history."""
        version = key, content, cid
        self._replaced[version].add(self._last.get(key, (key, None, 0)))
        self._last[key] = version

    def check_conflict(self, name: str, loss: Loss) -> None:
        """Check that the server's change in a conflict has replaced the base value, if it is known.

        Raises:
            InvariantError: The two values have no history in common.
        """
        if loss.base == UNKNOWN or loss.remote == SWEPT:
            return
        seen: set[Version] = set()
        left: set[Any] = {(loss.key, loss.remote, loss.cid)}
        while left:
            version = left.pop()
            seen.add(version)
            if version[1] == loss.base and len(seen) > 1:
                return
            left |= self._replaced[version] - seen
        raise InvariantError(f"base value: {name} reports {loss}, but {loss.remote} has not replaced {loss.base}")


def check_base_values(
    name: str, client: ClientUnderTest, history: Mapping[int, Logged], log: Callable[[], Collection[int]]
) -> None:
    """Check that a known base value is the last one of its key that the client has been shown.

    That is the server's value at the CID that the client has reached, or an older one if the log no
    longer shows the newer ones. It may also be a later one: a change of the client's own that the
    server has accepted, or a delete that phase B of a reset has found.

    Args:
        name: The client's name.
        client: The client.
        history: All changes of the server, including compacted ones.
        log: Returns the CIDs in the server's log.

    Raises:
        InvariantError: It is another value.
    """
    dirty, base_values = client.dirty(), client.base_values()
    if not base_values.keys() <= dirty.keys():
        raise InvariantError(f"base value: {name} has one of a clean key: {[*base_values]}, dirty {[*dirty]}")
    for key, base in base_values.items():
        shown = _contents(key, history, client.cid)
        later = [change for cid, change in history.items() if cid > client.cid and change.key == key]
        known = {change.content for change in later if change.content is None or change.author == name}
        if base == next(shown)[1] or base in known:
            continue
        shown, present = _contents(key, history, client.cid), log()
        for cid, content in shown:
            if content == base:
                break
            if cid in present or cid == 0:
                raise InvariantError(f"base value: {name} at CID {client.cid} has {base} for {key}, not {content}")


def _contents(key: str, history: Mapping[int, Logged], stop: int) -> Iterator[tuple[int, Content]]:
    """Yield the CID and the content of each change of a key up to a CID, the newest first."""
    for cid in sorted((cid for cid in history if cid <= stop), reverse=True):
        if history[cid].key == key:
            yield cid, history[cid].content
    yield 0, None
