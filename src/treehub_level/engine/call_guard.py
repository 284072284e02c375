"""Counts the calls that are inside something, so that whoever closes it can wait until the last has left."""

from __future__ import annotations

import time
from collections import deque
from threading import get_ident
from types import TracebackType

from ..errors import NotOpenError, StateError

_POLL_SECONDS = 0.0005


class CallGuard:
    """Open: calls enter and leave. Shut: nobody enters, and ``shut()`` returns when all have left.

    ``deque.append`` and ``remove`` are atomic, so entering costs no lock: this stands in front of every read.

    Args:
        what: What it guards, for messages: "the level", "the snapshot".
    """

    __slots__ = ("_inside", "_open", "_what", "why_not")

    def __init__(self, what: str) -> None:
        self._what = what
        self._inside: deque[int] = deque()
        self._open = False
        #: Why it is shut for good; empty if it is not.
        self.why_not = ""

    def __enter__(self) -> None:
        # The token goes in before the look: whoever shuts the gate either sees it or is seen.
        self._inside.append(get_ident())
        if not self._open:
            self._inside.remove(get_ident())
            raise NotOpenError(f"{self._what} is not open{self.why_not}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inside.remove(get_ident())

    @property
    def is_open(self) -> bool:
        """Whether calls are let in."""
        return self._open

    def open(self) -> None:
        """Let calls in."""
        self._open = True

    def abandon(self, why_not: str) -> None:
        """Let no call in any more, ever, without waiting for those inside: their threads are another process's."""
        self._open = False
        self.why_not = why_not

    def refuse_caller_inside(self) -> None:
        """Raise StateError if this very thread is inside: waiting for it to leave would be for ever."""
        if get_ident() in self._inside:
            raise StateError(f"{self._what} cannot be closed from within one of its own calls (a filter, say)")

    def shut(self) -> None:
        """Let no call in any more, and wait for those inside. Waiting twice is harmless."""
        self._open = False
        while self._inside:
            time.sleep(_POLL_SECONDS)
