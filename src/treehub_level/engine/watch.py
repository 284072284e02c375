"""Watches: the changes of a range of keys as they happen, and the state before them.

A `Watch` collects changes without waiting. The façades wait until it is signalled, call
`Watch.fill`, and take the changes from its buffer. It does not keep the store alive.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final
from weakref import ref

from ..errors import CIDMismatchError, CorruptionError, DecodeError, NotOpenError, StorageError
from ..locks import WITHOUT_WAITING, ErrorCheckingLock
from ..types import Change, ChangeOrigin, Mode
from .change_feed import CommittedChange
from .change_queue import UNREAD, ChangeQueue, QueuedChange
from .commits import commit_of, read_page
from .comparison import KnownState, RangeComparison
from .handles import StoreSnapshot
from .store import Store
from .watched_range import SpansCursor, WatchedRange

#: Changes that are collected at a time.
_CHANGES: Final = 1000
#: Bytes of values, and records of the log, that are read at a time.
_BYTES: Final = 1 << 20
#: Values that are requested at a time.
_VALUES: Final = 16
#: Comparisons of a range take at most this share of the time, so a large range is compared less
#: often.
_COMPARING_SHARE: Final = 0.2


class Watch(ABC):
    """A watch of a range of keys. One consumer at a time fills its buffer, and takes from it.

    Args:
        store: The store.
        watched: The range.

    Attributes:
        buffer: The changes that are ready, in order. `fill` adds some once it is empty.
        feed: The feed of the store.
        has_more: True if `fill` is to be called again without a signal.
        wake: Called after each signal, from any thread. It returns quickly and raises nothing.
    """

    def __init__(self, store: Store, watched: WatchedRange) -> None:
        self._range = watched
        self.buffer: deque[Change] = deque()
        self.has_more = False
        self.wake: Callable[[], None] = _do_nothing
        self._is_closed = False
        self._filling = ErrorCheckingLock("read from this watch")
        self.feed = store.open_feed()
        weakly = ref(self)

        def on_collected(_: object) -> None:
            watch = weakly()
            if watch is not None:
                watch.wake()

        self._store = ref(store, on_collected)
        self.feed.add(self)

    def fill(self) -> bool:
        """Move the next changes to the buffer if it is empty. It may read from the store.

        If there are none afterwards, wait for a signal, unless `has_more` is set.

        Returns:
            False once the watch has ended: it, or the level, was closed.

        Raises:
            StorageError, CorruptionError: The backend could not read, or the temporary file of a
                watch that lags could not be written.
            DecodeError: The stored bytes do not fit the encoding.
            StateError: This thread is inside a write.
        """
        store = self._store()
        if store is None or not self._is_open(store):
            return False
        try:
            with store.guard.thread.lock, self._filling.entry():
                store.require_open()
                self.has_more = bool(self.buffer) or self._collect(store)
        except NotOpenError:
            if self._is_open(store):
                raise
        return self._is_open(store)

    def fill_at_once(self) -> bool:
        """Fill the buffer if that takes microseconds, and return True; else return False."""
        return False

    def seconds_left(self) -> float | None:
        """Return the seconds after which to call `fill` without a signal; ``None`` for never."""
        return None

    def _is_open(self, store: Store) -> bool:
        return not self._is_closed and store.is_open and store.feed is self.feed

    @property
    def cid(self) -> int | None:
        """The CID up to which the buffer had a server's changes; ``None`` if there is none."""
        return None

    @property
    def has_ended(self) -> bool:
        """True once the watch has ended."""
        store = self._store()
        return store is None or not self._is_open(store)

    @abstractmethod
    def _collect(self, store: Store) -> bool:
        """Add changes to the buffer. Return True to be called again without a signal."""

    def _take_initial(self, cursor: SpansCursor) -> bool:
        """Add pairs of the present state to the buffer. Return False if there are none left."""
        rows = cursor.fetch_rows(_CHANGES)
        for key, value in self._range.codec.decoder.items(rows):
            change = Change(key, value)
            change.origin = "initial"
            self.buffer.append(change)
        return bool(rows)

    @abstractmethod
    def on_commit(self, changes: list[CommittedChange], *, is_certain: bool) -> None:
        """See `FeedWatch.on_commit`."""

    def on_signal(self) -> None:
        """See `FeedWatch.on_signal`."""
        self.wake()

    def close(self) -> None:
        """End the watch. Closing it again is harmless."""
        self._is_closed = True
        self.feed.discard(self)
        self.wake()
        taken: list[bool] = []
        try:
            taken.extend(map(self._filling.acquire, WITHOUT_WAITING))  # see `Store._commit_alone`
            if taken[0]:  # else the call that fills releases all of it with the watch
                self._release()
        finally:
            if True in taken:
                self._filling.release()

    @abstractmethod
    def _release(self) -> None:
        """Close cursors and temporary files."""


class StateWatch(Watch):
    """A watch in NORMAL and CLIENT mode, which have no log.

    The commits of this process name their changes. After commits of other processes, which only a
    shared store can have, the range is compared with its known state (`RangeComparison`).

    Args:
        store: The store.
        watched: The range.
        is_initial: True to begin with the present state.
    """

    def __init__(self, store: Store, watched: WatchedRange, *, is_initial: bool) -> None:
        self._queue = ChangeQueue()
        self._mutex = ErrorCheckingLock("queue the changes for a watch")
        self._error: Exception | None = None
        self._is_initial = is_initial
        self._known: KnownState | None = None
        self._comparison: RangeComparison | None = None
        self._cursor: SpansCursor | None = None
        #: The origin of the differences that the comparison finds; ``None`` to report none.
        self._origin: ChangeOrigin | None = "initial" if is_initial else None
        #: The origins of keys changed by this process since the comparison before.
        self._origins: ChangeQueue | None = None
        self._has_signal = False
        self._foreign: Hashable = None
        self._not_before = 0.0
        self._started = 0.0
        super().__init__(store, watched)
        if store.backend.supports.shared:
            self._known = KnownState()
            if not is_initial:
                self._compare(self._known, self._open_cursor(store))

    def _open_cursor(self, store: Store) -> SpansCursor:
        with store.guard.thread.lock:
            return self._range.cursor(store, store.reader())

    def _compare(self, known: KnownState, cursor: SpansCursor) -> None:
        self._started = time.monotonic()
        self._comparison = RangeComparison(known, cursor)

    # ------------------------------------------------------------------------------------- signals

    def on_commit(self, changes: list[CommittedChange], *, is_certain: bool) -> None:
        """See `FeedWatch.on_commit`."""
        concerned = [change for change in changes if change.key in self._range.keys]
        if not concerned:
            return
        try:
            with self._mutex.entry():
                for key, value, is_local in concerned:
                    self._queue.put(key, value if is_certain else UNREAD, is_local)
        except Exception as error:  # such as a full disk: the consumer gets it, and not the writer
            self._error = error
        self.wake()

    def on_signal(self) -> None:
        """See `FeedWatch.on_signal`."""
        self._has_signal = self._known is not None
        self.wake()

    def seconds_left(self) -> float | None:
        """See `Watch.seconds_left`."""
        return max(0.0, self._not_before - time.monotonic()) if self._has_signal else None

    # ------------------------------------------------------------------------------------- filling

    def fill_at_once(self) -> bool:
        """See `Watch.fill_at_once`."""
        store = self._store()
        is_reading = self._is_initial or self._cursor is not None or self._known is not None
        if store is None or not self._is_open(store) or is_reading or self._error is not None:
            return False
        with self._mutex.entry():
            taken = self._queue.take_read(_CHANGES)
        if taken is None:
            return False
        self.has_more = False
        for key, value, is_local in taken:
            assert value is not UNREAD
            self.buffer.append(self._range.change(key, value, _origin(is_local)))
        return True

    def _collect(self, store: Store) -> bool:
        if self._error is not None:
            raise self._error
        try:
            return self._collect_next(store)
        except (DecodeError, StorageError, CorruptionError) as error:
            self._error = error  # changes that were taken may be lost: the watch ends here
            raise

    def _collect_next(self, store: Store) -> bool:
        if self._is_initial:
            self._begin_initial(store)
        if self._comparison is not None:
            return self._continue_comparison(store, self._comparison)
        if self._cursor is not None:
            return self._continue_initial(self._cursor)
        if self._known is not None and self._is_comparison_due(store, self._known):
            return True
        return self._take_queued(store)

    def _begin_initial(self, store: Store) -> None:
        """Take a snapshot of the state to begin with. The queue then has the changes after it."""
        with store.backend.write_lock.entry():
            with self._mutex.entry():
                self._queue.close()
            cursor = self._open_cursor(store)
        if self._known is None:
            self._cursor = cursor
        else:
            self._compare(self._known, cursor)
        self._is_initial = False

    def _continue_initial(self, cursor: SpansCursor) -> bool:
        if not self._take_initial(cursor):
            cursor.close()
            self._cursor = None
        return True

    def _continue_comparison(self, store: Store, comparison: RangeComparison) -> bool:
        entries = comparison.next_changes()
        if self._origin is not None or self._origins is not None:
            for key, value in entries:
                origin = self._origin or self._foreign_origin(store, key)
                self.buffer.append(self._range.change(key, value, origin))
        if comparison.is_complete:
            self._comparison, self._origin = None, None
            if self._origins is not None:
                self._origins.close()
                self._origins = None
            now = time.monotonic()
            self._not_before = now + (now - self._started) * (1 / _COMPARING_SHARE - 1)
        return True

    def _foreign_origin(self, store: Store, key: bytes) -> ChangeOrigin:
        """Return the origin of a difference.

        A change by this process has one. One by another process is local as long as it is dirty.
        """
        is_local = None if self._origins is None else self._origins.origin(key)
        if is_local is None:
            is_local = store.mode is Mode.NORMAL or store.reader().get(store.space.dirty_key(key)) is not None
        return _origin(is_local)

    def _is_comparison_due(self, store: Store, known: KnownState) -> bool:
        """Begin a comparison if another process may have committed, and return True."""
        if not self._has_signal or time.monotonic() < self._not_before:
            return False
        self._has_signal = False
        with store.backend.write_lock.entry():
            foreign = store.backend.foreign_commits()
            if foreign is not None and foreign == self._foreign:
                return False
            with self._mutex.entry():
                self._origins, self._queue = self._queue, ChangeQueue()
            cursor = self._open_cursor(store)
        self._foreign = foreign
        self._compare(known, cursor)
        return True

    def _take_queued(self, store: Store) -> bool:
        with self._mutex.entry():
            taken = self._queue.take_read(_CHANGES)
        if taken is None:
            # Under the write lock, so that all changes after the snapshot are in the queue.
            with store.backend.write_lock.entry():
                with self._mutex.entry():
                    taken = self._queue.take(_CHANGES)
                snapshot = StoreSnapshot(store, store.backend.snapshot(), "")
            try:
                entries = self._read(snapshot, taken)
            finally:
                snapshot.close()
        else:
            entries = [(change, change.value) for change in taken if change.value is not UNREAD]
        if self._known is not None:
            self._known.learn([(change.key, value) for change, value in entries])
        for change, value in entries:
            self.buffer.append(self._range.change(change.key, value, _origin(change.is_local)))
        return bool(entries)

    def _read(self, snapshot: StoreSnapshot, taken: list[QueuedChange]) -> list[tuple[QueuedChange, bytes | None]]:
        """Return changes with their values, and put those back that do not fit into memory."""
        entries: list[tuple[QueuedChange, bytes | None]] = []
        size = 0
        for start in range(0, len(taken), _VALUES):
            part = taken[start : start + _VALUES]
            values = snapshot.reader.get_many([change.key for change in part])
            for change, value in zip(part, values, strict=True):
                entries.append((change, value))
                size += len(value or b"")
            if size >= _BYTES:
                with self._mutex.entry():
                    self._queue.put_back(taken[start + _VALUES :])
                break
        return entries

    def _release(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        if self._comparison is not None:
            self._comparison.close()
        if self._known is not None:
            self._known.close()
        with self._mutex.entry():
            self._queue.close()


class LogWatch(Watch):
    """A watch in SERVER mode: it reads the change log, so it keeps nothing but a CID.

    Args:
        store: The store.
        watched: The range.
        since: The CID after which to begin.
        is_initial: True to begin with the present state instead.
    """

    def __init__(self, store: Store, watched: WatchedRange, *, since: int, is_initial: bool) -> None:
        self._since = since
        self._is_initial = is_initial
        self._snapshot: StoreSnapshot | None = None
        self._cursor: SpansCursor | None = None
        self._floor: int | None = None
        self._wanted = watched.wanted(store)
        super().__init__(store, watched)

    def on_commit(self, changes: list[CommittedChange], *, is_certain: bool) -> None:
        """See `FeedWatch.on_commit`."""
        self.wake()

    @property
    def cid(self) -> int | None:
        """See `Watch.cid`."""
        return None if self._is_initial or self._cursor is not None else self._since

    def _collect(self, store: Store) -> bool:
        if self._is_initial:
            self._begin_initial(store)
        if self._cursor is not None:
            return self._continue_initial(self._cursor)
        return self._read_log(store)

    def _begin_initial(self, store: Store) -> None:
        mode = store.server("watch")
        self._snapshot = StoreSnapshot(store, store.backend.snapshot(), "")
        reader = self._snapshot.reader
        self._since = mode.records.cid(reader)
        self._cursor = self._range.cursor(store, reader)
        self._is_initial = False

    def _continue_initial(self, cursor: SpansCursor) -> bool:
        if not self._take_initial(cursor):
            self._end_initial()
        return True

    def _end_initial(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        if self._snapshot is not None:
            self._snapshot.close()
        self._cursor = self._snapshot = None

    def _read_log(self, store: Store) -> bool:
        """Read the next page of the log. Return True if it is not the last one."""
        mode, since = store.server("watch"), self._since

        def read(reader: Any, head: int) -> tuple[Any, int, int]:
            floor = mode.records.floor(reader, head).floor
            return read_page(reader, mode, head, since, _CHANGES, _BYTES, _BYTES, self._wanted), head, floor

        page, head, floor = store.read_step(read)
        if self._floor is None:
            self._floor = floor
        elif floor != self._floor and since < floor:
            raise CIDMismatchError(
                f"deletes up to CID {floor} were compacted away before this watch, at CID {since}, has yielded them: "
                "call watch() again with initial=True",
                expected=floor,
                got=since,
            )
        for cid, record in page.records:
            key, value = mode.records.logged(cid, record)
            commit = commit_of(page.commits, cid)
            is_pushed = commit is not None and commit.client is not None
            change = self._range.change(key, value, "remote" if is_pushed else "local")
            change.cid = cid
            if commit is not None:
                change.by, change.at = commit.by, commit.at
            self.buffer.append(change)
        self._since = max(self._since, page.cid)
        return page.cid > since and self._since < head

    def _release(self) -> None:
        self._end_initial()


def _origin(is_local: bool) -> ChangeOrigin:
    return "local" if is_local else "remote"


def _do_nothing() -> None:
    pass
