"""``sync --live``: a client that is kept in sync by a service, until the process is stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from types import FrameType
from typing import Any, Final

from ..blocking import Level
from ..blocking.client import Exchanger
from ..blocking.live import LiveSession
from ..engine.clock import utc_text
from ..errors import LevelError, StateError
from ..events import Conflicted, Event, Failed, Pulled, Pushed, Refused, StateChanged, Synced
from ..locks import WakeUp, start_thread
from .errors import CommandError
from .output import conflict_document, conflict_fields, print_json, print_line
from .streams import flush_stdout

#: Seconds after which a rejected token is tried again: the file of the token may have changed.
AUTH_RETRY_SECONDS: Final = 60.0


class _SignalledError(Exception):
    """A signal asks the process to stop."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Leave the block without an error at SIGTERM or SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _SignalledError

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with suppress(_SignalledError):
            yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def keep_in_sync(client: Level, server: Exchanger, *, on_reset: Any, as_json: bool) -> None:
    """Keep a client in sync, and print its events, until the process is stopped.

    The session waits for a server that is away, with growing pauses, and tries a rejected token
    again each minute.

    Raises:
        CommandError: The session cannot go on.
    """
    print_event = _print_document if as_json else _Lines().print
    with client.live(server, on_reset=on_reset) as session:
        for event in session.events():
            print_event(event)
            flush_stdout()
            if isinstance(event, StateChanged) and event.new == "needs_auth":
                _retry_later(session)
        error = session.last_error
    if isinstance(error, LevelError):
        raise CommandError(f"{error}; the live session cannot go on", code=error.code) from error
    if error is not None:
        raise error


def _retry_later(session: LiveSession) -> None:
    def retry() -> None:
        WakeUp().wait(AUTH_RETRY_SECONDS)
        with suppress(StateError):  # it is over
            if session.state == "needs_auth":
                session.resume()

    start_thread("treehub-level retry of a token", retry)


class _Lines:
    """Prints a line for each change of state that an administrator cares for."""

    def __init__(self) -> None:
        self._shown = ""
        self._reason = ""

    def print(self, event: Event) -> None:
        """Print an event, unless it says nothing new."""
        match event:
            case Failed(error):
                self._reason = str(error)
                if self._shown in ("offline", "needs_auth"):  # the reason may have changed, the state has not
                    return
            case Synced():
                self._show("in sync")
            case StateChanged(_, "offline" | "needs_auth" as new):
                self._show(new, self._reason)
            case Conflicted(conflict) | Refused(conflict):
                print_line(_now(), type(event).__name__.lower(), *conflict_fields(conflict))

    def _show(self, state: str, *details: str) -> None:
        if state != self._shown:
            self._shown = state
            print_line(_now(), state, *details)


def _print_document(event: Event) -> None:
    print_json({"at": _now(), **_document_of(event)})


def _document_of(event: Event) -> dict[str, object]:
    """Return an event as a JSON object."""
    match event:
        case StateChanged(old, new):
            return {"event": "state", "old": old, "new": new}
        case Pulled(count, keys):
            return {"event": "pulled", "count": count, "keys": keys}
        case Pushed(keys, count):
            return {"event": "pushed", "count": count, "keys": keys}
        case Conflicted(conflict) | Refused(conflict):
            return {"event": type(event).__name__.lower(), "conflict": conflict_document(conflict)}
        case Failed(error):
            code = error.code if isinstance(error, LevelError) else type(error).__name__
            return {"event": "failed", "code": code, "message": str(error)}
    return {"event": "synced"}


def _now() -> str:
    return utc_text(datetime.now(timezone.utc))
