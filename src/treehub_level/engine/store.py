"""One open store: its backend, its mode, its CID, and one writer at a time."""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from .. import _core
from ..backends.base import Backend, Cursor, Entry, Reader, Rows, Snapshot, Transaction, row_fetcher
from ..errors import CorruptionError, LevelError, NotOpenError, StateError, StorageError, UnavailableError
from ..types import Mode
from . import forking as _forking
from .call_guard import CallGuard
from .identity import check_shared, identify
from .modes import AnyMode, Plan, Step, read_cid

T = TypeVar("T")

#: How often a step is taken again that the database of a shared store undid, and seconds before the first time at most.
_MOST_UNDONE: Final = 8
_FIRST_PAUSE: Final = 0.01

#: Writers that wait together share one commit up to about this many entries, so that memory stays bounded.
_GROUP_ENTRIES = 20_000


class Write:
    """Entries that wait to be committed, and what became of them.

    Attributes:
        entries: What to write.
        durable: Whether the writer waits for the disk.
        done: Whether it was committed, or failed.
        error: Why it failed; ``None`` if it did not.
    """

    __slots__ = ("done", "durable", "entries", "error")

    def __init__(self, entries: Sequence[Entry], durable: bool) -> None:
        self.entries = entries
        self.durable = durable
        self.done = False
        self.error: BaseException | None = None


class CurrentReader:
    """The store as it is now, for reading: a ``with`` block is inside the gate.

    It keeps no state, so one serves all calls.
    """

    __slots__ = ("_backend", "_gate")

    def __init__(self, gate: CallGuard, backend: Backend) -> None:
        self._gate = gate
        self._backend = backend

    def __enter__(self) -> Reader:
        self._gate.__enter__()
        return self._backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.__exit__(kind, error, traceback)


class _Closable(Protocol):
    def release(self) -> None: ...


class Store:
    """The state that ``Level`` and its snapshots, sublevels and iterators share.

    Every call into the backend happens inside `gate`, so that closing can wait for the last one: a LevelDB handle that
    is freed while in use takes the process with it. Every decision to write is a `Step`, taken under the write lock.

    Args:
        backend: Where the bytes go. It is this store's alone.
        mode: The mode to open it in.
        space: The key space, for the prefix chosen.
    """

    def __init__(self, backend: Backend, mode: Mode, space: _core.KeySpace) -> None:
        self.backend = backend
        self._shared = backend.supports.shared
        self.mode_name = mode
        self.space = space
        self.guard = CallGuard("the level")
        self.current_reader = CurrentReader(self.guard, backend)
        self._mode: AnyMode | None = None
        self._cid: int | None = None
        self._state = "closed"
        self._state_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._queue: deque[Write] = deque()
        self._open_handles: dict[int, _Closable] = {}
        self._fence: LevelError | None = None
        #: Whom `notify` tells: see `add_listener`.
        self.listeners: set[Callable[[], None]] = set()
        self._hears_others = False
        #: Called with the writes of each shared commit once they are done, in the thread that committed them.
        self.on_committed: Callable[[Sequence[Write]], None] = lambda group: None
        #: Read one key: while the store is open this is the backend's own method, if it guards itself.
        self.get: Callable[[bytes], bytes | None] = self._gated_get

    # ------------------------------------------------------------------------------------------ life cycle

    @property
    def is_open(self) -> bool:
        """Whether verbs may be called."""
        return self.guard.is_open

    def open(self) -> None:
        """Open the backend, learn or write down what store this is, and read the CID."""
        self._advance("closed", "opening", "open")
        _forking.in_use.add(self)
        try:
            self.backend.open()
            try:
                self._mode = identify(self.backend, self.mode_name, self.space)
                self._cid = None
                self._cid = self.cid_in(self.backend)
                self._fence = None
                self._hears_others = False
            except BaseException:
                self.backend.close()
                raise
        except BaseException:
            self._ended()
            raise
        self._state = "open"
        self.guard.open()
        if self.backend.supports.guarded_get:
            # The gate would take a third of the time of a get.
            self.get = self.backend.get

    def close(self) -> None:
        """Refuse new calls, wait for those in flight, close open iterators and snapshots, close the backend."""
        self.guard.refuse_caller_inside()
        self._advance("open", "closing", "close")
        try:
            self.get = self._gated_get
            self.guard.shut()
            self.notify()
            for handle in list(self._open_handles.values()):
                handle.release()
            self._open_handles.clear()
            self.backend.close()
        finally:
            self._ended()

    def __del__(self) -> None:
        # A backend may free what it holds by itself, but need not.
        if self._state == "open" and self.backend.supports.persistent:
            warnings.warn(f"the level {self.backend.name!r} was not closed", ResourceWarning, source=self, stacklevel=1)

    def _ended(self) -> None:
        self._state = "closed"
        _forking.in_use.discard(self)

    def abandon(self) -> None:
        """This process was forked off from the one that opened it: refuse every call."""
        self._state_lock = threading.Lock()
        self._state = "closed"
        self.guard.abandon(": the process that this one was forked from has opened it, and it alone may use it")
        self.get = self._gated_get

    def _advance(self, needed: str, following: str, verb: str) -> None:
        self.require_ours()
        with self._state_lock:
            if self._state != needed:
                raise StateError(f"cannot {verb} the level {self.backend.name!r}: it is {self._state} already")
            self._state = following

    # ----------------------------------------------------------------------------------------------- state

    def require_open(self) -> None:
        """Raise NotOpenError unless verbs may be called."""
        if not self.guard.is_open:
            raise NotOpenError(f"the level {self.backend.name!r} is not open{self.guard.why_not}")

    def require_ours(self) -> None:
        """Raise NotOpenError if this is a store of the process that this one was forked from."""
        if self.guard.why_not:
            self.require_open()

    @property
    def mode(self) -> AnyMode:
        """The strategy of the mode, once the store was open."""
        self.require_open()
        assert self._mode is not None, "open() sets it before it opens the gate"
        return self._mode

    @property
    def cid(self) -> int:
        """The CID now: the one on disk, always."""
        with self.guard:
            return self.cid_in(self.backend)

    def cid_in(self, reader: Reader) -> int:
        """The CID, from memory if this process is the only writer, as ``reader`` reads it otherwise."""
        if self._cid is not None and not self._shared:
            return self._cid
        return 0 if self.mode_name is Mode.NORMAL else read_cid(reader, self.space)

    # --------------------------------------------------------------------------------------------- reading

    def _gated_get(self, key: bytes) -> bytes | None:
        with self.guard:
            return self.backend.get(key)

    def cursor(self, reader: Reader, start: bytes | None, stop: bytes | None, *, reverse: bool, values: bool) -> Handle:
        """A cursor that outlives the call that made it: it is closed with the store at the latest."""
        return Handle(self, reader.scan(start, stop, reverse=reverse, values=values))

    def snapshot(self) -> SnapshotHandle:
        """A snapshot that is closed with the store at the latest."""
        with self.guard:
            return SnapshotHandle(self, self.backend.snapshot())

    def adopt_handle(self, handle: _Closable) -> None:
        """Close ``handle`` with the store. Called inside the gate."""
        self._open_handles[id(handle)] = handle

    def forget_handle(self, handle: _Closable) -> None:
        """``handle`` was closed. Called inside the gate."""
        self._open_handles.pop(id(handle), None)

    # --------------------------------------------------------------------------------------------- writing

    def step(self, step: Step[T]) -> T:
        """Take one decision with every other writer kept out, and write what it planned."""
        with self.guard, self._write_lock:
            return self._run(step)

    def look(self, step: Callable[[Reader, int], T]) -> T:
        """What a decision comes to that writes nothing, at one moment of a shared store: no writer is kept out."""
        with self.guard, closing(self.backend.snapshot()) as snapshot:
            return step(snapshot, self.cid_in(snapshot))

    def commit(self, entries: Sequence[Entry], durable: bool) -> None:
        """Write entries as the mode wants them, together with whoever waits at the same time.

        As in LevelDB, the writer that gets the lock commits for all that queued up behind it.
        """
        with self.guard:
            if self._commit_alone(entries, durable):
                return
            # Inside the gate, or a write that is refused could wait here and be made after a reopening.
            write = self.enqueue(Write(entries, durable))
            with self._write_lock:
                while not write.done:
                    self._commit_group()
        if write.error is not None:
            raise write.error

    def commit_at_once(self, entries: Sequence[Entry]) -> bool:
        """Commit entries if that takes microseconds; else do nothing, and return ``False``.

        It takes more if others write or wait to, or if the backend would have to wait for something.
        """
        if self._shared:
            return False
        with self.guard:
            return self._commit_alone(entries, False, at_once=True)

    def _commit_alone(self, entries: Sequence[Entry], durable: bool, *, at_once: bool = False) -> bool:
        """Commit entries unless others write, or wait to: whoever came before goes first."""

        def step(transaction: Transaction, cid: int) -> Plan[bool]:
            if at_once and not self.backend.writes_at_once():
                return Plan(False)
            plan: Plan[Any] = self.mode.plan_write(transaction, cid, entries)
            plan.result, plan.durable = True, durable
            return plan

        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            return not self._queue and self._run(step)
        finally:
            self._write_lock.release()

    def enqueue(self, write: Write) -> Write:
        """Let a write wait for the next commit."""
        self.require_open()
        self._queue.append(write)
        return write

    def commit_waiting(self) -> None:
        """Commit the writes that wait, group after group, until none does."""
        with self.guard:
            while self._queue:
                with self._write_lock:
                    self._commit_group()

    def _commit_group(self) -> None:
        """Commit the writes at the head of the queue together. Whatever happens, each of them is settled."""
        group: list[Write] = []
        error: BaseException | None = None
        try:
            entries: list[Entry] = []
            while self._queue and (not group or len(entries) + len(self._queue[0].entries) <= _GROUP_ENTRIES):
                group.append(self._queue[0])
                entries.extend(self._queue.popleft().entries)
            durable = any(write.durable for write in group)

            def step(transaction: Transaction, cid: int) -> Plan[None]:
                plan = self.mode.plan_write(transaction, cid, entries)
                plan.durable = durable
                return plan

            self._run(step)
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

    def _run(self, step: Step[T], retryable: int = 0) -> T:
        if self._fence is not None:
            raise StorageError(
                f"{self.backend.name!r} refuses writes since one failed ({self._fence}); reads still work: "
                "close it, mend the cause, and open it again"
            )
        try:
            with self.backend.exclusive() as transaction:
                also: Sequence[Entry] = ()
                if self._shared:
                    also = check_shared(transaction, self.mode, self.space, self.backend.name)
                plan = step(transaction, self.cid_in(transaction))
                if plan.batch:
                    if also:
                        plan.batch = [*plan.batch, *also]
                    self._write(plan, transaction.write)
            if plan.cid is not None:
                self._cid = plan.cid
        except UnavailableError as error:
            self._cid = None
            if not error.retryable or retryable == _MOST_UNDONE:
                raise
            # At random, or those who were in each other's way would meet again.
            time.sleep(random.uniform(0, _FIRST_PAUSE * 2**retryable))
            return self._run(step, retryable + 1)
        except BaseException:
            # Whatever was interrupted, and wherever: the CID is read again from where it is kept.
            self._cid = None
            raise
        if plan.committed is not None:
            plan.committed()
        if plan.batch:
            self.notify()
        return plan.result

    def _write(self, plan: Plan[T], write: Callable[..., None]) -> None:
        try:
            write(plan.batch, durable=plan.durable)
        except (StorageError, CorruptionError) as error:
            # LevelDB goes on after a full disk and loses what it acknowledged then: nothing more is written until it
            # was reopened. The database of a shared store takes all back, and is whole.
            if not self._shared:
                self._fence = error
            raise

    # ------------------------------------------------------------------------------------------------ news

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called after each commit, and when the store closes. From any thread: it must be quick.

        A shared store hears of the commits of others too, from the first listener on.
        """
        with suppress(NotOpenError), self.guard, self._state_lock:
            if not self._hears_others:
                self.backend.listen(self.notify)
                self._hears_others = True
        self.listeners.add(listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        """Do not call it any more. Removing one that is not there is harmless."""
        self.listeners.discard(listener)

    def notify(self) -> None:
        """Tell the listeners that something may have changed."""
        for listener in tuple(self.listeners):
            listener()


class Handle:
    """A cursor between the calls that use it. Fetching after the store was closed raises; nothing crashes."""

    def __init__(self, store: Store, cursor: Cursor) -> None:
        self._store = store
        self._cursor: Cursor | None = cursor
        self._lock = threading.Lock()
        store.adopt_handle(self)

    def fetch(self, limit: int) -> list[tuple[bytes, bytes]]:
        """See `Cursor.fetch`."""
        with self._store.guard, self._lock:
            return self._live().fetch(limit)

    def fetch_rows(self, limit: int) -> Rows:
        """The same, in one piece where the engine can do so."""
        with self._store.guard, self._lock:
            return row_fetcher(self._live())(limit)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """See `Cursor.fetch_keys`."""
        with self._store.guard, self._lock:
            return self._live().fetch_keys(limit)

    def _live(self) -> Cursor:
        if self._cursor is None:
            raise NotOpenError("the level was closed while this iterator was open: iterate anew")
        return self._cursor

    def close(self) -> None:
        """Close the cursor, unless the store has done so."""
        try:
            with self._store.guard:
                self._store.forget_handle(self)
                self.release()
        except NotOpenError:
            pass  # the store is closing, or closed: it releases its handles itself

    def release(self) -> None:
        """Close the cursor. Called inside the gate, or by the store once the gate is shut."""
        with self._lock:
            cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()


class SnapshotHandle:
    """A snapshot between the calls that use it."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self._store = store
        self._snapshot: Snapshot | None = snapshot
        self.guard = CallGuard("the snapshot")
        self.guard.open()
        store.adopt_handle(self)

    @property
    def reader(self) -> Reader:
        """What to read from. Inside both gates only."""
        if self._snapshot is None:
            raise NotOpenError("the snapshot is not open")
        return self._snapshot

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        with self._store.guard, self.guard:
            return self.reader.get(key)

    def close(self) -> None:
        """Let the moment go, once the reads in flight are over. Closing twice is harmless."""
        self.guard.refuse_caller_inside()
        self.guard.shut()
        try:
            with self._store.guard:
                self._store.forget_handle(self)
                self.release()
        except NotOpenError:
            pass  # see Handle.close

    def release(self) -> None:
        """See `Handle.release`."""
        self.guard.shut()
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()
