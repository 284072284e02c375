"""What a live session does next: a state machine without I/O, threads or clock.

The caller asks `LiveSchedule.next` what to do, does it, and reports the outcome. Times are seconds of a monotonic clock
and are passed in.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import Literal

from ..errors import ForbiddenError, LevelError, NotOpenError, SyncError, TransportError

State = Literal["offline", "connecting", "idle", "busy", "needs_auth", "stopped"]

#: The longest pause between two tries, in seconds, unless the server asks for more.
MAX_BACKOFF = 60.0
_FIRST_BACKOFF = 0.5


def backoff(failures: int, retry_after: float | None, rng: Callable[[], float]) -> float:
    """Seconds to wait after so many failures in a row: exponential, with full jitter, so that clients spread out.

    Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

    Args:
        failures: How many there were, at least one.
        retry_after: What the server asked for, to which the jitter is added.
        rng: Draws a number from 0 to 1.
    """
    ceiling = min(MAX_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 16))
    return (retry_after or 0) + ceiling * rng()


class Task(enum.Enum):
    """What to do next."""

    #: Pull and push until both sides are drained. Then `LiveSchedule.synced`, or `LiveSchedule.failed`.
    SYNC = "sync"
    #: Long-poll the server for changes. Then `LiveSchedule.polled`, or `LiveSchedule.failed`.
    POLL = "poll"
    #: Nothing before the time of `LiveSchedule.due`, or before something happens.
    REST = "rest"
    #: Leave: the session is over.
    END = "end"


class PollResult(enum.Enum):
    """What came of a question for news."""

    #: Nothing.
    NONE = "none"
    #: Something that was taken, or that the client knows already.
    TAKEN = "taken"
    #: Something that only a synchronisation can settle.
    MORE = "more"


class LiveSchedule:
    """Decides when a live session synchronises, when it asks for news, and how long it rests after a failure.

    It pulls before it trusts anything: after each failure, pause or start the first thing is a whole synchronisation.

    Args:
        interval: Seconds between two looks at a server that cannot keep a question waiting.
        can_wait: Whether this one can.
        rng: Draws a number from 0 to 1, for jitter.

    Attributes:
        state: What the session is doing.
        last_error: What went wrong last; ``None`` once all is well again.
        due: When to look again if nothing happens before; ``None`` for never.
        is_over: Whether the session has ended, for good.
    """

    def __init__(self, *, interval: float, can_wait: bool, rng: Callable[[], float] = random.random) -> None:
        self._interval = interval
        self._can_wait = can_wait
        self._rng = rng
        self._failures = 0
        self._hasty = 0
        self._connected = False
        self._wanted = True
        self._asked = 0
        self._serving = 0
        self._served = 0
        self.state: State = "connecting"
        self.last_error: Exception | None = None
        self.due: float | None = None
        self.is_over = False

    def next(self, now: float) -> Task:
        """What to do now. `due` is of use after ``REST``."""
        if self.is_over:
            return Task.END
        if self.state in ("stopped", "needs_auth"):
            self.due = None
            return Task.REST
        if self.due is not None and now < self.due and (self.state == "offline" or not self._wanted):
            return Task.REST
        self.due = None
        if self._wanted or not self._connected or not self._can_wait:
            self._wanted = False
            self._serving = self._asked
            self.state = "busy" if self._connected else "connecting"
            return Task.SYNC
        return Task.POLL

    # ------------------------------------------------------------------------------------- what came of it

    def replied(self) -> None:
        """The server has replied, and the synchronisation goes on."""
        if self.state == "connecting":
            self.state = "busy"

    def synced(self, now: float, error: TransportError | ForbiddenError | None = None) -> None:
        """Both sides are drained, but for what ``error`` says cannot be sent."""
        if self.state in ("stopped", "needs_auth"):
            return
        self.state = "idle"
        self.last_error = error
        self._failures = 0
        self._connected = True
        self._served = self._serving
        if not self._can_wait:
            self.due = now + self._interval

    def polled(self, news: PollResult, now: float, *, elapsed: float, wait: float) -> None:
        """The server has answered the question for news.

        Args:
            news: What it has brought.
            now: The time.
            elapsed: Seconds that the answer took.
            wait: Seconds that it might have taken.
        """
        self._wanted = self._wanted or news is PollResult.MORE
        if news is PollResult.NONE and elapsed < wait / 2:
            # It has nothing to say, and does not wait, or is about to close: asking at once would be a busy loop.
            self._hasty += 1
            self.due = now + min(self._interval, backoff(self._hasty, None, lambda: 1.0))
        else:
            self._hasty = 0

    def failed(self, error: Exception, now: float) -> None:
        """A synchronisation, or a question for news, failed."""
        if self.state == "stopped":
            return
        self.last_error = error
        self._connected = False
        self._failures += 1
        if isinstance(error, TransportError) and error.status == 401:
            self.state = "needs_auth"
        elif _may_pass(error):
            self.state = "offline"
            retry_after = error.retry_after if isinstance(error, TransportError) else None
            self.due = now + backoff(self._failures, retry_after, self._rng)
        else:
            self.end()
            self.last_error = error

    # ---------------------------------------------------------------------------------------- what happens

    def want(self) -> None:
        """There is something to push."""
        self._wanted = True

    def ask(self) -> int:
        """Somebody wants to know when both sides are in sync. Returns a ticket for `is_served`."""
        self._asked += 1
        self._wanted = True
        return self._asked

    def is_served(self, ticket: int) -> bool:
        """Whether a synchronisation that began after the ticket was drawn has succeeded."""
        return self._served >= ticket

    def pause(self) -> None:
        """Do nothing until `resume`."""
        self.state = "stopped"

    def resume(self) -> None:
        """Go on at once, after a pause, a refused token, or a failure."""
        if not self.is_over and self.state in ("stopped", "needs_auth", "offline"):
            self.state = "connecting"
            self._connected = False
            self._wanted = True
            self._failures = 0
            self.due = None

    def end(self) -> None:
        """The session is over."""
        self.is_over = True
        self.state = "stopped"


def _may_pass(error: Exception) -> bool:
    """Whether trying again later may help: for all that concerns the network and the server, but for another server."""
    if not isinstance(error, LevelError):
        return False
    return isinstance(error, NotOpenError) or (isinstance(error, SyncError) and error.code != "LEVEL_STORE_MISMATCH")
