"""`CallGuard`: the calls in flight, so that closing can wait for the last of them."""

from __future__ import annotations

import threading

from ..errors import StateError
from ..locks import RecursiveLock
from ..weak_registry import WeakRegistry


class ThreadLock(threading.local):
    """The lock of each thread that calls: another one in each thread, made at its first use.

    Attributes:
        lock: The lock of the calling thread. It is freed with the thread.
    """

    def __init__(self, locks: WeakRegistry[RecursiveLock]) -> None:
        self.lock = RecursiveLock()
        locks.add(self.lock)


class CallGuard:
    """A gate for calls, which `shut` waits for.

    A call holds the lock of its own thread, and `shut` takes the lock of each thread in turn: a
    big-reader lock. Nothing has to be counted, so that nothing is left over when an interrupt ends
    a call; and calls do not wait for each other. A call looks at `is_open` once it is inside, or
    `shut` could miss it::

        with guard.thread.lock:
            if not guard.is_open:
                raise …

    Args:
        subject: The guarded object in error messages: "the level", "the snapshot".

    Attributes:
        is_open: True while calls may enter.
        closed_reason: The reason for being closed for good, appended to error messages; else empty.
        thread: Has the lock of the calling thread.
    """

    __slots__ = ("_locks", "_subject", "closed_reason", "is_open", "thread")

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._locks: WeakRegistry[RecursiveLock] = WeakRegistry()
        self.thread = ThreadLock(self._locks)
        self.is_open = False
        self.closed_reason = ""

    def open(self) -> None:
        """Let calls enter."""
        self.is_open = True

    def shut(self) -> None:
        """Refuse new calls, and wait for those in flight. Calling it again is harmless."""
        self.is_open = False
        for lock in self._locks.alive():
            with lock:
                pass

    def disable(self, reason: str) -> None:
        """Refuse all calls for good, without waiting for those in flight.

        A forked process calls it: the threads of the calls in flight belong to its parent.
        """
        self.is_open = False
        self.closed_reason = reason

    def raise_if_inside(self, verb: str = "closed") -> None:
        """Raise StateError if the calling thread has a call in flight: `shut` would not return."""
        if self.thread.lock.is_owned():
            raise StateError(f"{self._subject} cannot be {verb} from within one of its own calls (a filter, say)")
