"""The schedule of a live session: a state machine without I/O, threads or a clock.

The caller asks `LiveSchedule.next_task` for the next task, runs it, and reports the result. Times
are seconds of a monotonic clock, and are passed in.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable

from ..errors import ForbiddenError, LevelError, NotOpenError, SyncError, TransportError
from ..events import LiveState
from .limits import FULL_STATUS

#: The maximum backoff between two attempts, in seconds, without jitter and without ``Retry-After``.
MAX_BACKOFF = 60.0
_FIRST_BACKOFF = 0.5
#: Seconds after which changes are pushed again for which the database had no room.
FULL_SECONDS = 60.0


def backoff(failures: int, retry_after: float | None, rng: Callable[[], float]) -> float:
    """Return the seconds to wait after a failure: exponential backoff with full jitter.

    Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

    Args:
        failures: The number of successive failures, at least 1.
        retry_after: The seconds that the server asks for in ``Retry-After``; the jitter is added to
            them.
        rng: Returns a random number from 0 to 1.
    """
    ceiling = min(MAX_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 16))
    return (retry_after or 0) + ceiling * rng()


class Task(enum.Enum):
    """The next task of a live session."""

    #: Run a sync, then call `LiveSchedule.on_synced` or `LiveSchedule.on_failure`.
    SYNC = "sync"
    #: Long-poll the server, then call `LiveSchedule.on_polled` or `LiveSchedule.on_failure`.
    POLL = "poll"
    #: Wait until `LiveSchedule.due`, or until an event.
    WAIT = "wait"
    #: Leave: the session has ended.
    END = "end"


class PollResult(enum.Enum):
    """The result of a long poll."""

    #: The reply held nothing new.
    EMPTY = "empty"
    #: The reply was applied, or the client had its contents already. The client has caught up.
    APPLIED = "applied"
    #: A sync is needed: there is more to pull, a push is undecided, or a reset is in progress.
    INCOMPLETE = "incomplete"


class LiveSchedule:
    """Decides when a live session syncs, when it polls, and how long it waits after a failure.

    The first task after a start, a failure or a pause is a sync.

    Args:
        interval: Seconds between two syncs with a server that does not support long polling.
        can_wait: True if the server supports long polling.
        rng: Returns a random number from 0 to 1, for the jitter.

    Attributes:
        on_state: Called with the states before and after each change of the state.
        last_error: The last error; ``None`` after a success.
        due: The time at which to call `next_task` again if there is no event before; ``None`` for
            never.
        is_over: True if the session has ended.
    """

    def __init__(self, *, interval: float, can_wait: bool, rng: Callable[[], float] = random.random) -> None:
        self._interval = interval
        self._can_wait = can_wait
        self._rng = rng
        self._failures = 0
        self._early_replies = 0
        #: The time from which on the next task is a sync; ``None`` for none.
        self._retry_at: float | None = None
        self._connected = False
        self._sync_is_due = True
        # Tickets are numbered from 1. A sync covers all tickets that were taken before it began.
        self._last_ticket = 0
        self._syncing_ticket = 0
        self._synced_ticket = 0
        self._state: LiveState = "connecting"
        self.on_state: Callable[[LiveState, LiveState], None] = lambda old, new: None
        self.last_error: Exception | None = None
        self.due: float | None = None
        self.is_over = False

    @property
    def state(self) -> LiveState:
        """The state of the session."""
        return self._state

    @state.setter
    def state(self, state: LiveState) -> None:
        before, self._state = self._state, state
        if before != state:
            self.on_state(before, state)

    @property
    def has_caught_up(self) -> bool:
        """True if the last exchange has succeeded, and no sync is requested since."""
        return self._state == "idle" and self.last_error is None and not self._sync_is_due

    def next_task(self, now: float) -> Task:
        """Return the next task. After ``Task.WAIT``, `due` is the time to wait for."""
        if self.is_over:
            return Task.END
        if self.state in ("stopped", "needs_auth"):
            self.due = None
            return Task.WAIT
        if self.due is not None and now < self.due and (self.state == "offline" or not self._sync_is_due):
            return Task.WAIT
        self.due = None
        is_retry_due = self._retry_at is not None and now >= self._retry_at
        if self._sync_is_due or is_retry_due or not self._connected or not self._can_wait:
            self._sync_is_due, self._retry_at = False, None
            self._syncing_ticket = self._last_ticket
            self.state = "busy" if self._connected else "connecting"
            return Task.SYNC
        return Task.POLL

    # --------------------------------------------------------------------------- results of tasks

    def on_reply(self) -> None:
        """Record a reply during a sync."""
        if self.state == "connecting":
            self.state = "busy"

    def on_synced(self, now: float, error: TransportError | ForbiddenError | None = None) -> None:
        """Record that a sync has drained both sides.

        Args:
            now: The time.
            error: The error that lists the changes that could not be pushed, or ``None``.
        """
        if self.state in ("stopped", "needs_auth"):
            return
        self.state = "idle"
        self.last_error = error
        self._failures = 0
        self._connected = True
        self._synced_ticket = self._syncing_ticket
        is_full = isinstance(error, TransportError) and error.status == FULL_STATUS
        self._retry_at = now + FULL_SECONDS if is_full else None
        if not self._can_wait:
            self.due = now + self._interval

    def on_polled(self, result: PollResult, now: float, *, elapsed: float, wait: float) -> None:
        """Record the result of a long poll.

        Args:
            result: The result of the poll.
            now: The time.
            elapsed: Seconds that the reply took.
            wait: Seconds for which the server was asked to hold the request.
        """
        self._sync_is_due = self._sync_is_due or result is PollResult.INCOMPLETE
        if result is PollResult.EMPTY and elapsed < wait / 2:
            # The server does not hold requests, or is about to close: polling again at once would
            # be a busy loop.
            self._early_replies += 1
            self.due = now + min(self._interval, backoff(self._early_replies, None, lambda: 1.0))
        else:
            self._early_replies = 0

    def on_failure(self, error: Exception, now: float) -> None:
        """Record the failure of a sync or a long poll."""
        if self.state == "stopped":
            return
        self.last_error = error
        self._connected = False
        self._failures += 1
        if isinstance(error, TransportError) and error.status == 401:
            self.state = "needs_auth"
        elif _is_retryable(error):
            self.state = "offline"
            retry_after = error.retry_after if isinstance(error, TransportError) else None
            self.due = now + backoff(self._failures, retry_after, self._rng)
        else:
            self.end()
            self.last_error = error

    # ----------------------------------------------------------------------------------- requests

    def request_sync(self) -> None:
        """Request a sync."""
        self._sync_is_due = True

    def take_ticket(self) -> int:
        """Request a sync. Return a ticket for `has_synced`."""
        self._last_ticket += 1
        self._sync_is_due = True
        return self._last_ticket

    def has_synced(self, ticket: int) -> bool:
        """Return True if a sync that began after the ticket was taken has succeeded."""
        return self._synced_ticket >= ticket

    def pause(self) -> None:
        """Schedule no task until `resume`."""
        self.state = "stopped"

    def resume(self) -> None:
        """Sync at once after a pause, a rejected token, or a failure."""
        if not self.is_over and self.state in ("stopped", "needs_auth", "offline"):
            self.state = "connecting"
            self._connected = False
            self._sync_is_due = True
            self._failures = 0
            self.due = None

    def end(self) -> None:
        """End the session."""
        self.is_over = True
        self.state = "stopped"


def _is_retryable(error: Exception) -> bool:
    """Return True for errors of the network and of the server, except that it is another server."""
    if not isinstance(error, LevelError):
        return False
    return isinstance(error, NotOpenError) or (isinstance(error, SyncError) and error.code != "LEVEL_STORE_MISMATCH")
