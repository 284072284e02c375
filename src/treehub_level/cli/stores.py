"""Which store a command means, and in which mode it opens it."""

from __future__ import annotations

import typer

from .. import _core
from ..backends import create
from ..blocking import Level, stored_mode
from ..types import Mode
from .errors import CommandError


def level_at(name: str, *, mode: Mode | None, backend: str, prefix: str, fresh: Mode | None = None) -> Level:
    """A level, not open yet, in the mode that was asked for, or else in the one that its store was made in.

    Args:
        name: The store.
        mode: The mode asked for, if one was.
        backend: The registered name of the backend.
        prefix: The prefix of the store's metadata.
        fresh: The mode of a store that is made here; ``None`` if this command never makes one, so
            that a mistyped path is an error and not a new store.

    Raises:
        CommandError: There is no store, and the command does not make one.
        typer.BadParameter: A prefix that cannot be one.
        LevelError: The store cannot be looked at.
    """
    found = found_mode(name, backend=backend, prefix=prefix)
    if found is None and fresh is None:
        raise no_store(name, backend=backend, hint=": `put` and `load` make one")
    return Level(name, backend=backend, mode=mode or found or fresh or Mode.NORMAL, prefix=prefix)


def found_mode(name: str, *, backend: str, prefix: str) -> Mode | None:
    """The mode of the store, or ``None`` if there is none.

    Raises:
        typer.BadParameter: A prefix that cannot be one.
        LevelError: The store cannot be looked at.
    """
    check_prefix(prefix)
    return stored_mode(name, backend=backend, prefix=prefix)


def shown(name: str, *, backend: str) -> str:
    """The name of a store as it may be printed: a URL as it was given may hold a password.

    Raises:
        LevelError: The backend has no such stores.
    """
    return create(backend, name, {}).name


def no_store(name: str, *, backend: str, hint: str = "") -> CommandError:
    """The error of a command that does not make stores."""
    return CommandError(f"there is no store at {shown(name, backend=backend)}{hint}", code="CLI_NO_STORE")


def check_prefix(prefix: str) -> None:
    """Refuse what cannot be the prefix of a store's metadata.

    Raises:
        typer.BadParameter: A prefix that cannot be one.
    """
    try:
        _core.KeySpace(prefix)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--metadata-prefix") from error
