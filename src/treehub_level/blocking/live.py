"""`LiveSession`: a thread that keeps a client in sync with its server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple

from ..engine.store import Store
from ..errors import ForbiddenError, TransportError
from ..replication.driver import Finished, advance, drive, transport_errors
from ..replication.live import LiveSessionBase
from ..replication.messages import Request
from ..replication.schedule import PollResult, Task
from .client import blocking_exchange_of


class _InterruptedError(Exception):
    """The session was paused or ended during a request."""


class _LongPoll(NamedTuple):
    """A long poll in flight."""

    session: Generator[Request, Any, PollResult]
    reply: Future[Any]
    started: float


class LiveSession(LiveSessionBase):
    """Keeps a client in sync with its server for the length of a ``with`` block.

    Made by ``live()``.
    """

    def __init__(
        self, store: Store, sync_lock: threading.Lock, server: object, *, interval: float, on_reset: str
    ) -> None:
        super().__init__(store, blocking_exchange_of(server), interval=interval, on_reset=on_reset)
        self._sync_lock = sync_lock
        self._condition = threading.Condition()
        self._woken = False
        self._interruptions = 0
        self._poll: _LongPoll | None = None
        self._thread = threading.Thread(target=self._run, name="treehub-level-live", daemon=True)

    # ---------------------------------------------------------------------------------- the session

    def pause(self) -> None:
        """Stop synchronising until `resume`. A request in flight is abandoned safely."""
        with self._condition:
            self._schedule.pause()
            self._interruptions += 1
        self._wake()

    def resume(self) -> None:
        """Synchronise now: after a pause, with a new token, or before the next retry is due.

        Raises:
            StateError: The session is over.
        """
        with self._condition:
            self._raise_if_over()
            self._schedule.resume()
        self._wake()

    def in_sync(self, *, within: float | None = None) -> None:
        """Wait until all changes made before this call, here and on the server, are on both sides.

        Failures and pauses do not end the wait.

        Args:
            within: Seconds to wait; ``None`` for no limit.

        Raises:
            StateError: The session is over. Its cause is ``last_error``, if there is one.
            TransportError: The time is over.
        """
        with self._condition:
            ticket = self._schedule.take_ticket()
            self._wake()
            done = self._condition.wait_for(lambda: self._schedule.is_over or self._schedule.has_synced(ticket), within)
            if not self._schedule.has_synced(ticket):
                self._raise_if_over()
            if not done:
                raise self._not_in_sync(within)

    def __enter__(self) -> LiveSession:
        self._store.client("live")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        self._thread.join()

    def __repr__(self) -> str:
        return f"<treehub_level.blocking live session, {self.state}>"

    def _raise_if_over(self) -> None:
        if self._schedule.is_over:
            raise self._over()

    # --------------------------------------------------------------------------- from other threads

    def _wake(self) -> None:
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def _end(self) -> None:
        with self._condition:
            self._schedule.end()
            self._interruptions += 1
        self._wake()

    def _on_commit(self) -> None:
        """React to a commit, or to the closing of the store."""
        if self._store.is_open:
            self._wake()
        else:
            self._end()

    # ----------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        self._store.add_listener(self._on_commit)
        try:
            if not self._store.is_open:
                self._end()
            while self._run_task():
                pass
        finally:
            self._store.remove_listener(self._on_commit)
            self._drop_poll()

    def _run_task(self) -> bool:
        with self._condition:
            self._woken = False
        if self._schedule.state == "idle":
            self._attempt(self._check_both_sides)
        with self._condition:
            task = self._schedule.next_task(time.monotonic())
        if task is Task.SYNC:
            self._attempt(self._sync)
        elif task is Task.POLL and self._poll is None:
            self._attempt(self._start_poll)
        elif task is not Task.END:
            self._rest()
        return task is not Task.END

    def _rest(self) -> None:
        with self._condition:
            if self._schedule.state != "idle":
                self._drop_poll()
            due = self._schedule.due
            self._condition.wait_for(lambda: self._woken, None if due is None else max(0, due - time.monotonic()))

    def _check_both_sides(self) -> None:
        """Request a sync if there are changes to push, and take the reply of a long poll."""
        if self._has_changes():
            self._schedule.request_sync()
        if self._poll is not None and self._poll.reply.done():
            self._finish_poll()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except _InterruptedError:
            pass
        except Exception as error:
            self._drop_poll()
            with self._condition:
                if not self._store.is_open:
                    self._schedule.end()
                self._schedule.on_failure(error, time.monotonic())
        with self._condition:
            self._condition.notify_all()

    def _sync(self) -> None:
        session = self._sync_session(look_ahead=False)
        remaining: TransportError | ForbiddenError | None = None
        try:
            with self._sync_lock:
                drive(session, self._send, self._on_reply)
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        with self._condition:
            self._schedule.on_synced(time.monotonic(), remaining)

    def _on_reply(self) -> None:
        with self._condition:
            self._schedule.on_reply()

    def _send(self, request: Request) -> Any:
        """Send a request and return its reply, unless the session is paused or ended meanwhile."""
        with self._condition:
            before = self._interruptions
            if self._schedule.state == "stopped":
                raise _InterruptedError
        reply = self._call(lambda: self._exchange(request))
        with self._condition:
            self._condition.wait_for(lambda: reply.done() or self._interruptions > before)
        if not reply.done():
            raise _InterruptedError
        return reply.result()

    def _call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run an uninterruptible call in a thread of its own, which may be abandoned."""
        result: Future[Any] = Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)
            self._wake()

        threading.Thread(target=run, name="treehub-level-live-call", daemon=True).start()
        return result

    def _start_poll(self) -> None:
        """Start a long poll for changes on the server."""
        session = self._poll_session()
        request = advance(session)
        if isinstance(request, Finished):
            self._schedule.request_sync()
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
        with self._condition:
            self._schedule.on_polled(outcome.result, now, elapsed=now - started, wait=self._wait)

    def _drop_poll(self) -> None:
        if self._poll is not None:
            self._poll.session.close()
            self._poll = None
