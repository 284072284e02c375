"""Watching without ``await``: an iterator over changes, and callbacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ..engine.namespace import Namespace
from ..engine.watch import LogWatch, StateWatch, Watch
from ..engine.watched_range import WatchedRange
from ..errors import LevelError, StateError
from ..locks import WITHOUT_WAITING, ErrorCheckingLock, WakeUp, start_thread
from ..replication.endpoint import watch_start
from ..types import Change, KeyRange, Mode

logger = logging.getLogger("treehub_level")

#: The callback of `on_change`.
ChangeCallback = Callable[[Change], object]
#: Ends a subscription. Calling it again is harmless.
Unsubscribe = Callable[[], None]

#: Seconds that the thread for other processes leaves to a writer of this process, which delivers
#: its changes itself.
_GRACE: Final = 0.05


def open_watch(
    namespace: Namespace,
    bounds: KeyRange,
    *,
    since: int | None = None,
    initial: bool = False,
    prefixes: Iterable[str] | None = None,
) -> Watch:
    """Start a watch: see ``watch()``.

    Raises:
        NotOpenError, StateError, TypeError, ValueError, InvalidKeyError, CIDMismatchError: See
            there.
    """
    store, codec = namespace.store, namespace.codec
    store.require_open()
    if not isinstance(initial, bool):
        raise TypeError(f"initial is True or False, not {initial!r:.80}")
    watched = WatchedRange.of(codec, bounds, prefixes)
    if store.mode is not Mode.SERVER:
        if since is not None:
            raise StateError(
                f"watch(since=) needs the change log of a server, and this level is open in {store.mode.name} mode: "
                "use initial=True to begin with the present state"
            )
        return StateWatch(store, watched, is_initial=initial)
    if initial and since is not None:
        raise ValueError("give since= or initial=True, not both")
    start = 0 if initial else watch_start(store, since)
    return LogWatch(store, watched, since=start, is_initial=initial)


class WatchTimeout:
    """The time that one step of a watch may wait for a change.

    Args:
        seconds: The timeout; ``None`` for none.

    Raises:
        TypeError, ValueError: It is no number of seconds.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None:
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise TypeError(f"timeout is a number of seconds or None, not {seconds!r:.80}")
            if not seconds >= 0:
                raise ValueError(f"timeout is 0 or more seconds, not {seconds!r:.80}")
        self._seconds = None if seconds == float("inf") else seconds

    def deadline(self) -> float | None:
        """Return the time at which a step that begins now gives up; ``None`` for never."""
        return None if self._seconds is None else time.monotonic() + self._seconds


def seconds_to_wait(watch: Watch, deadline: float | None) -> float | None:
    """Return the seconds to wait for a signal before the next `Watch.fill`; ``None`` for ever."""
    left = watch.seconds_left()
    if deadline is None:
        return left
    until = max(0.0, deadline - time.monotonic())
    return until if left is None else min(left, until)


class ChangesOfWatch:
    """The properties of an iterator over the changes of a watch.

    Args:
        watch: The watch.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._is_closed = False
        #: The CID when the iterator was closed, which forgets the changes that are left.
        self._last_cid: int | None = None

    @property
    def cid(self) -> int | None:
        """The CID up to which changes of a server were yielded, for a later ``watch(since=cid)``.

        ``None`` in the other modes, and until the present state of ``initial=True`` was yielded.
        """
        if self._is_closed:
            return self._last_cid
        for change in self._watch.buffer:
            return None if change.cid is None else change.cid - 1
        return self._watch.cid

    @property
    def has_ended(self) -> bool:
        """True once the watch is over: it was closed, or its level. A timeout does not end it."""
        return self._watch.has_ended

    def _close(self) -> None:
        """End the watch. Closing it again is harmless."""
        self._last_cid, self._is_closed = self.cid, True
        self._watch.close()
        self._watch.buffer.clear()


class ChangeIterator(ChangesOfWatch, Iterator[Change]):
    """The changes of a watch. Made by ``watch()``.

    Leaving the loop ends the watch, and so does `close`. An iterator that is kept goes on where it
    stopped: also if its loop has ended by the timeout.
    """

    def __init__(self, watch: Watch, timeout: float | None = None) -> None:
        self._timeout = WatchTimeout(timeout)
        super().__init__(watch)
        self._woken = WakeUp()
        watch.wake = self._woken.set

    def __iter__(self) -> ChangeIterator:
        return self

    def __next__(self) -> Change:
        watch = self._watch
        deadline = None if watch.buffer else self._timeout.deadline()
        while not watch.buffer:
            self._woken.clear()
            if not watch.fill():
                raise StopIteration
            if not (watch.buffer or watch.has_more):
                if deadline is not None and time.monotonic() >= deadline:
                    raise StopIteration
                self._woken.wait(seconds_to_wait(watch, deadline))
        return watch.buffer.popleft()

    def close(self) -> None:
        """End the watch. Closing it again is harmless."""
        self._close()

    def __enter__(self) -> ChangeIterator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ChangeSubscription:
    """A callback for the changes of a watch. Made by ``on_change()``.

    The writers of this process call it, one at a time, each after its write and without any lock.
    For commits of other processes there is a thread.

    Args:
        namespace: The level or sublevel.
        watch: The watch.
        callback: The callback.
    """

    def __init__(self, namespace: Namespace, watch: Watch, callback: ChangeCallback) -> None:
        self._watch = watch
        self._callback = callback
        self._lock = ErrorCheckingLock("deliver changes")
        self._is_due = False
        self._is_over = False
        self._woken = WakeUp()
        self._grace = WakeUp()
        self._feed = watch.feed
        self._feed.deliver[self.deliver] = None
        if namespace.store.backend.supports.shared:
            watch.wake = self._woken.set
            start_thread("treehub-level-changes", self._run)

    def unsubscribe(self) -> None:
        """End the subscription. A callback that another thread runs at the moment may end later."""
        self._is_over = True
        self._feed.deliver.pop(self.deliver, None)
        self._watch.close()
        self._woken.set()
        self._grace.set()

    def deliver(self) -> None:
        """Call the callback for the changes so far, unless a thread is doing that already."""
        self._is_due = True
        while self._is_due and not self._lock.is_owned():
            taken: list[bool] = []
            try:
                taken.extend(map(self._lock.acquire, WITHOUT_WAITING))  # see `Store._commit_alone`
                if not taken[0]:
                    return  # that thread looks at `_is_due` once more after it has released the lock
                self._is_due = False
                self._deliver_all()
            finally:
                if True in taken:
                    self._lock.release()

    def _deliver_all(self) -> None:
        watch = self._watch
        while not self._is_over:
            if watch.buffer:
                call_back(self._callback, watch.buffer.popleft())
                continue
            try:
                is_open = watch.fill()
            except LevelError as error:
                logger.error("the subscription to changes ends, since they cannot be read: %s", error)
                is_open = False
            if not is_open:
                self.unsubscribe()
            elif not (watch.buffer or watch.has_more):
                return

    def _run(self) -> None:
        """Deliver the changes of other processes until the subscription ends."""
        while not self._is_over:
            self._woken.wait(self._watch.seconds_left())
            self._woken.clear()
            self._grace.wait(_GRACE)
            self.deliver()


def call_back(callback: Callable[[Change], Any], change: Change) -> Any:
    """Call a callback, and return its result. Log an exception together with the key."""
    try:
        return callback(change)
    except Exception:
        log_failure(change)
    return None


def log_failure(change: Change) -> None:
    """Log the exception that a callback has raised."""
    logger.exception("a callback of on_change() raised an exception for the key %.200r", change.key)
