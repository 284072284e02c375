"""What the live sessions of both façades share: their options, and the errors that end a wait."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from ..errors import LevelError, StateError, TransportError
from .schedule import LiveSchedule

#: Seconds that a server is asked to keep a question for news waiting: less than proxies let a connection rest.
WAIT: Final = 25.0


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


def session_is_over(schedule: LiveSchedule) -> StateError:
    """What whoever still asks something of a session is told."""
    error = StateError(f"the live session is over: {schedule.last_error or 'it was left, or its level was closed'}")
    error.__cause__ = schedule.last_error
    return error


def not_in_sync(within: float | None, schedule: LiveSchedule) -> TransportError:
    """What whoever has waited long enough is told."""
    reason = f": {schedule.last_error}" if isinstance(schedule.last_error, LevelError) else ""
    error = TransportError(f"not in sync after {within} seconds, the session is {schedule.state}{reason}")
    error.__cause__ = schedule.last_error
    return error
