"""`ChangeFeed`: tells the watches of an open store which keys each commit has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from .. import _core
from ..backends.base import Batch
from ..errors import InvalidKeyError, StorageError, UnavailableError
from ..types import Mode
from ..weak_registry import WeakRegistry


class CommittedChange(NamedTuple):
    """A change of a key by a commit of this process.

    Attributes:
        key: The stored key.
        value: The stored value; ``None`` for a deletion.
        is_local: True for a local write; False for a change that was pulled, applied or filled.
    """

    key: bytes
    value: bytes | None
    is_local: bool


class FeedWatch(Protocol):
    """A watch as the feed sees it. Its methods return quickly, and raise nothing."""

    def on_commit(self, changes: list[CommittedChange], *, is_certain: bool) -> None:
        """Take the changes of a commit. Called under the write lock, in the order of commits.

        Args:
            changes: The changes. A server has none: its log tells them.
            is_certain: False if it is not known whether the commit took place.
        """

    def on_signal(self) -> None:
        """Look at the store again: another process may have committed, or the store has closed."""

    def close(self) -> None:
        """End the watch."""


class ChangeFeed:
    """The watches of a store, and the callers that deliver changes after a write.

    It does not refer to the store, and keeps no watch alive. A store gets its feed with its first
    watch, so one without watches pays nothing.

    Args:
        mode: The mode of the store.
        space: The key space of the store.

    Attributes:
        deliver: Functions to call after a write, in the thread of the writer and outside of all
            locks. They raise nothing.
    """

    def __init__(self, mode: Mode, space: _core.KeySpace) -> None:
        self._mode = mode
        self._space = space
        self._watches: WeakRegistry[FeedWatch] = WeakRegistry()
        #: The batch of a commit that the watches do not know of yet.
        self._unrecorded: Batch | None = None
        self._is_reply = False
        self.deliver: dict[Callable[[], None], None] = {}

    def add(self, watch: FeedWatch) -> None:
        """Tell a watch the changes of later commits, until it is collected or discarded."""
        self._watches.add(watch)

    def discard(self, watch: FeedWatch) -> None:
        """Tell a watch nothing more."""
        self._watches.discard(watch)

    def begin(self, batch: Batch, *, is_reply: bool = False) -> None:
        """Take the batch that is to be committed. Called under the write lock, as the next ones.

        Args:
            batch: The batch.
            is_reply: See `Plan.is_reply`.
        """
        if self._unrecorded is not None:  # an interrupt has ended an earlier call
            self._record(is_certain=False)
        self._is_reply = is_reply
        self._unrecorded = batch

    def committed(self) -> None:
        """Tell the watches the changes of the batch: it was committed."""
        self._record(is_certain=True)

    def failed(self, error: BaseException) -> None:
        """Tell the watches that the batch may have been committed, unless the error excludes it."""
        is_refusal = isinstance(error, StorageError) and error.is_refusal
        is_rolled_back = isinstance(error, UnavailableError) and error.retryable
        if is_refusal or is_rolled_back or isinstance(error, InvalidKeyError):
            self._unrecorded = None
        else:
            self._record(is_certain=False)

    def _record(self, *, is_certain: bool) -> None:
        batch = self._unrecorded
        watches = self._watches.alive()
        if batch is not None and watches:
            changes = [] if self._mode is Mode.SERVER else [*self._changes(batch)]
            for watch in watches:
                watch.on_commit(changes, is_certain=is_certain)
        self._unrecorded = None  # last: interrupted before, the next commit records it again

    def _changes(self, batch: Batch) -> Iterator[CommittedChange]:
        """Yield the changes of user keys in a batch, each key once.

        A client writes a local change together with its dirty change. The only other changes that
        are written so are merges, which a reply has caused.
        """
        latest = dict(batch)
        if self._mode is Mode.NORMAL:
            yield from (CommittedChange(key, value, True) for key, value in latest.items())
            return
        space = self._space
        for key, value in latest.items():
            if key >= space.user_start:
                is_local = not self._is_reply and latest.get(space.dirty_key(key)) is not None
                yield CommittedChange(key, value, is_local)

    def end_watches(self) -> None:
        """End the watches that there are. Any thread may call this."""
        for watch in self._watches.alive():
            watch.close()

    def signal(self) -> None:
        """Have all watches look at the store again."""
        for watch in self._watches.alive():
            watch.on_signal()
