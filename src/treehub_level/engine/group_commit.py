"""Group commit: the writes that wait for the write lock, and the commits that take them.

This is LevelDB's group commit (``DBImpl::Write``): the writer that gets the lock commits for all
writers in the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final, TypeAlias

from ..backends.base import Entry
from ..errors import StorageError
from ..locks import ErrorCheckingLock
from .modes import Write

#: Commits the entries of some writes, with fsync if the flag is set.
CommitEntries: TypeAlias = Callable[[Sequence[Entry], Sequence[Write], bool], object]

#: Entries that one group commit takes at most, if it takes more than one write: memory stays
#: bounded.
_MAX_ENTRIES: Final = 20_000


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
        is_batch: True if the entries belong together.
        principal: The name of the caller; ``None`` if it is not known.
        group: The commit that took the write. It has ended if the write lock is free.
    """

    __slots__ = ("durable", "entries", "group", "is_batch", "principal")

    def __init__(
        self, entries: Sequence[Entry], durable: bool, is_batch: bool = False, principal: str | None = None
    ) -> None:
        self.entries = entries
        self.durable = durable
        self.is_batch = is_batch
        self.principal = principal
        self.group: GroupCommit | None = None

    def outcome(self) -> Exception | None:
        """Return the error of the ended commit; ``None`` if the entries are written."""
        assert self.group is not None
        if self.group.committed:
            return None
        return self.group.error or StorageError("the commit was interrupted: whether it was written is not known")


class WriteQueue:
    """The writes that wait for the write lock.

    The queue does not refer to its store, which would be a cycle of references. The calls take the
    function that commits instead.

    Args:
        lock: The write lock.

    Attributes:
        writes: The queued writes, in order.
        on_committed: Called with the writes of each group commit, in the thread that committed
            them.
    """

    def __init__(self, lock: ErrorCheckingLock) -> None:
        self._lock = lock
        self.writes: deque[PendingWrite] = deque()
        self.on_committed: Callable[[Sequence[PendingWrite]], None] = lambda group: None

    def commit(self, write: PendingWrite, commit: CommitEntries) -> None:
        """Append a write, and return once it has its outcome.

        Raises:
            StateError: This thread is inside a write already, as from a signal handler.
        """
        self.writes.append(write)
        try:
            with self._lock.entry():
                while write.group is None:
                    self._commit_group(commit)
        except BaseException:
            write.entries = ()  # interrupted: if the write still waits, it is not made later
            raise

    def commit_all(self, commit: CommitEntries) -> None:
        """Commit the queued writes, group after group, until the queue is empty."""
        while self.writes:
            with self._lock.entry():
                self._commit_group(commit)

    def refuse_all(self, error: Exception) -> None:
        """Give the writes that are left in the queue of a closing store their outcome."""
        group = GroupCommit()
        group.error = error
        for write in tuple(self.writes):
            write.group = write.group or group
        self._remove_committed()

    def _commit_group(self, commit: CommitEntries) -> None:
        """Commit the writes at the head of the queue together, and set the outcome of each.

        A write leaves the queue last, once its waiter is told. So the next call completes the
        group commit that an interrupt has left undone. Called under the lock.
        """
        self._remove_committed()
        group = GroupCommit()
        entries: list[Entry] = []
        writes: list[Write] = []
        durable = False
        for write in tuple(self.writes):
            if entries and len(entries) + len(write.entries) > _MAX_ENTRIES:
                break
            write.group = group
            durable = durable or write.durable
            count = len(entries)
            entries.extend(write.entries)  # a caller that gives up meanwhile leaves none
            writes.append(Write(len(entries) - count, write.is_batch, write.principal))
        try:
            commit(entries, writes, durable)
            group.committed = True
        except Exception as error:
            group.error = error
        finally:
            self._remove_committed()

    def _remove_committed(self) -> None:
        """Report and remove the writes whose group commit has ended. Called under the lock."""
        ended = [*takewhile(lambda write: write.group is not None, tuple(self.writes))]
        if ended:
            self.on_committed(ended)
            for _ in ended:
                self.writes.popleft()
