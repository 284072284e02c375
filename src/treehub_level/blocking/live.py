"""`LiveSession`: a thread that keeps a client in sync with its server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from ..backends.base import SyncLock
from ..engine.store import Store
from ..errors import ForbiddenError, StateError, TransportError
from ..events import Event
from ..locks import ErrorCheckingLock, WakeUp, start_thread
from ..replication.driver import Finished, advance, drive, transport_errors
from ..replication.live import LiveSessionBase
from ..replication.merging import OnConflict
from ..replication.messages import Request
from ..replication.schedule import PollResult, Task
from ..replication.session_events import SessionEvents
from ..replication.sync_locks import PAUSE, has_acquired, sync_lock
from ..tracing import sync_span
from ..types import SyncReport
from .client import blocking_exchange_of


class _InterruptedError(Exception):
    """The session was paused or ended during a request."""


class _LongPoll(NamedTuple):
    """A long poll in flight."""

    session: Generator[Request, Any, PollResult]
    reply: Future[Any]
    started: float


class EventIterator(Iterator[Event]):
    """The events of a live session. Made by ``events()``."""

    def __init__(self, events: SessionEvents) -> None:
        self._events = events
        self._woken = WakeUp()
        self._queue = events.listen()
        self._queue.wake = self._woken.set

    def __iter__(self) -> EventIterator:
        return self

    def __next__(self) -> Event:
        while True:
            self._woken.clear()
            is_over = self._events.is_over
            event = self._queue.take()
            if event is not None:
                return event
            if is_over:
                raise StopIteration
            self._woken.wait()


class LiveSession(LiveSessionBase):
    """Keeps a client in sync with its server for the length of a ``with`` block.

    Made by ``live()``.
    """

    def __init__(
        self,
        store: Store,
        sync_lock: ErrorCheckingLock,
        server: object,
        *,
        interval: float,
        on_reset: str,
        on_conflict: OnConflict | None = None,
    ) -> None:
        exchange = blocking_exchange_of(server)
        super().__init__(store, exchange, interval=interval, on_reset=on_reset, on_conflict=on_conflict)
        self._sync_lock = sync_lock
        self._woken = WakeUp()
        #: Set when the state changes, for each call of `in_sync` that waits.
        self._waiters: set[WakeUp] = set()
        self._interruptions = 0
        self._poll: _LongPoll | None = None
        self._ended = WakeUp()
        #: The identifiers of the threads that work for the session.
        self._thread_ids: set[int] = set()

    # ---------------------------------------------------------------------------------- the session

    def pause(self) -> None:
        """Stop synchronising until `resume`. A request in flight is abandoned safely."""
        self._store.require_same_process()
        with self._lock:
            self._schedule.pause()
            self._interruptions += 1
        self._wake()
        self._notify()

    def resume(self) -> None:
        """Synchronise now: after a pause, with a new token, or before the next retry is due.

        Raises:
            StateError: The session is over.
        """
        self._store.require_same_process()
        with self._lock:
            self._raise_if_over()
            self._schedule.resume()
        self._wake()

    def in_sync(self, *, within: float | None = None) -> None:
        """Wait until all changes made before this call, here and on the server, are on both sides.

        Failures and pauses do not end the wait.

        Args:
            within: Seconds to wait; ``None`` for no limit.

        Raises:
            StateError: The session is over; its cause is ``last_error``, if there is one. Or it was
                not entered, or this is a call from within its own work.
            TransportError: The time is over.
        """
        self._store.require_same_process()
        self._check_outside("in_sync() cannot wait")
        self._wait_for_sync(within, self._raise_if_over)

    def pushed(self, *, within: float | None = None) -> None:
        """Wait until all local changes made before this call are on the server.

        A change that loses to another client's is in the journal then: see `conflicts`.

        Args:
            within: Seconds to wait; ``None`` for no limit.

        Raises:
            StateError: The session is paused or over, also later. Or it was not entered, or this is
                a call from within its own work.
            Refused: The server has refused changes meanwhile; ``keys`` names them.
            TransportError: The time is over; or the changes in ``keys`` are too large.
            ForbiddenError: The token may not push the changes in ``keys``.
        """
        self._store.require_same_process()
        self._check_outside("pushed() cannot wait")
        wait = self._events.wait_for_push()
        self._wait_for_sync(within, self._raise_if_stopped)
        self._raise_unless_pushed(wait)

    def events(self) -> EventIterator:
        """Iterate over the events of the session from now on: see ``treehub_level.events``.

        The iterator waits for the next event, and ends when the session is over. It may be made
        before the session is entered. At most 1000 events wait for a consumer that lags. Beyond
        that, events of a kind become one, and the oldest conflicts are left to the journal.
        """
        return EventIterator(self._events)

    def _wait_for_sync(self, within: float | None, check: Callable[[], None]) -> None:
        """Wait for a sync that begins after this call.

        Args:
            within: Seconds to wait; ``None`` for no limit.
            check: Raises an error if the wait is in vain. Called under the lock.
        """
        deadline = None if within is None else time.monotonic() + within
        changed = WakeUp()
        self._waiters.add(changed)
        try:
            with self._lock:
                check()
                ticket = self._take_ticket()
            self._wake()
            while True:
                changed.clear()
                with self._lock:
                    if self._schedule.has_synced(ticket):
                        return
                    check()
                if not changed.wait(None if deadline is None else deadline - time.monotonic()):
                    raise self._not_in_sync(within)
        finally:
            self._waiters.discard(changed)

    def __enter__(self) -> LiveSession:
        self._enter()
        start_thread("treehub-level-live", self._run)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._store.guard.closed_reason or not self._is_entered:
            return  # there is no thread to wait for: after a fork it is in the parent
        self._check_outside("a live session cannot be left")
        self._end()
        self._ended.wait()

    def __repr__(self) -> str:
        return f"<treehub_level.blocking live session, {self.state}>"

    def _check_outside(self, action: str) -> None:
        """Raise StateError in a thread of the session: it would wait for itself."""
        if threading.get_ident() in self._thread_ids:
            raise StateError(f"{action} here: this is a thread of the live session, within its own work")

    # --------------------------------------------------------------------------- from other threads

    def _wake(self) -> None:
        self._woken.set()

    def _notify(self) -> None:
        for changed in tuple(self._waiters):
            changed.set()

    def _end(self) -> None:
        with self._lock:
            self._schedule.end()
            self._interruptions += 1
        self._wake()

    def _on_commit(self) -> None:
        if self._store.is_open:
            self._wake()
        else:
            self._end()

    # ----------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        self._thread_ids.add(threading.get_ident())
        try:
            self._listen()
            if not self._store.is_open:
                self._end()
            with self._live_lock() as lock:
                while self._run_task(lock):
                    pass
        finally:
            self._store.remove_listener(self._on_commit)
            self._end()
            self._events.end()
            self._notify()
            self._drop_poll()
            self._thread_ids.clear()
            self._ended.set()

    def _run_task(self, lock: SyncLock) -> bool:
        self._woken.clear()
        self._take_turn(lock)
        if self._schedule.state == "idle":
            self._attempt(self._check_both_sides)
        with self._lock:
            task = self._schedule.next_task(time.monotonic())
        if task is Task.SYNC:
            self._attempt(self._sync)
        elif task is Task.POLL and self._poll is None:
            self._attempt(self._start_poll)
        elif task is not Task.END:
            self._rest()
        self._notify()
        return task is not Task.END

    def _rest(self) -> None:
        with self._lock:
            if self._schedule.state != "idle":
                self._drop_poll()
            due = self._schedule.due
        self._woken.wait(None if due is None else due - time.monotonic())

    def _check_both_sides(self) -> None:
        """Request a sync if there are changes to push, and take the reply of a long poll."""
        if self._has_changes():
            self._request_sync()
        if self._poll is not None and self._poll.reply.done():
            self._finish_poll()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except _InterruptedError:
            pass
        except Exception as error:
            self._drop_poll()
            self._on_failure(error, time.monotonic())
        self._notify()

    def _sync(self) -> None:
        report = SyncReport()
        session = self._sync_session(report, look_ahead=False)
        remaining: TransportError | ForbiddenError | None = None
        try:
            with self._sync_lock.entry(), sync_lock(self._store, "sync") as lock:
                self._acquire(lock)
                with sync_span(self._send, report):
                    drive(session, self._send, self._on_reply)
            if report.contended:  # to be pushed by another sync, at once
                self._request_sync()
                return
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        self._on_synced(time.monotonic(), remaining)

    def _acquire(self, lock: SyncLock) -> None:
        """Wait until no other process synchronises the store, unless the session is interrupted."""
        before = self._interruptions
        while not has_acquired(lock):
            if self._interruptions > before:
                raise _InterruptedError
            self._woken.clear()
            self._woken.wait(PAUSE)

    def _send(self, request: Request) -> Any:
        """Send a request and return its reply, unless the session is paused or ended meanwhile."""
        with self._lock:
            before = self._interruptions
            if self._schedule.state == "stopped":
                raise _InterruptedError
        reply = self._call(lambda: self._exchange(request))
        while not reply.done():
            self._woken.clear()
            if self._interruptions > before:
                raise _InterruptedError
            if not reply.done():
                self._woken.wait()
        return reply.result()

    def _call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run an uninterruptible call in a thread of its own, which may be abandoned."""
        result: Future[Any] = Future()

        def run() -> None:
            self._thread_ids.add(threading.get_ident())
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)
            except BaseException as error:  # such as SystemExit, which ends the session and not this process
                ended = StateError(f"a request to the server raised {error!r:.80}")
                ended.__cause__ = error
                result.set_exception(ended)
            finally:
                self._thread_ids.discard(threading.get_ident())  # a later thread may have the same identifier
            self._wake()

        start_thread("treehub-level-live-call", run)
        return result

    def _start_poll(self) -> None:
        """Start a long poll for changes on the server."""
        with self._sync_lock.entry(), sync_lock(self._store, "sync") as lock:
            if not self._may_poll(lock, time.monotonic()):
                return
            session = self._poll_session()
            request = advance(session)
        if isinstance(request, Finished):
            self._request_sync()
            return
        self._poll = _LongPoll(session, self._call(lambda: self._exchange(request, wait=self._wait)), time.monotonic())

    def _finish_poll(self) -> None:
        assert self._poll is not None
        session, reply, started = self._poll
        self._poll = None
        try:
            with transport_errors():
                message = reply.result()
            outcome = advance(session, message)
        finally:
            session.close()
        assert isinstance(outcome, Finished)
        now = time.monotonic()
        self._on_polled(outcome.result, now, elapsed=now - started)

    def _drop_poll(self) -> None:
        if self._poll is not None:
            self._poll.session.close()
            self._poll = None
