"""The events of a live session on their way to those who listen, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from .. import events as public
from ..engine import clock
from ..errors import Refused
from ..events import MAX_KEYS, Event, LiveState
from ..locks import RecursiveLock
from ..types import Conflict
from ..weak_registry import WeakRegistry
from .messages import Request
from .reply_handler import ReplyOutcome

#: Events that wait for a listener. Beyond them, events of a kind become one; of conflicts the
#: oldest are dropped: they are in the journal.
MAX_EVENTS: Final = 1000
#: Refused changes that one waiting call names.
_MAX_REFUSED: Final = 100


class EventQueue:
    """The events that a listener has yet to take.

    Attributes:
        wake: Called after each event, from any thread. It returns quickly and raises nothing.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._lock = RecursiveLock()
        self.wake: Callable[[], None] = _do_nothing

    def put(self, event: Event) -> None:
        """Append an event, and wake the listener."""
        with self._lock:
            if len(self._events) >= MAX_EVENTS:
                event = self._merged(event)
            self._events.append(event)
        self.wake()

    def _merged(self, event: Event) -> Event:
        """Remove an earlier event, and return one that stands for both."""
        earlier = next((other for other in reversed(self._events) if type(other) is type(event)), self._events[0])
        self._events.remove(earlier)
        match earlier, event:
            case public.Pulled(), public.Pulled():
                return public.Pulled(earlier.count + event.count, (earlier.keys + event.keys)[:MAX_KEYS])
            case public.Pushed(), public.Pushed():
                return public.Pushed((earlier.keys + event.keys)[:MAX_KEYS], earlier.count + event.count)
            case public.StateChanged(), public.StateChanged():
                return public.StateChanged(earlier.old, event.new)
        return event

    def take(self) -> Event | None:
        """Remove and return the oldest event; ``None`` if there is none."""
        with self._lock:
            return self._events.popleft() if self._events else None


class PushWait:
    """A call that waits until its local changes are pushed.

    Attributes:
        refused: The changes that were refused meanwhile.
    """

    def __init__(self) -> None:
        self.refused: list[Conflict] = []

    def raise_if_refused(self) -> None:
        """Raise Refused if changes were refused.

        Raises:
            Refused: The server has refused changes; it names their keys.
        """
        if self.refused:
            keys = [conflict.key for conflict in self.refused]
            reason = self.refused[0].reason or "the server refuses the change"
            raise Refused(f"{reason} ({', '.join(map(repr, keys[:3]))}{', …' if len(keys) > 3 else ''})", keys)


class SessionEvents:
    """Tells the listeners of one live session its events.

    Attributes:
        is_over: True once there are no more events.
        synced_ms: The time at which both sides were drained last in this session.
    """

    def __init__(self) -> None:
        self._queues: WeakRegistry[EventQueue] = WeakRegistry()
        self._waits: WeakRegistry[PushWait] = WeakRegistry()
        self.is_over = False
        self.synced_ms: int | None = None

    def listen(self) -> EventQueue:
        """Return a queue for the later events. It is served until it is collected."""
        queue = EventQueue()
        self._queues.add(queue)
        return queue

    def wait_for_push(self) -> PushWait:
        """Return a wait that collects the refused changes until it is collected itself."""
        wait = PushWait()
        self._waits.add(wait)
        return wait

    def emit(self, event: Event) -> None:
        """Tell the listeners an event."""
        for queue in self._queues.alive():
            queue.put(event)

    def end(self) -> None:
        """Tell the listeners that there are no more events."""
        self.is_over = True
        for queue in self._queues.alive():
            queue.wake()

    def on_state(self, old: LiveState, new: LiveState) -> None:
        """Tell of another state."""
        self.emit(public.StateChanged(old, new))

    def on_synced(self) -> None:
        """Tell that both sides were drained."""
        self.synced_ms = clock.now()
        self.emit(public.Synced())

    def on_outcome(self, request: Request, outcome: ReplyOutcome) -> None:
        """Tell of the effects of a reply."""
        if outcome.conflicts:
            refused = [conflict for conflict in outcome.conflicts if conflict.kind == "refused"]
            for wait in self._waits.alive():
                wait.refused += refused[: _MAX_REFUSED - len(wait.refused)]
        if not len(self._queues):
            return
        if count := outcome.pulled + outcome.filled:
            self.emit(public.Pulled(count, tuple(key.decode() for key in outcome.pulled_keys)))
        if outcome.pushed:
            undone = {*outcome.rejected, *outcome.refused}
            keys = (key for key in request.keys if key not in undone)
            self.emit(public.Pushed(tuple(islice(keys, MAX_KEYS)), outcome.pushed))
        for conflict in outcome.conflicts:
            kind = public.Refused if conflict.kind == "refused" else public.Conflicted
            self.emit(kind(conflict))


def _do_nothing() -> None:
    pass
