"""The versions of each key, in the order of the server's log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from operator import attrgetter

from .history import Version

_cid = attrgetter("cid")


class Versions:
    """An index of the log.

    Args:
        log: The changes, in CID order.

    Attributes:
        of_key: The versions of each key, in CID order.
    """

    def __init__(self, log: Iterable[Version]) -> None:
        self.of_key: dict[str, list[Version]] = {}
        self._cids: dict[tuple[str, str], int] = {}
        for version in log:
            self.of_key.setdefault(version.key, []).append(version)
            if version.id is not None:
                self._cids.setdefault((version.key, version.id), version.cid)

    def cid_of(self, key: str, id_: str | None) -> int | None:
        """Return the CID of a written value; ``None`` for a delete, or if it is not in the log."""
        return None if id_ is None else self._cids.get((key, id_))

    def at(self, key: str, cid: int) -> Version | None:
        """Return the version that is current at a CID; ``None`` before the first one."""
        versions = self.of_key.get(key, [])
        index = bisect_right(versions, cid, key=_cid)
        return versions[index - 1] if index else None

    def after(self, key: str, cid: int) -> Version | None:
        """Return the first version after a CID; ``None`` if there is none."""
        versions = self.of_key.get(key, [])
        index = bisect_right(versions, cid, key=_cid)
        return versions[index] if index < len(versions) else None

    def last_absent(self, key: str) -> int:
        """Return the highest CID of a delete of a key; 0 if it was never deleted."""
        return next((version.cid for version in reversed(self.of_key.get(key, [])) if version.id is None), 0)

    def position(self, key: str, id_: str | None, cid: int | None) -> int | None:
        """Return the CID of the version that a read returned.

        An absent key was read from a delete, or from before the first version. The CID of the state
        that was read tells from which; without it, only a key that was never deleted is clear.

        Args:
            key: The key.
            id_: The id that was read; ``None`` for an absent key.
            cid: The CID of the state that was read, if it is known.

        Returns:
            The CID, 0 for the state before the first version; ``None`` if it cannot be told.
        """
        if id_ is not None:
            return self.cid_of(key, id_)
        if cid is None:
            return None if self.last_absent(key) else 0
        version = self.at(key, cid)
        if version is None:
            return 0
        return version.cid if version.id is None else None


def ids(writes: Mapping[str, str | None]) -> Iterable[tuple[str, str]]:
    """Yield the keys and the ids of written values, without deletes."""
    for key, id_ in writes.items():
        if id_ is not None:
            yield key, id_
