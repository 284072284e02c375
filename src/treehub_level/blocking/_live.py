"""A live session in a thread: keeps a client in sync with its server."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from ..errors import ForbiddenError, LevelError, StateError, TransportError
from ..replication.allowance import Allowance
from ..replication.live import News, Pace, State, Task
from ..replication.messages import Request
from ._syncing import ClientVerbs, Ended, advance, blocking_exchange_of, converse, transport_errors

#: Seconds that a server is asked to keep a question for news waiting: less than proxies let a connection rest.
WAIT: Final = 25.0


class _GivenUpError(Exception):
    """The session was paused or ended while the server was asked."""


class _Poll(NamedTuple):
    """A question for news that is on its way."""

    talk: Generator[Request, Any, News]
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
        self._pace = Pace(interval=interval, can_wait=self._wait > 0)
        self._allowance = Allowance()
        self._condition = threading.Condition()
        self._stirred = False
        self._interruptions = 0
        self._poll: _Poll | None = None
        self._thread = threading.Thread(target=self._run, name="treehub-level-live", daemon=True)

    # ------------------------------------------------------------------------------------------ the session

    @property
    def state(self) -> State:
        """What it is doing: ``connecting``, ``busy``, ``idle``, ``offline``, ``needs_auth`` or ``stopped``.

        ``offline`` tries again by itself; ``needs_auth`` waits for `resume`, since the server refuses the token;
        ``stopped`` is paused, or over.
        """
        return self._pace.state

    @property
    def last_error(self) -> Exception | None:
        """What went wrong last; ``None`` once all is well again."""
        return self._pace.last_error

    @property
    def pending_push(self) -> int:
        """How many local changes the server has not acknowledged yet: they are counted, see ``pending()``."""
        return self._level.pending()

    def pause(self) -> None:
        """Leave the server alone until `resume`. What is on its way is given up, which is safe."""
        with self._condition:
            self._pace.pause()
            self._interruptions += 1
        self._stir()

    def resume(self) -> None:
        """Go on at once: after a pause, with another token, or instead of waiting for the next try.

        Raises:
            StateError: The session is over.
        """
        with self._condition:
            self._refuse_if_over()
            self._pace.resume()
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
            ticket = self._pace.ask()
            self._stir()
            done = self._condition.wait_for(lambda: self._pace.is_over or self._pace.is_served(ticket), within)
            if not self._pace.is_served(ticket):
                self._refuse_if_over()
            if not done:
                raise not_in_sync(within, self._pace)

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
        if self._pace.is_over:
            raise session_is_over(self._pace)

    # ------------------------------------------------------------------------------------ from other threads

    def _stir(self) -> None:
        with self._condition:
            self._stirred = True
            self._condition.notify_all()

    def _end(self) -> None:
        with self._condition:
            self._pace.end()
            self._interruptions += 1
        self._stir()

    def _tell(self) -> None:
        """The store has changed, or is closing."""
        if self._store.is_open:
            self._stir()
        else:
            self._end()

    # --------------------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        self._store.add_listener(self._tell)
        try:
            if not self._store.is_open:
                self._end()
            while self._go_on():
                pass
        finally:
            self._store.remove_listener(self._tell)
            self._drop_poll()

    def _go_on(self) -> bool:
        with self._condition:
            self._stirred = False
        if self._pace.state == "idle":
            self._attempt(self._look)
        with self._condition:
            task = self._pace.next(time.monotonic())
        if task is Task.SYNC:
            self._attempt(self._sync)
        elif task is Task.POLL and self._poll is None:
            self._attempt(self._ask)
        elif task is not Task.END:
            self._rest()
        return task is not Task.END

    def _rest(self) -> None:
        with self._condition:
            if self._pace.state != "idle":
                self._drop_poll()
            due = self._pace.due
            self._condition.wait_for(lambda: self._stirred, None if due is None else max(0, due - time.monotonic()))

    def _look(self) -> None:
        """Whether there is something to push, or the server has answered the question for news."""
        if self._level._has_to_push(self._allowance):
            self._pace.want()
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
                    self._pace.end()
                self._pace.failed(error, time.monotonic())
        with self._condition:
            self._condition.notify_all()

    def _sync(self) -> None:
        if self._pace.state == "connecting":
            self._allowance = Allowance()  # what can be carried, and is allowed, may have changed
        talk, _ = self._level._session(True, True, self._on_reset, None, self._allowance)
        remaining: TransportError | ForbiddenError | None = None
        try:
            with self._level._sync_lock:
                converse(talk, self._carry, self._replied)
        except (TransportError, ForbiddenError) as error:
            if not error.keys:
                raise
            remaining = error
        with self._condition:
            self._pace.synced(time.monotonic(), remaining)

    def _replied(self) -> None:
        with self._condition:
            self._pace.replied()

    def _carry(self, request: Request) -> Any:
        """Carry a message to the server and back, unless the session is paused or ended meanwhile."""
        with self._condition:
            before = self._interruptions
            if self._pace.state == "stopped":
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
        talk = self._level._follow(self._on_reset, self._allowance)
        request = advance(talk)
        if isinstance(request, Ended):
            self._pace.want()
            return
        self._poll = _Poll(talk, self._call(lambda: self._exchange(request, wait=self._wait)), time.monotonic())

    def _take_news(self) -> None:
        assert self._poll is not None
        talk, reply, started = self._poll
        self._poll = None
        try:
            with transport_errors():
                message = reply.result()
            news = advance(talk, message)
        finally:
            talk.close()
        assert isinstance(news, Ended)
        now = time.monotonic()
        with self._condition:
            self._pace.polled(news.result, now, elapsed=now - started, wait=self._wait)

    def _drop_poll(self) -> None:
        if self._poll is not None:
            self._poll.talk.close()
            self._poll = None


def takes_wait(exchange: Callable[..., Any]) -> bool:
    """Whether a server's ``exchange`` can keep a question waiting."""
    try:
        return "wait" in inspect.signature(exchange).parameters
    except (TypeError, ValueError):
        return False


def check_options(interval: object, on_reset: str) -> str:
    """Refuse what ``live()`` cannot be given; ``on_reset`` is returned.

    Raises:
        TypeError: An interval that is no number.
        ValueError: One that is not positive, or an unknown ``on_reset``.
    """
    if isinstance(interval, bool) or not isinstance(interval, (int, float)):
        raise TypeError(f"the interval is a number of seconds, not {interval!r:.80}")
    if not 0 < interval < float("inf"):
        raise ValueError(f"the interval is more than 0 seconds, not {interval!r:.80}")
    if on_reset not in ("reset", "raise"):
        raise ValueError(f'on_reset is "reset" or "raise", not {on_reset!r:.80}')
    return on_reset


def session_is_over(pace: Pace) -> StateError:
    """What whoever still asks something of a session is told."""
    error = StateError(f"the live session is over: {pace.last_error or 'it was left, or its level was closed'}")
    error.__cause__ = pace.last_error
    return error


def not_in_sync(within: float | None, pace: Pace) -> TransportError:
    """What whoever has waited long enough is told."""
    reason = f": {pace.last_error}" if isinstance(pace.last_error, LevelError) else ""
    error = TransportError(f"not in sync after {within} seconds, the session is {pace.state}{reason}")
    error.__cause__ = pace.last_error
    return error
