"""Writes in the queue of a store, and the commits that take them."""

from __future__ import annotations

from collections.abc import Sequence

from ..backends.base import Entry
from ..errors import StorageError


class GroupCommit:
    """A commit of the writes that waited together. All of them share its outcome.

    The outcome is set by one assignment: an interrupt leaves it unknown, never half set.

    Attributes:
        committed: True once the entries are written.
        error: The reason for a failure.
    """

    __slots__ = ("committed", "error")

    def __init__(self) -> None:
        self.committed = False
        self.error: Exception | None = None


class PendingWrite:
    """A write in the queue.

    Attributes:
        entries: The entries to write. A caller that gives up leaves none.
        durable: True if the writer waits for the fsync.
        group: The commit that took the write. It has ended if the write lock is free.
    """

    __slots__ = ("durable", "entries", "group")

    def __init__(self, entries: Sequence[Entry], durable: bool) -> None:
        self.entries = entries
        self.durable = durable
        self.group: GroupCommit | None = None

    def outcome(self) -> Exception | None:
        """Return the error of the ended commit; ``None`` if the entries are written."""
        assert self.group is not None
        if self.group.committed:
            return None
        return self.group.error or StorageError("the commit was interrupted: whether it was written is not known")
