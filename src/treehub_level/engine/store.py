"""`Store`: an open store with its backend, its mode, its CID, and one writer at a time."""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from types import TracebackType
from typing import Final, Protocol, TypeVar

from .. import _core
from ..backends.base import Backend, Cursor, Entry, Reader, Rows, Snapshot, Transaction, row_fetcher
from ..errors import (
    CorruptionError,
    LevelError,
    ModeError,
    NotOpenError,
    StateError,
    StorageError,
    UnavailableError,
)
from ..types import Mode
from . import forking
from .call_guard import CallGuard
from .identity import check_shared, identify, is_unused
from .modes import AnyMode, Client, Normal, Plan, Server, Step
from .records import OwnRecords

S = TypeVar("S", Server, Client)
T = TypeVar("T")

#: Retries of a step after the database of a shared store rolled it back, and the upper bound of the
#: first pause in seconds, which doubles with each retry.
_ROLLBACK_RETRIES: Final = 8
_FIRST_PAUSE: Final = 0.01

#: Entries that one group commit takes at most, if it takes more than one write: memory stays
#: bounded.
_GROUP_ENTRIES = 20_000

#: Larger writes than this, in bytes or entries, are not committed on an event loop.
_SMALL_BYTES = 16 * 1024
_SMALL_ENTRIES = 64


class PendingWrite:
    """A write in the queue, and its outcome.

    Attributes:
        entries: The entries to write.
        durable: True if the writer waits for the fsync.
        done: True once the write was committed or has failed.
        error: The reason for a failure; ``None`` after a commit.
    """

    __slots__ = ("done", "durable", "entries", "error")

    def __init__(self, entries: Sequence[Entry], durable: bool) -> None:
        self.entries = entries
        self.durable = durable
        self.done = False
        self.error: BaseException | None = None


class CurrentReader:
    """A reader of the latest committed state: a ``with`` block is one call in flight.

    It has no state, so that one object serves all calls.
    """

    __slots__ = ("_backend", "_guard")

    def __init__(self, guard: CallGuard, backend: Backend) -> None:
        self._guard = guard
        self._backend = backend

    def __enter__(self) -> Reader:
        self._guard.__enter__()
        return self._backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.__exit__(kind, error, traceback)


class _Handle(Protocol):
    def release(self) -> None: ...


class Store:
    """The state shared by a ``Level`` and its snapshots, sublevels and iterators.

    Every call into the backend is made inside `guard`, so that closing waits for the last one: a
    LevelDB handle that is freed while in use crashes the process. Every decision to write is a
    `Step`, which runs under the write lock.

    A backend that inherits `Backend.exclusive` has one lock, and the store takes it directly. For
    a backend with an ``exclusive`` of its own the store has a lock besides, for the writers of this
    process to queue at.

    Args:
        backend: The backend. This store alone may use it.
        mode: The mode to open the store in.
        space: The key space for the chosen metadata prefix.
        read_only: True to open the store for reading only: every step is refused.
    """

    def __init__(self, backend: Backend, mode: Mode, space: _core.KeySpace, *, read_only: bool = False) -> None:
        self.backend = backend
        self.read_only = read_only
        self.mode = mode
        self.space = space
        self._records = OwnRecords(space, backend.name)
        self.guard = CallGuard("the level")
        self.current_reader = CurrentReader(self.guard, backend)
        self._shared = backend.supports.shared
        inherited = type(backend).exclusive is Backend.exclusive
        self._begin = None if inherited else backend.exclusive
        self._write_lock = backend.write_lock if inherited else threading.Lock()
        self._strategy: AnyMode = Normal()  # until `open` knows better
        self._plan_write: Callable[..., Plan[None]] = self._strategy.plan_write
        #: The CID; ``None`` if it must be read, as always if other processes write to the store.
        self._cid: int | None = None
        self._state = "closed"
        self._state_lock = threading.Lock()
        self._queue: deque[PendingWrite] = deque()
        self._handles: dict[int, _Handle] = {}
        self._write_error: LevelError | None = None
        #: The callbacks of `add_listener`.
        self.listeners: set[Callable[[], None]] = set()
        self._backend_notifies = False
        #: Called with the writes of each group commit, in the thread that committed them.
        self.on_committed: Callable[[Sequence[PendingWrite]], None] = lambda group: None
        #: Reads one key. While the store is open, and if the backend supports ``guarded_get``, this
        #: is the backend's own method.
        self.get: Callable[[bytes], bytes | None] = self._guarded_get

    # ----------------------------------------------------------------------------------- life cycle

    @property
    def is_open(self) -> bool:
        """True while the store accepts calls."""
        return self.guard.is_open

    def open(self) -> None:
        """Open the backend, check or record the store's identity, and read the CID."""
        self._change_state("closed", "opening", "open")
        forking.in_use.add(self)
        try:
            if self.read_only:
                self.backend.open_read_only()
            else:
                self.backend.open()
            try:
                self._strategy = identify(self.backend, self.mode, self._records, read_only=self.read_only)
                self._plan_write = self._strategy.plan_write
                self._cid = None
                if not self._shared:
                    self._cid = self.cid_in(self.backend)
                self._write_error = self.read_only_error() if self.read_only else None
                self._backend_notifies = False
            except BaseException:
                self.backend.close()
                raise
        except BaseException:
            self._mark_closed()
            raise
        self._state = "open"
        self.guard.open()
        if self.backend.supports.guarded_get:
            # The benchmark "readhot" takes 8 to 22 % more time with the guard.
            self.get = self.backend.get

    def close(self, *, remove_unused: bool = False) -> None:
        """Refuse new calls, wait for those in flight, and close cursors, snapshots and backend.

        Args:
            remove_unused: True to remove the store if it holds nothing but the records of its
                creation.
        """
        self.guard.raise_if_inside()
        self._change_state("open", "closing", "close")
        try:
            self.get = self._guarded_get
            self.guard.shut()
            self.notify()
            for handle in list(self._handles.values()):
                handle.release()
            self._handles.clear()
            if remove_unused:
                self.backend.close_and_remove(lambda reader: is_unused(reader, self.mode, self._records))
            else:
                self.backend.close()
        finally:
            self._mark_closed()

    def __del__(self) -> None:
        # A backend may free its resources without being closed, but need not.
        if self._state == "open" and self.backend.supports.persistent:
            warnings.warn(f"the level {self.backend.name!r} was not closed", ResourceWarning, source=self, stacklevel=1)

    def _mark_closed(self) -> None:
        self._state = "closed"
        forking.in_use.discard(self)

    def disable_after_fork(self) -> None:
        """Refuse every call: this process is a fork of the one that opened the store."""
        self._state_lock = threading.Lock()
        self._state = "closed"
        self.guard.disable(": the process that this one was forked from has opened it, and it alone may use it")
        self.get = self._guarded_get

    def _change_state(self, expected: str, following: str, verb: str) -> None:
        self.require_same_process()
        with self._state_lock:
            if self._state != expected:
                raise StateError(f"cannot {verb} the level {self.backend.name!r}: it is {self._state} already")
            self._state = following

    # ---------------------------------------------------------------------------------------- state

    def require_open(self) -> None:
        """Raise NotOpenError unless the store accepts calls."""
        if not self.guard.is_open:
            raise self.not_open()

    def not_open(self) -> NotOpenError:
        """Return the error for a call on a closed store."""
        return NotOpenError(f"the level {self.backend.name!r} is not open{self.guard.closed_reason}")

    def require_same_process(self) -> None:
        """Raise NotOpenError if a parent process opened this store before a fork."""
        if self.guard.closed_reason:
            raise self.not_open()

    @property
    def is_fenced(self) -> bool:
        """True if the store refuses writes since one has failed."""
        return self._write_error is not None

    def check_in_place(self) -> None:
        """Check that the store's files still lie where they were opened.

        Raises:
            NotOpenError: The store is not open.
            StorageError: The files were deleted, moved or replaced.
        """
        with self.guard:
            self.backend.check_in_place()

    @property
    def strategy(self) -> AnyMode:
        """The strategy of the mode.

        Raises:
            NotOpenError: The store is not open.
        """
        self.require_open()
        return self._strategy

    def server(self, verb: str) -> Server:
        """Return the strategy of SERVER mode, for a verb that needs it.

        Raises:
            NotOpenError: The store is not open.
            ModeError: The store is open in another mode; the message names ``verb``.
        """
        return self._strategy_of(Server, verb)

    def client(self, verb: str) -> Client:
        """Return the strategy of CLIENT mode, for a verb that needs it.

        Raises:
            NotOpenError: The store is not open.
            ModeError: The store is open in another mode; the message names ``verb``.
        """
        return self._strategy_of(Client, verb)

    def _strategy_of(self, kind: type[S], verb: str) -> S:
        strategy = self.strategy
        if not isinstance(strategy, kind):
            raise ModeError(f"{verb}() needs {kind.mode.name} mode; this level is open in {self.mode.name} mode")
        return strategy

    @property
    def cid(self) -> int:
        """The current CID."""
        with self.guard:
            return self.cid_in(self.backend)

    def cid_in(self, reader: Reader) -> int:
        """Return the CID: from memory in an embedded store, else as ``reader`` reads it."""
        if self._cid is not None:
            return self._cid
        return 0 if self.mode is Mode.NORMAL else self._records.cid(reader)

    # -------------------------------------------------------------------------------------- reading

    def _guarded_get(self, key: bytes) -> bytes | None:
        with self.guard:
            return self.backend.get(key)

    def cursor(
        self, reader: Reader, start: bytes | None, stop: bytes | None, *, reverse: bool, values: bool
    ) -> StoreCursor:
        """Return a cursor that outlives the call in flight. The store closes it at the latest."""
        return StoreCursor(self, reader.scan(start, stop, reverse=reverse, values=values))

    def snapshot(self) -> StoreSnapshot:
        """Return a snapshot. The store closes it at the latest."""
        with self.guard:
            return StoreSnapshot(self, self.backend.snapshot())

    def register(self, handle: _Handle) -> None:
        """Release ``handle`` when the store closes. Called inside the guard."""
        self._handles[id(handle)] = handle

    def unregister(self, handle: _Handle) -> None:
        """Forget a handle that was released. Called inside the guard."""
        self._handles.pop(id(handle), None)

    # -------------------------------------------------------------------------------------- writing

    def step(self, step: Step[T]) -> T:
        """Run a step while every other writer waits, commit its plan, and return its result."""
        with self.guard, self._write_lock:
            return self._execute(step)

    def read_step(self, step: Callable[[Reader, int], T]) -> T:
        """Run a step that only reads, on a snapshot and its CID. No writer waits for it."""
        with self.guard, closing(self.backend.snapshot()) as snapshot:
            return step(snapshot, self.cid_in(snapshot))

    def commit(self, entries: Sequence[Entry], durable: bool) -> None:
        """Write entries in the way of the store's mode. Concurrent writes share one commit.

        This is LevelDB's group commit: the writer that gets the lock commits for all writers in the
        queue (``DBImpl::Write``).
        """
        with self.guard:
            if self._write_lock.acquire(blocking=False):
                try:
                    if not self._queue:  # else earlier writes go first
                        self._execute(partial(self._plan_write, entries=entries), durable)
                        return
                finally:
                    self._write_lock.release()
            # Still inside the guard: a queued write must not outlive a close and reopen.
            write = self.enqueue(PendingWrite(entries, durable))
            with self._write_lock:
                while not write.done:
                    self._commit_group()
        if write.error is not None:
            raise write.error

    def commit_at_once(self, entries: Sequence[Entry]) -> bool:
        """Commit a small write if that takes microseconds; else return ``False`` and write nothing.

        It takes longer if the write is large, if other writes run or wait, or if the backend says
        so (`Backend.writes_at_once`).
        """
        if self._shared or self.read_only or len(entries) > _SMALL_ENTRIES:
            return False
        size = 0
        for key, value in entries:
            size += len(key) if value is None else len(key) + len(value)
        if size > _SMALL_BYTES:
            return False
        with self.guard:
            if not self._write_lock.acquire(blocking=False):
                return False
            try:
                if self._queue or not self.backend.writes_at_once():
                    return False
                self._execute(partial(self._plan_write, entries=entries))
                return True
            finally:
                self._write_lock.release()

    def enqueue(self, write: PendingWrite) -> PendingWrite:
        """Append a write to the queue for the next group commit."""
        self.require_open()
        self._queue.append(write)
        return write

    def commit_queued(self) -> None:
        """Commit the writes in the queue, group after group, until the queue is empty."""
        with self.guard:
            while self._queue:
                with self._write_lock:
                    self._commit_group()

    def _commit_group(self) -> None:
        """Commit the writes at the head of the queue together, and set the outcome of each."""
        group: list[PendingWrite] = []
        error: BaseException | None = None
        try:
            entries: list[Entry] = []
            while self._queue and (not group or len(entries) + len(self._queue[0].entries) <= _GROUP_ENTRIES):
                group.append(self._queue[0])
                entries.extend(self._queue.popleft().entries)
            self._execute(partial(self._plan_write, entries=entries), durable=any(write.durable for write in group))
        except Exception as raised:
            error = raised
        except BaseException:
            error = StorageError("the commit was interrupted: whether it was written is not known")
            raise
        finally:
            for write in group:
                write.error = error
                write.done = True
            self.on_committed(group)

    def _execute(self, step: Step[T], durable: bool = False, attempt: int = 0) -> T:
        """Run a step and commit its plan. Called under the write lock."""
        if self._write_error is not None:
            raise self._refusal(self._write_error)
        try:
            if self._begin is None:
                plan = self._execute_in(self.backend, step, durable)
            else:
                with self._begin() as transaction:
                    plan = self._execute_in(transaction, step, durable)
            if plan.cid is not None and not self._shared:
                self._cid = plan.cid
        except UnavailableError as error:
            self._cid = None
            if not error.retryable or attempt == _ROLLBACK_RETRIES:
                raise
            # A random pause, or the same writers would conflict again.
            time.sleep(random.uniform(0, _FIRST_PAUSE * 2**attempt))
            return self._execute(step, durable, attempt + 1)
        except BaseException:
            # It is not known how far the step came: the next one reads the CID from the store.
            self._cid = None
            raise
        if plan.after_commit is not None:
            plan.after_commit()
        if plan.batch and self.listeners:
            self.notify()
        return plan.result

    def require_writable(self) -> None:
        """Raise an error for a verb that writes, unless the store is open for writing.

        Raises:
            NotOpenError: The store is not open.
            StateError: The store is open for reading only.
        """
        self.require_open()
        if self.read_only:
            raise self.read_only_error()

    def _refusal(self, error: LevelError) -> LevelError:
        """Return the exception for a write that is refused because of an earlier error."""
        if self.read_only:
            return self.read_only_error()
        return StorageError(
            f"{self.backend.name!r} refuses writes since one failed ({error}); reads still work: "
            "close it, mend the cause, and open it again"
        )

    def read_only_error(self) -> StateError:
        """Return the error for a verb that writes on a store that is open for reading only."""
        return StateError(
            f"{self.backend.name!r} is open for reading only: open it without read_only=True to write to it"
        )

    def _execute_in(self, transaction: Transaction, step: Step[T], durable: bool) -> Plan[T]:
        extra: Sequence[Entry] = ()
        if self._shared:
            extra = check_shared(transaction, self.strategy, self._records, self.backend.name)
        plan = step(transaction, self.cid_in(transaction) if self._cid is None else self._cid)
        if plan.batch:
            if extra:
                plan.batch = [*plan.batch, *extra]
            try:
                transaction.write(plan.batch, durable=durable or plan.durable)
            except (StorageError, CorruptionError) as error:
                # After a full disk LevelDB accepts writes again, and loses those that it then
                # acknowledges. So nothing is written until a reopening. The database of a shared
                # store rolls back instead.
                if not self._shared:
                    self._write_error = error
                raise
        return plan

    # ------------------------------------------------------------------------------------ listeners

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each commit, and when the store closes.

        The call comes from any thread and must return quickly. From the first listener on, a shared
        store also reports the commits of other processes.
        """
        with suppress(NotOpenError), self.guard, self._state_lock:
            if not self._backend_notifies:
                self.backend.listen(self.notify)
                self._backend_notifies = True
        self.listeners.add(listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        """Stop calling a listener. Removing an unknown one is harmless."""
        self.listeners.discard(listener)

    def notify(self) -> None:
        """Call the listeners."""
        for listener in tuple(self.listeners):
            listener()


class StoreCursor:
    """A cursor that is kept between calls.

    Fetching after the store was closed raises NotOpenError.
    """

    def __init__(self, store: Store, cursor: Cursor) -> None:
        self._store = store
        self._cursor: Cursor | None = cursor
        self._lock = threading.Lock()
        store.register(self)

    def fetch_rows(self, limit: int) -> Rows:
        """Fetch rows, packed into one block of bytes if the backend can do so."""
        with self._store.guard, self._lock:
            return row_fetcher(self._open_cursor())(limit)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """Fetch keys as `Cursor.fetch_keys` does."""
        with self._store.guard, self._lock:
            return self._open_cursor().fetch_keys(limit)

    def _open_cursor(self) -> Cursor:
        if self._cursor is None:
            raise NotOpenError("the level was closed while this iterator was open: iterate anew")
        return self._cursor

    def close(self) -> None:
        """Close the cursor, unless the store has closed it already."""
        try:
            with self._store.guard:
                self._store.unregister(self)
                self.release()
        except NotOpenError:
            pass  # the store is closing or closed, and releases its handles itself

    def release(self) -> None:
        """Close the cursor. Called inside the guard, or by the store once the guard is shut."""
        with self._lock:
            cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()


class StoreSnapshot:
    """A snapshot that is kept between calls."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self._store = store
        self._snapshot: Snapshot | None = snapshot
        self.guard = CallGuard("the snapshot")
        self.guard.open()
        store.register(self)

    @property
    def reader(self) -> Reader:
        """The snapshot as a reader, to be used inside both guards."""
        if self._snapshot is None:
            raise NotOpenError("the snapshot is not open")
        return self._snapshot

    def get(self, key: bytes) -> bytes | None:
        """Read one key."""
        with self._store.guard, self.guard:
            return self.reader.get(key)

    def close(self) -> None:
        """Release the snapshot once the reads in flight have ended.

        Closing it again is harmless.
        """
        self.guard.raise_if_inside()
        self.guard.shut()
        try:
            with self._store.guard:
                self._store.unregister(self)
                self.release()
        except NotOpenError:
            pass  # the store is closing or closed, and releases its handles itself

    def release(self) -> None:
        """Release the snapshot. Called inside the guard, or by the store once the guard is shut."""
        self.guard.shut()
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()
