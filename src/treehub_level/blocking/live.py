"""A live session in a thread: keeps a client in sync with its server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple

from ..errors import ForbiddenError, TransportError
from ..replication.driver import Finished, advance, drive, transport_errors
from ..replication.limits import PushLimits
from ..replication.live import WAIT, check_options, not_in_sync, session_is_over, takes_wait
from ..replication.messages import Request
from ..replication.schedule import LiveSchedule, LiveState, PollResult, Task
from .client import ClientVerbs, blocking_exchange_of


class _GivenUpError(Exception):
    """The session was paused or ended while the server was asked."""


class _Poll(NamedTuple):
    """A question for news that is on its way."""

    session: Generator[Request, Any, PollResult]
    reply: Future[Any]
    started: float


class LiveSession:
    """Keeps a client in sync with its server while its ``with`` block lasts. Made by ``live()``."""

    def __init__(self, level: ClientVerbs, server: object, *, interval: float, on_reset: str) -> None:
        self._level = level
        self._store = level._store
        self._exchange = blocking_exchange_of(server)
        self._wait = WAIT if takes_wait(self._exchange) else 0
        self._on_reset = check_options(interval, on_reset)
        self._schedule = LiveSchedule(interval=interval, can_wait=self._wait > 0)
        self._limits = PushLimits()
        self._condition = threading.Condition()
        self._stirred = False
        self._interruptions = 0
        self._poll: _Poll | None = None
        self._thread = threading.Thread(target=self._run, name="treehub-level-live", daemon=True)

    # ------------------------------------------------------------------------------------------ the session

    @property
    def state(self) -> LiveState:
        """What it is doing: ``connecting``, ``busy``, ``idle``, ``offline``, ``needs_auth`` or ``stopped``.

        ``offline`` tries again by itself; ``needs_auth`` waits for `resume`, since the server refuses the token;
        ``stopped`` is paused, or over.
        """
        return self._schedule.state

    @property
    def last_error(self) -> Exception | None:
        """What went wrong last; ``None`` once all is well again."""
        return self._schedule.last_error

    @property
    def pending_push(self) -> int:
        """How many local changes the server has not acknowledged yet: they are counted, see ``pending()``."""
        return self._level.pending()

    def pause(self) -> None:
        """Leave the server alone until `resume`. What is on its way is given up, which is safe."""
        with self._condition:
            self._schedule.pause()
            self._interruptions += 1
        self._stir()

    def resume(self) -> None:
        """Go on at once: after a pause, with another token, or instead of waiting for the next try.

        Raises:
            StateError: The session is over.
        """
        with self._condition:
            self._refuse_if_over()
            self._schedule.resume()
        self._stir()

    def in_sync(self, *, within: float | None = None) -> None:
        """Wait until all that was written here and on the server before this call is on both sides.

        It waits through failures and pauses.

        Args:
            within: Seconds to wait; ``None`` for as long as it takes.

        Raises:
            StateError: The session is over, for its ``last_error`` if there is one.
            TransportError: It took longer.
        """
        with self._condition:
            ticket = self._schedule.take_ticket()
            self._stir()
            done = self._condition.wait_for(lambda: self._schedule.is_over or self._schedule.has_synced(ticket), within)
            if not self._schedule.has_synced(ticket):
                self._refuse_if_over()
            if not done:
                raise not_in_sync(within, self._schedule)

    def __enter__(self) -> LiveSession:
        self._level._client("live")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        self._thread.join()

    def __repr__(self) -> str:
        return f"<treehub_level.blocking live session, {self.state}>"

    def _refuse_if_over(self) -> None:
        if self._schedule.is_over:
            raise session_is_over(self._schedule)

    # ------------------------------------------------------------------------------------ from other threads

    def _stir(self) -> None:
        with self._condition:
            self._stirred = True
            self._condition.notify_all()

    def _end(self) -> None:
        with self._condition:
            self._schedule.end()
            self._interruptions += 1
        self._stir()

    def _notify(self) -> None:
        """The store has changed, or is closing."""
        if self._store.is_open:
            self._stir()
        else:
            self._end()

    # --------------------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        self._store.add_listener(self._notify)
        try:
            if not self._store.is_open:
                self._end()
            while self._go_on():
                pass
        finally:
            self._store.remove_listener(self._notify)
            self._drop_poll()

    def _go_on(self) -> bool:
        with self._condition:
            self._stirred = False
        if self._schedule.state == "idle":
            self._attempt(self._look)
        with self._condition:
            task = self._schedule.next_task(time.monotonic())
        if task is Task.SYNC:
            self._attempt(self._sync)
        elif task is Task.POLL and self._poll is None:
            self._attempt(self._ask)
        elif task is not Task.END:
            self._rest()
        return task is not Task.END

    def _rest(self) -> None:
        with self._condition:
            if self._schedule.state != "idle":
                self._drop_poll()
            due = self._schedule.due
            self._condition.wait_for(lambda: self._stirred, None if due is None else max(0, due - time.monotonic()))

    def _look(self) -> None:
        """Whether there is something to push, or the server has answered the question for news."""
        if self._level._has_to_push(self._limits):
            self._schedule.request_sync()
        if self._poll is not None and self._poll.reply.done():
            self._take_news()

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except _GivenUpError:
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
        if self._schedule.state == "connecting":
            self._limits = PushLimits()  # what can be carried, and is allowed, may have changed
        session, _ = self._level._session(True, True, self._on_reset, None, self._limits)
        remaining: TransportError | ForbiddenError | None = None
        try:
            with self._level._sync_lock:
                drive(session, self._carry, self._replied)
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        with self._condition:
            self._schedule.on_synced(time.monotonic(), remaining)

    def _replied(self) -> None:
        with self._condition:
            self._schedule.on_reply()

    def _carry(self, request: Request) -> Any:
        """Carry a message to the server and back, unless the session is paused or ended meanwhile."""
        with self._condition:
            before = self._interruptions
            if self._schedule.state == "stopped":
                raise _GivenUpError
        reply = self._call(lambda: self._exchange(request))
        with self._condition:
            self._condition.wait_for(lambda: reply.done() or self._interruptions > before)
        if not reply.done():
            raise _GivenUpError
        return reply.result()

    def _call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run what cannot be interrupted in a thread of its own: it touches nothing here, and may be left alone."""
        result: Future[Any] = Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)
            self._stir()

        threading.Thread(target=run, name="treehub-level-live-call", daemon=True).start()
        return result

    def _ask(self) -> None:
        """Ask the server for news, and let it keep the question waiting."""
        session = self._level._follow(self._on_reset, self._limits)
        request = advance(session)
        if isinstance(request, Finished):
            self._schedule.request_sync()
            return
        self._poll = _Poll(session, self._call(lambda: self._exchange(request, wait=self._wait)), time.monotonic())

    def _take_news(self) -> None:
        assert self._poll is not None
        session, reply, started = self._poll
        self._poll = None
        try:
            with transport_errors():
                message = reply.result()
            news = advance(session, message)
        finally:
            session.close()
        assert isinstance(news, Finished)
        now = time.monotonic()
        with self._condition:
            self._schedule.on_polled(news.result, now, elapsed=now - started, wait=self._wait)

    def _drop_poll(self) -> None:
        if self._poll is not None:
            self._poll.session.close()
            self._poll = None
