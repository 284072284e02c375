"""Locks that an interrupt cannot leave taken, and that a thread cannot wait for in vain.

CPython runs a signal handler between two bytecodes of the main thread, and the handler may raise:
that of SIGINT raises KeyboardInterrupt. It does so after a call, at a jump backwards, and at the
start of a Python function (``CHECK_EVAL_BREAKER`` in ``Python/ceval.c``, 3.10 to 3.13). A ``with``
statement over a lock that is implemented in C has no such place between acquiring the lock and the
protected block, nor between the end of the block and the release. ``lock.acquire()`` before a
``try`` has one, and so have ``threading.Condition``, ``threading.Event`` and every
``@contextmanager``, whose ``__enter__`` is Python. So this package takes its locks by ``with``
alone, and waits with `WakeUp` instead of an event.
"""

from __future__ import annotations

from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final

from .errors import StateError

if TYPE_CHECKING:

    class RLock:
        """The class in C. typeshed declares it final, and lacks a method."""

        acquire: Callable[..., bool]
        release: Callable[[], None]

        def _is_owned(self) -> bool: ...
        def __enter__(self) -> bool: ...
        def __exit__(self, *exception: object) -> None: ...
else:
    from _thread import RLock

#: The argument of ``acquire`` for a lock that is taken only if it is free.
WITHOUT_WAITING: Final = (False,)


class RecursiveLock(RLock):
    """The recursive lock of ``threading``, with the method that ``threading.Condition`` uses."""

    __slots__ = ()

    #: Return True if the calling thread holds the lock.
    is_owned = RLock._is_owned


class ErrorCheckingLock(RecursiveLock):
    """A mutex that its owner cannot lock twice, as POSIX has it: ``PTHREAD_MUTEX_ERRORCHECK``.

    Usage: ``with lock.entry(): …``. The methods of the recursive lock are in C, and record the
    owner in the step that acquires.

    Args:
        action: The use of the lock, as an infinitive for the error message: "write to 'notes'".
    """

    __slots__ = ("_action",)

    def __new__(cls, action: str) -> ErrorCheckingLock:
        """Make the recursive lock, which takes no argument."""
        return super().__new__(cls)

    def __init__(self, action: str) -> None:
        self._action = action

    def entry(self) -> ErrorCheckingLock:
        """Return the lock, to be taken by a ``with`` statement.

        Raises:
            StateError: The calling thread holds the lock: it would wait for itself.
        """
        if self.is_owned():
            raise StateError(
                f"cannot {self._action} here: this thread is doing that already, and would wait for itself. A signal "
                "handler or a callback has called in the middle of that call: let it return first, or use a thread"
            )
        return self


def start_thread(name: str, target: Callable[[], object]) -> None:
    """Start a daemon thread by one call into C.

    ``Thread.start`` waits for a ``threading.Event``. Here another thread does that.
    """
    start_new_thread(_start, (name, target))


def _start(name: str, target: Callable[[], object]) -> None:
    Thread(target=target, name=name, daemon=True).start()


class WakeUp:
    """An event for one waiting thread. Signal handlers and finalizers may set it.

    ``threading.Event`` has a lock, which a signal handler finds taken if it interrupts a wait. The
    ``put`` of a ``SimpleQueue`` is documented as reentrant.
    """

    def __init__(self) -> None:
        self._signals: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """End the current wait, or the next one."""
        if self._signals.empty():
            self._signals.put(None)

    def clear(self) -> None:
        """Forget earlier calls of `set`."""
        with suppress(Empty):
            while True:
                self._signals.get_nowait()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for `set`, and return True if it was called in time. It stays set.

        Args:
            seconds: The timeout; ``None`` for no limit.
        """
        timeout = None if seconds is None else max(0, seconds)
        take, put = self._signals.get, self._signals.put
        try:
            # One call into C takes a signal and puts it back: an interrupt does not lose it.
            deque(map(put, map(take, (True,), (timeout,))))
        except Empty:
            return False
        return True
