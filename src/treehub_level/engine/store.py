"""`Store`: an open store with its backend, its mode, its CID, and one writer at a time."""

from __future__ import annotations

import random
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar
from weakref import ref

from .. import _core
from ..backends.base import Backend, Cursor, Entry, Reader, Snapshot, Transaction
from ..errors import (
    CorruptionError,
    LevelError,
    LockedError,
    ModeError,
    NotOpenError,
    StateError,
    StorageError,
    UnavailableError,
)
from ..locks import WITHOUT_WAITING, ErrorCheckingLock
from ..types import Mode
from ..weak_registry import WeakRegistry
from . import forking
from .as_of import snapshot_as_of
from .call_guard import CallGuard
from .change_feed import ChangeFeed
from .group_commit import PendingWrite, WriteQueue
from .handles import StoreCursor, StoreHandle, StoreSnapshot
from .identity import check_shared, identify, is_unused
from .modes import AnyMode, Client, Normal, Plan, Server, Step, Write
from .records import OwnRecords
from .sightings import Sightings

S = TypeVar("S", Server, Client)
T = TypeVar("T")

#: Retries of a step after the database of a shared store rolled it back, and the upper bound of the
#: first pause in seconds, which doubles with each retry.
_ROLLBACK_RETRIES: Final = 8
_FIRST_PAUSE: Final = 0.01

#: Larger writes than this, in bytes or entries, are not committed on an event loop.
_SMALL_BYTES = 16 * 1024
_SMALL_ENTRIES = 64


class Store:
    """The state shared by a ``Level`` and its snapshots, sublevels and iterators.

    Every call into the backend is made inside `guard`, so that closing waits for the last one: a
    LevelDB handle that is freed while in use crashes the process. Every decision to write is a
    `Step`, which runs under the write lock.

    The writers of this process queue at the backend's ``write_lock``. A backend that inherits
    `Backend.exclusive` has no other lock; one with an ``exclusive`` of its own begins a transaction
    besides.

    Args:
        backend: The backend. This store alone may use it.
        mode: The mode to open the store in.
        space: The key space for the chosen metadata prefix.
        read_only: True to open the store for reading only: every step is refused.
        keep_base: See `identify`.
        audit: True to record the time of every local write to a server, not only of batches.
        check: The function that may refuse changes of a server's clients; ``None`` without one.
        follow: See `identify`.
        on_close: Called before the store closes, while it still accepts calls. Its errors are
            ignored. A server that has one notes its clients, see `Sightings`.
    """

    def __init__(
        self,
        backend: Backend,
        mode: Mode,
        space: _core.KeySpace,
        *,
        read_only: bool = False,
        keep_base: bool | None = False,
        audit: bool = False,
        check: Callable[..., object] | None = None,
        follow: Sequence[str] | None = None,
        on_close: Callable[[Store], None] | None = None,
    ) -> None:
        self.backend = backend
        self.read_only = read_only
        self._keep_base = keep_base
        self._audit = audit
        self._check = check
        self._follow = follow
        self.on_close = on_close
        self.mode = mode
        self.space = space
        self._records = OwnRecords(space, backend.name)
        self.guard = CallGuard("the level")
        self._shared = backend.supports.shared
        inherited = type(backend).exclusive is Backend.exclusive
        self._begin = None if inherited else backend.exclusive
        self._write_lock = backend.write_lock
        #: Held by the thread that runs a function of `transact`, which must not use the level.
        self.function_lock = ErrorCheckingLock(f"use the level {backend.name!r}")
        self._strategy: AnyMode = Normal()  # until `open` knows better
        self._plan_write: Callable[..., Plan[None]] = self._strategy.plan_write
        #: The CID; ``None`` if it must be read, as always if other processes write to the store.
        self._cid: int | None = None
        #: True from the beginning of `open` to the end of `close`, also if either is interrupted.
        self._in_use = False
        self._life_lock = self._new_life_lock()
        self.queue = WriteQueue(backend.write_lock)
        self._handles: WeakRegistry[StoreHandle[Any]] = WeakRegistry()
        #: The open cursors and snapshots of all handles, and those of collected ones.
        self._opened: set[Cursor | Snapshot] = set()
        self._forgotten: deque[Cursor | Snapshot] = deque()
        self._write_error: LevelError | None = None
        #: The callbacks of `add_listener`.
        self.listeners: set[Callable[[], None]] = set()
        self._backend_notifies = False
        #: Tells the watches of this opening the changes; ``None`` before the first watch.
        self.feed: ChangeFeed | None = None
        self._listener_lock = ErrorCheckingLock(f"add a listener to the level {backend.name!r}")
        #: Reads one key. While the store is open, and if the backend supports ``guarded_get``, this
        #: is the backend's own method.
        self.get: Callable[[bytes], bytes | None] = self._guarded_get

    # ----------------------------------------------------------------------------------- life cycle

    @property
    def is_open(self) -> bool:
        """True while the store accepts calls."""
        return self.guard.is_open

    @property
    def needs_close(self) -> bool:
        """True while the store is open, or its closing was interrupted."""
        return self._in_use

    def open(self) -> None:
        """Open the backend, check or record the store's identity, and read the CID.

        Interrupted, it leaves the store closed.
        """
        self._check_outside("opened")
        with self._life_lock.entry():
            if self._in_use:
                raise StateError(f"cannot open the level {self.backend.name!r}: it is open already")
            self._in_use = True
            forking.in_use.add(self)
            try:
                self._open()
            except LockedError:  # the backend object may be that of another level, which has it open
                self._mark_closed()
                raise
            except BaseException:
                self.guard.is_open = False
                self.get = self._guarded_get
                self.backend.close()
                self._mark_closed()
                raise

    def _open(self) -> None:
        if self.read_only:
            self.backend.open_read_only()
        else:
            self.backend.open()
        self._strategy = identify(
            self.backend,
            self.mode,
            self._records,
            read_only=self.read_only,
            keep_base=self._keep_base,
            audit=self._audit,
            follow=self._follow,
        )
        if isinstance(self._strategy, Server):
            self._strategy.check = self._check
            if self.on_close is not None and not self.read_only:
                self._strategy.sightings = Sightings(is_whole=not self._records.cid(self.backend))
        self._plan_write = self._strategy.plan_write
        self._cid = None
        if not self._shared:
            self._cid = self.cid_in(self.backend)
        self._write_error = self.read_only_error() if self.read_only else None
        self._backend_notifies = False
        self.feed = None
        if self.backend.supports.guarded_get:
            # The benchmark "readhot" takes 8 to 22 % more time with the guard.
            self.get = self.backend.get
        self.guard.open()

    def close(self, *, remove_unused: bool = False) -> None:
        """Refuse new calls, wait for those in flight, and close cursors, snapshots and backend.

        If it is interrupted, another call continues.

        Args:
            remove_unused: True to remove the store if it holds nothing but the records of its
                creation.
        """
        self._check_outside("closed")
        with self._life_lock.entry():
            if not self._in_use:
                raise StateError(f"cannot close the level {self.backend.name!r}: it is closed already")
            self.get = self._guarded_get
            if self.on_close is not None and self.guard.is_open:
                with suppress(LevelError):
                    self.on_close(self)
            self.guard.shut()
            self.notify()
            if self.feed is not None:
                self.feed.signal()
            for handle in self._handles.alive():
                handle.release()
            self._forgotten.extend(self._opened)  # of handles that are being collected now
            self.queue.refuse_all(self.not_open())
            try:
                self._close_forgotten()
                if remove_unused:
                    self.backend.close_and_remove(lambda reader: is_unused(reader, self.mode, self._records))
                else:
                    self.backend.close()
            except Exception:
                self._mark_closed()
                raise
            self._mark_closed()

    def _check_outside(self, verb: str) -> None:
        self.require_same_process()
        self.guard.raise_if_inside(verb)

    def __del__(self) -> None:
        # A backend may free its resources without being closed, but need not.
        if self._in_use and self.backend.supports.persistent:
            warnings.warn(f"the level {self.backend.name!r} was not closed", ResourceWarning, source=self, stacklevel=1)

    def _mark_closed(self) -> None:
        forking.in_use.discard(self)
        self._in_use = False

    def _new_life_lock(self) -> ErrorCheckingLock:
        return ErrorCheckingLock(f"open or close the level {self.backend.name!r}")

    def disable_after_fork(self) -> None:
        """Refuse every call: this process is a fork of the one that opened the store."""
        self._life_lock = self._new_life_lock()
        self._in_use = False
        self.guard.disable(": the process that this one was forked from has opened it, and it alone may use it")
        self.get = self._guarded_get
        # Freeing them here could end a database session of the parent. This store is never freed.
        self._kept_after_fork = self._handles.alive()

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
        """True if the store refuses writes since one has failed, or since the store is missing."""
        return self._write_error is not None or (isinstance(self._strategy, Server) and self._strategy.is_missing)

    def check_in_place(self) -> None:
        """Check that the store's files still lie where they were opened.

        Raises:
            NotOpenError: The store is not open.
            StorageError: The files were deleted, moved or replaced.
        """
        with self.guard.thread.lock:
            self.require_open()
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
        with self.guard.thread.lock:
            return self.cid_in(self.reader())

    def cid_in(self, reader: Reader) -> int:
        """Return the CID: from memory in an embedded store, else as ``reader`` reads it."""
        if self._cid is not None:
            return self._cid
        return 0 if self.mode is Mode.NORMAL else self._records.cid(reader)

    # -------------------------------------------------------------------------------------- reading

    @contextmanager
    def guarded_reads(self) -> Iterator[None]:
        """Let `get` check its caller for the length of the block."""
        self.get = self._guarded_get
        try:
            yield
        finally:
            if self.backend.supports.guarded_get and self.guard.is_open:
                self.get = self.backend.get

    def raise_if_in_function(self) -> None:
        """Raise StateError if the calling thread runs a function of `transact`."""
        if self.function_lock.is_owned():
            raise StateError(
                f"the level {self.backend.name!r} cannot be used inside a function of transact() or update(): use the "
                "argument of the function, which also sees what the function has written"
            )

    def _guarded_get(self, key: bytes) -> bytes | None:
        with self.guard.thread.lock:
            return self.reader().get(key)

    def reader(self) -> Reader:
        """Return a reader of the latest committed state. Called inside the guard.

        Raises:
            NotOpenError: The store is not open.
        """
        if not self.guard.is_open:
            raise self.not_open()
        self.raise_if_in_function()
        return self.backend

    def cursor(
        self, reader: Reader, start: bytes | None, stop: bytes | None, *, reverse: bool, values: bool
    ) -> StoreCursor:
        """Return a cursor that outlives the call in flight. Called inside the guard."""
        self._close_forgotten()
        return StoreCursor(self, reader.scan(start, stop, reverse=reverse, values=values))

    def snapshot(self, at: int | None = None) -> StoreSnapshot:
        """Return a snapshot. The store closes it at the latest.

        Args:
            at: The CID as of which a server is read; ``None`` for the present state.

        Raises:
            NotOpenError: The store is not open.
            ModeError: ``at`` is given, and the store is no server.
            HistoryError: The log does not cover ``at``.
        """
        with self.guard.thread.lock:
            self.require_open()
            self.raise_if_in_function()
            self._close_forgotten()
            if at is None:
                return StoreSnapshot(self, self.backend.snapshot())
            return StoreSnapshot(self, snapshot_as_of(self.backend, self.server("snapshot(at=)").records, at))

    def register(self, handle: StoreHandle[Any], opened: Cursor | Snapshot) -> None:
        """Release the handle, and close ``opened``, when the store closes. Called in the guard."""
        self._opened.add(opened)
        self._handles.add(handle)

    def unregister(self, handle: StoreHandle[Any], opened: Cursor | Snapshot) -> None:
        """Forget a handle that was released."""
        self._opened.discard(opened)
        self._handles.discard(handle)

    def forget(self, opened: Cursor | Snapshot, name: str) -> None:
        """Close the object of a collected handle at the next call, and warn if it has a name.

        A finalizer calls this at any time, also while its thread holds a lock that closing needs.
        """
        self._forgotten.append(opened)
        if name and self.guard.is_open:
            warnings.warn(
                f"{name} of the level {self.backend.name!r} was not closed: close it, or use it in a with block",
                ResourceWarning,
                stacklevel=1,
            )

    def _close_forgotten(self) -> None:
        while self._forgotten:
            opened = self._forgotten.popleft()
            opened.close()
            self._opened.discard(opened)

    def open_handles(self) -> tuple[int, int]:
        """Return the numbers of open snapshots and of open cursors. Called inside the guard."""
        self._close_forgotten()
        handles = self._handles.alive()
        snapshots = sum(isinstance(handle, StoreSnapshot) for handle in handles)
        return snapshots, len(handles) - snapshots

    # -------------------------------------------------------------------------------------- writing

    def step(self, step: Step[T]) -> T:
        """Run a step while every other writer waits, commit its plan, and return its result.

        Raises:
            StateError: This thread is inside a write already, as from a signal handler.
        """
        with self.guard.thread.lock:
            if not self.guard.is_open:
                raise self.not_open()
            self.raise_if_in_function()
            with self._write_lock.entry():
                result = self._execute(step)
        if self.feed is not None:
            self._deliver(self.feed)
        return result

    def read_step(self, step: Callable[[Reader, int], T]) -> T:
        """Run a step that only reads, on a snapshot and its CID. No writer waits for it."""
        with self.guard.thread.lock:
            self.require_open()
            self.raise_if_in_function()
            with closing(self.backend.snapshot()) as snapshot:
                # Not the CID in memory: a write may have moved it since the snapshot was taken.
                return step(snapshot, 0 if self.mode is Mode.NORMAL else self._records.cid(snapshot))

    def commit(
        self, entries: Sequence[Entry], durable: bool, is_batch: bool = False, principal: str | None = None
    ) -> None:
        """Write entries in the way of the store's mode. Concurrent writes share one commit.

        Args:
            entries: The entries.
            durable: True to wait for the fsync.
            is_batch: True if the entries belong together.
            principal: The name of the caller; ``None`` if it is not known.

        Raises:
            StateError: This thread is inside a write already, as from a signal handler.
        """
        with self.guard.thread.lock:
            if not self.guard.is_open:
                raise self.not_open()
            write = None
            if not self._commit_alone(entries, durable, is_batch, principal):
                # Still inside the guard: a queued write must not outlive a close and reopen.
                write = PendingWrite(entries, durable, is_batch, principal)
                self.queue.commit(write, self._commit_group)
        if self.feed is not None:
            self._deliver(self.feed)
        if write is not None and (error := write.outcome()) is not None:
            raise error

    def commit_at_once(self, entries: Sequence[Entry], is_batch: bool = False) -> bool:
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
        with self.guard.thread.lock:
            if not self.guard.is_open:
                raise self.not_open()
            return self._commit_alone(entries, False, is_batch, None, at_once=True)

    def _commit_alone(
        self,
        entries: Sequence[Entry],
        durable: bool,
        is_batch: bool,
        principal: str | None,
        *,
        at_once: bool = False,
    ) -> bool:
        """Commit a write if no other runs or waits, and return True. Called inside the guard."""
        lock = self._write_lock
        if lock.is_owned():
            self.raise_if_in_function()
            lock.entry()  # raises
        taken: list[bool] = []
        try:
            # One call into C acquires and records. A signal handler can run after an ``acquire()``,
            # and before its result is stored.
            taken.extend(map(lock.acquire, WITHOUT_WAITING))
            if self.queue.writes or not taken[0]:  # earlier writes go first
                return False
            if at_once and not self.backend.writes_at_once():
                return False
            writes = (Write(len(entries), is_batch, principal),) if is_batch or principal is not None else ()
            self._execute(partial(self._plan_write, entries=entries, writes=writes), durable)
            return True
        finally:
            if True in taken:
                lock.release()

    def enqueue(self, write: PendingWrite) -> None:
        """Append a write to the queue for the next group commit."""
        with self.guard.thread.lock:
            self.require_open()
            self.raise_if_in_function()
            self.queue.writes.append(write)

    def commit_queued(self) -> None:
        """Commit the writes in the queue, group after group, until the queue is empty."""
        with self.guard.thread.lock:
            self.require_open()
            self.queue.commit_all(self._commit_group)

    def _commit_group(self, entries: Sequence[Entry], writes: Sequence[Write], durable: bool) -> None:
        """Commit the entries of a group commit. Called under the write lock."""
        self._execute(partial(self._plan_write, entries=entries, writes=writes), durable)

    def _execute(self, step: Step[T], durable: bool = False, attempt: int = 0) -> T:
        """Run a step and commit its plan. Called under the write lock."""
        if self._write_error is not None:
            raise self._refusal(self._write_error)
        if self._forgotten:
            self._close_forgotten()
        try:
            if self._begin is None:
                plan = self._execute_in(self.backend, step, durable)
            else:
                with self._begin() as transaction:
                    plan = self._execute_in(transaction, step, durable)
            if plan.cid is not None and not self._shared:
                self._cid = plan.cid
            if plan.after_commit is not None:
                plan.after_commit()
            if plan.batch:
                if self.feed is not None:
                    self.feed.committed()
                if self.listeners:
                    self.notify()
        except UnavailableError as error:
            self._cid = None
            if self.feed is not None:
                self.feed.failed(error)
            if not error.retryable or attempt == _ROLLBACK_RETRIES:
                raise
            # A random pause, or the same writers would conflict again.
            time.sleep(random.uniform(0, _FIRST_PAUSE * 2**attempt))
            return self._execute(step, durable, attempt + 1)
        except BaseException as error:
            # It is not known how far the step came: the next one reads the CID from the store.
            self._cid = None
            if not isinstance(error, Exception):
                self.backend.on_interrupt()
                self.notify()  # of a commit, if there was one
            if self.feed is not None:
                self.feed.failed(error)
            raise
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
            if self.feed is not None:
                self.feed.begin(plan.batch, is_reply=plan.is_reply)
            try:
                transaction.write(plan.batch, durable=durable or plan.durable)
            except (StorageError, CorruptionError) as error:
                # After a full disk LevelDB accepts writes again, and loses those that it then
                # acknowledges. So nothing is written until a reopening. The database of a shared
                # store rolls back instead.
                if not self._shared and not (isinstance(error, StorageError) and error.is_refusal):
                    self._write_error = error
                raise
        return plan

    # ------------------------------------------------------------------------------------ listeners

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each commit, and when the store closes.

        The call comes from any thread and must return quickly. From the first listener on, a shared
        store also reports the commits of other processes.
        """
        with self.guard.thread.lock, self._listener_lock.entry():
            self._listen()
        self.listeners.add(listener)

    def _listen(self) -> None:
        """Have the backend report the commits of other processes. Called under the locks."""
        if self.guard.is_open and not self._backend_notifies:
            weakly = ref(self)  # the backend's listening thread must not keep the level alive

            def on_signal() -> None:
                store = weakly()
                if store is not None:
                    store._on_backend_signal()

            self.backend.listen(on_signal)
            self._backend_notifies = True

    def _on_backend_signal(self) -> None:
        self.notify()
        if self.feed is not None:
            self.feed.signal()

    def open_feed(self) -> ChangeFeed:
        """Return the feed of changes, for a watch. A shared store then listens to others, too.

        Raises:
            NotOpenError: The store is not open.
        """
        with self.guard.thread.lock, self._listener_lock.entry():
            self.require_open()
            self._listen()
            if self.feed is None:
                self.feed = ChangeFeed(self.mode, self.space)
            return self.feed

    def end_watches(self) -> None:
        """End the watches that there are: see `ChangeFeed.end_watches`."""
        feed = self.feed
        if feed is not None:
            feed.end_watches()

    def _deliver(self, feed: ChangeFeed) -> None:
        """Call the functions that deliver changes. Called without locks, after a write."""
        for function in tuple(feed.deliver):
            function()

    def remove_listener(self, listener: Callable[[], None]) -> None:
        """Stop calling a listener. Removing an unknown one is harmless."""
        self.listeners.discard(listener)

    def notify(self) -> None:
        """Call the listeners."""
        for listener in tuple(self.listeners):
            listener()
