"""The events of a live session: see ``LiveSession.events()``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from .types import Conflict

#: The state of a live session.
LiveState = Literal["offline", "connecting", "idle", "busy", "standby", "needs_auth", "stopped"]

#: The most keys that an event names.
MAX_KEYS: Final = 1000


@dataclass(frozen=True, slots=True)
class Synced:
    """Both sides were drained: nothing is left to pull or to push."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """Changes of the server were written here.

    Attributes:
        count: The number of changes, and of entries of a fill.
        keys: The first of their keys, at most `MAX_KEYS`.
    """

    count: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pushed:
    """The server has accepted local changes.

    Attributes:
        keys: The first of their keys, at most `MAX_KEYS`.
        count: The number of changes.
    """

    keys: tuple[str, ...]
    count: int = 0


@dataclass(frozen=True, slots=True)
class Conflicted:
    """A local change has lost to the server's, and is in the journal.

    Attributes:
        conflict: The entry of the journal.
    """

    conflict: Conflict


@dataclass(frozen=True, slots=True)
class Refused:
    """The rules of the server, or the rights of the token, have refused a local change.

    Attributes:
        conflict: The entry of the journal, with the reason.
    """

    conflict: Conflict


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state of the session has changed.

    Attributes:
        old: The state before.
        new: The present state: see ``LiveSession.state``.
    """

    old: LiveState
    new: LiveState


@dataclass(frozen=True, slots=True)
class Failed:
    """An exchange has failed, or was impossible for some changes, which ``error.keys`` names.

    Attributes:
        error: The error.
    """

    error: Exception


#: An event of a live session.
Event = Synced | Pulled | Pushed | Conflicted | Refused | StateChanged | Failed
