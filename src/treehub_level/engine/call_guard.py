"""`CallGuard`: counts the calls in flight, so that closing can wait for the last of them."""

from __future__ import annotations

import time
from collections import deque
from threading import get_ident
from types import TracebackType

from ..errors import NotOpenError, StateError

_POLL_SECONDS = 0.0005


class CallGuard:
    """A gate for calls: a ``with`` block is one call in flight, and `shut` waits for all of them.

    Entering takes no lock, since every read enters: ``deque.append`` and ``deque.remove`` are
    atomic.

    Args:
        subject: The guarded object in error messages: "the level", "the snapshot".

    Attributes:
        is_open: True while calls may enter.
        closed_reason: The reason for being closed for good, appended to error messages; else empty.
    """

    __slots__ = ("_in_flight", "_subject", "closed_reason", "is_open")

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._in_flight: deque[int] = deque()
        self.is_open = False
        self.closed_reason = ""

    def __enter__(self) -> None:
        # Register before checking `is_open`, or `shut()` could miss this call.
        self._in_flight.append(get_ident())
        if not self.is_open:
            self._in_flight.remove(get_ident())
            raise NotOpenError(f"{self._subject} is not open{self.closed_reason}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_flight.remove(get_ident())

    def open(self) -> None:
        """Let calls enter."""
        self.is_open = True

    def shut(self) -> None:
        """Refuse new calls, and wait for those in flight. Calling it again is harmless."""
        self.is_open = False
        while self._in_flight:
            time.sleep(_POLL_SECONDS)

    def disable(self, reason: str) -> None:
        """Refuse all calls for good, without waiting for those in flight.

        A forked process calls it: the threads of the calls in flight belong to its parent.
        """
        self.is_open = False
        self.closed_reason = reason

    def raise_if_inside(self) -> None:
        """Raise StateError if the calling thread has a call in flight: `shut` would not return."""
        if get_ident() in self._in_flight:
            raise StateError(f"{self._subject} cannot be closed from within one of its own calls (a filter, say)")
