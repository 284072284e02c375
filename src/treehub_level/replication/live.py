"""The part of a live session that both façades share.

The decisions are those of `schedule.LiveSchedule`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any, Final

from ..backends.base import GrantedSyncLock, SyncLock
from ..engine import clock
from ..engine.scan import key_chunks
from ..engine.store import Store
from ..errors import ForbiddenError, LevelError, NotOpenError, StateError, TransportError
from ..events import Failed, LiveState
from ..locks import RecursiveLock
from ..types import SyncReport
from .client import read_consistent
from .limits import PushLimits
from .merging import OnConflict, require_on_conflict
from .messages import Request
from .schedule import LiveSchedule, PollResult
from .session import poll_session, sync_session
from .session_events import PushWait, SessionEvents
from .sync_locks import PAUSE, has_acquired, sync_lock
from .synced import read_synced

#: Seconds that a long poll asks the server to wait: less than the idle timeout of common proxies.
LONG_POLL_SECONDS: Final = 25.0


def count_dirty(store: Store, verb: str) -> int:
    """Return the number of dirty changes of a client.

    Args:
        store: A store in CLIENT mode.
        verb: The calling verb, for error messages.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
    """
    space = store.client(verb).space
    with store.guard.thread.lock:
        return sum(map(len, key_chunks(store.reader(), space.dirty_start, space.dirty_stop)))


def last_synced(store: Store, verb: str) -> datetime | None:
    """Return the time at which a client was in sync last, as it is recorded: see `read_synced`.

    Args:
        store: A store in CLIENT mode.
        verb: The calling verb, for error messages.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        CorruptionError: The record is malformed.
    """
    records = store.client(verb).records
    with store.guard.thread.lock:
        return read_synced(store.reader(), records)


class LiveSessionBase:
    """A live session without its thread or task: options, state, and the sessions that it starts.

    Args:
        store: A store in CLIENT mode.
        exchange: Sends a request to the server: see `driver.exchange_of`.
        interval: Seconds between two polls of a server that does not support long polls.
        on_reset: "reset", or "raise" to end before a reset.
        on_conflict: The application's function that settles conflicts; ``None`` to journal all.

    Raises:
        TypeError: ``interval`` is not a number, or ``on_conflict`` no plain function.
        ValueError: ``interval`` is not positive and finite, or ``on_reset`` is unknown.
        StateError: The level is open for reading only.
    """

    def __init__(
        self,
        store: Store,
        exchange: Callable[..., Any],
        *,
        interval: float,
        on_reset: str,
        on_conflict: OnConflict | None = None,
    ) -> None:
        if isinstance(interval, bool) or not isinstance(interval, (int, float)):
            raise TypeError(f"the interval is a number of seconds, not {interval!r:.80}")
        if not 0 < interval < float("inf"):
            raise ValueError(f"the interval is more than 0 seconds, not {interval!r:.80}")
        if on_reset not in ("reset", "raise"):
            raise ValueError(f'on_reset is "reset" or "raise", not {on_reset!r:.80}')
        if store.read_only:
            raise store.read_only_error()
        self._store = store
        self._exchange = exchange
        self._on_reset = on_reset
        self._on_conflict = require_on_conflict(on_conflict)
        self._wait = LONG_POLL_SECONDS if _accepts_wait(exchange) else 0
        self._schedule = LiveSchedule(interval=interval, can_wait=self._wait > 0)
        self._events = SessionEvents()
        self._schedule.on_state = self._events.on_state
        #: The changes that the last sync could not push; ``None`` if there are none.
        self._held_back: TransportError | ForbiddenError | None = None
        #: Protects the schedule, which any thread may call. Recursive: a signal handler may pause
        #: or resume the session.
        self._lock = RecursiveLock()
        self._is_entered = False
        self._limits = PushLimits()

    @property
    def state(self) -> LiveState:
        """The state: ``connecting``, ``busy``, ``idle``, ``offline``, or one of these.

        ``standby`` waits for the live session of another process with the same store to end, and
        takes over. ``needs_auth`` waits for `resume`, since the server refuses the token.
        ``stopped`` is paused or over.
        """
        return self._schedule.state

    @property
    def last_error(self) -> Exception | None:
        """The last error; ``None`` after a successful synchronisation."""
        return self._schedule.last_error

    @property
    def pending_push(self) -> int:
        """The number of local changes that the server has not acknowledged: see ``pending()``."""
        return count_dirty(self._store, "pending")

    @property
    def consistent(self) -> bool:
        """True if the data is that of the server at the client's CID: see `SyncReport.consistent`.

        It is read from the store, so `follow`, other calls of ``sync`` and earlier sessions count.
        """
        mode = self._store.client("live")
        return self._store.read_step(lambda reader, cid: read_consistent(reader, mode.records, cid))

    @property
    def in_sync_now(self) -> bool:
        """True if both sides hold the same, as far as this side can know.

        The last exchange has succeeded and drained both sides, and there is no local change since.
        """
        try:
            return self._schedule.has_caught_up and not self._has_changes()
        except NotOpenError:
            return False

    @property
    def last_synced(self) -> datetime | None:
        """The time in UTC at which both sides were drained last: see `Level.last_synced`.

        Between two syncs of this session, each reply of the server that brings nothing counts.
        """
        ms = self._events.synced_ms
        return last_synced(self._store, "live") if ms is None else clock.moment(ms)

    def _sync_session(self, report: SyncReport, *, look_ahead: bool) -> Generator[Any, Any, SyncReport]:
        """Return a session that pulls and pushes until both sides are drained, and reports."""
        if self._schedule.state == "connecting":
            self._limits = PushLimits()  # the proxy's size limit, or the token's rights, may have changed
        return sync_session(
            self._store.step,
            self._store.client("live"),
            on_reset=self._on_reset,
            report=report,
            limits=self._limits,
            look_ahead=look_ahead,
            on_conflict=self._on_conflict,
            observe=self._events.on_outcome,
        )

    def _poll_session(self) -> Generator[Request, Any, PollResult]:
        """Return a session of one long poll."""
        return poll_session(
            self._store.step,
            self._store.client("live"),
            on_reset=self._on_reset,
            report=SyncReport(),
            limits=self._limits,
            on_conflict=self._on_conflict,
            observe=self._events.on_outcome,
        )

    def _has_changes(self) -> bool:
        """Return True if there are dirty changes that may be pushed."""
        space = self._store.client("live").space
        with self._store.guard.thread.lock:
            return self._limits.has_pushable(self._store.reader(), space)

    def _enter(self) -> None:
        """Check and record that the session is entered, which it is once.

        Raises:
            NotOpenError, ModeError: The store is closed, or in another mode.
            StateError: The session was entered before.
        """
        self._store.client("live")
        with self._lock:
            if self._is_entered:
                raise StateError("a live session can be entered once only: make another one with live()")
            self._is_entered = True

    def _take_ticket(self) -> int:
        """Request a sync, and return the ticket to wait for. Called under the lock.

        Raises:
            StateError: The session was not entered, or is over.
        """
        self._raise_if_over()
        if not self._is_entered:
            raise StateError("in_sync() cannot wait here: the live session has not been entered by a with statement")
        return self._schedule.take_ticket()

    def _raise_if_over(self) -> None:
        if self._schedule.is_over:
            raise self._over()

    def _listen(self) -> None:
        """Have `_on_commit` called after each commit; end the session if that is impossible."""
        try:
            self._store.add_listener(self._on_commit)
        except LevelError as error:
            with self._lock:
                self._schedule.end()
                self._schedule.last_error = error

    def _on_commit(self) -> None:
        """React to a commit, or to the closing of the store. Called from any thread."""
        raise NotImplementedError

    def _live_lock(self) -> SyncLock:
        """Return the lock of the one live session of the store, to be acquired by `_take_turn`."""
        try:
            return sync_lock(self._store, "live")
        except NotOpenError:  # closed just now: the session is about to end
            return GrantedSyncLock()

    def _take_turn(self, lock: SyncLock) -> None:
        """Become the live session of the store, or else stand by; a paused one does neither."""
        if self._schedule.is_over or self._schedule.state in ("stopped", "needs_auth"):
            lock.release()
            return
        is_live = has_acquired(lock)
        with self._lock:
            if is_live:
                self._schedule.take_over()
            else:
                self._schedule.stand_by()

    def _may_poll(self, lock: SyncLock, now: float) -> bool:
        """Return True if no other process synchronises; else schedule another attempt."""
        if has_acquired(lock):
            return True
        with self._lock:
            self._schedule.due = now + PAUSE
        return False

    def _on_reply(self) -> None:
        with self._lock:
            self._schedule.on_reply()

    def _on_synced(self, now: float, error: TransportError | ForbiddenError | None) -> None:
        """Record that a sync has drained both sides, but for the changes that ``error`` names."""
        with self._lock:
            self._held_back = error
            self._schedule.on_synced(now, error)
            if error is None:
                self._events.on_synced()
            else:
                self._events.emit(Failed(error))

    def _on_polled(self, result: PollResult, now: float, *, elapsed: float) -> None:
        """Record the result of a long poll."""
        with self._lock:
            self._schedule.on_polled(result, now, elapsed=elapsed, wait=self._wait)
            if self._schedule.has_caught_up:
                if result is PollResult.APPLIED:
                    self._events.on_synced()
                else:
                    self._events.synced_ms = clock.now()

    def _on_failure(self, error: Exception, now: float) -> None:
        """Record the failure of a sync or of a long poll."""
        with self._lock:
            if not self._store.is_open:
                self._schedule.end()
            if not self._schedule.is_over:
                self._events.emit(Failed(error))
            self._schedule.on_failure(error, now)

    def _raise_unless_pushed(self, wait: PushWait) -> None:
        """Raise the error of a sync that has left a local change behind.

        Raises:
            Refused: The server has refused changes.
            TransportError, ForbiddenError: Changes are too large, or the token may not push them.
        """
        wait.raise_if_refused()
        if self._held_back is not None:
            raise self._held_back

    def _raise_if_stopped(self) -> None:
        """Raise StateError if the session is over or paused. Called under the lock."""
        self._raise_if_over()
        if self._schedule.state == "stopped":
            raise StateError("the live session is paused, and pushes nothing: call resume()")

    def _request_sync(self) -> None:
        with self._lock:
            self._schedule.request_sync()

    def _over(self) -> StateError:
        """Return the error for a call on a session that is over."""
        cause = self._schedule.last_error
        error = StateError(f"the live session is over: {cause or 'it was left, or its level was closed'}")
        error.__cause__ = cause
        return error

    def _not_in_sync(self, within: float | None) -> TransportError:
        """Return the error for a wait that timed out."""
        cause = self._schedule.last_error
        reason = f": {cause}" if isinstance(cause, LevelError) else ""
        error = TransportError(f"not in sync after {within} seconds, the session is {self._schedule.state}{reason}")
        error.__cause__ = cause
        return error


def _accepts_wait(exchange: Callable[..., Any]) -> bool:
    """Return True if a server's ``exchange`` supports long polls."""
    try:
        return "wait" in inspect.signature(exchange).parameters
    except (TypeError, ValueError):
        return False
