"""The store that a command names, and the mode to open it in."""

from __future__ import annotations

import typer

from .. import _core
from ..backends import create
from ..blocking import Level, stored_mode
from ..types import Mode
from .errors import CommandError


def prepare_level(name: str, *, mode: Mode | None, backend: str, prefix: str, create_as: Mode | None = None) -> Level:
    """Return a level that is not open yet. Its mode is ``mode``, else the mode of its store.

    Args:
        name: The store.
        mode: The value of the option ``--mode``, if given.
        backend: The registered name of the backend.
        prefix: The prefix of the store's metadata.
        create_as: The mode of a store that the command creates. ``None`` if the command never
            creates a store: a mistyped path is an error then, not a new store.

    Raises:
        CommandError: The store does not exist, and ``create_as`` is ``None``.
        typer.BadParameter: ``prefix`` is invalid.
        LevelError: The store cannot be read.
    """
    found = mode_of_store(name, backend=backend, prefix=prefix)
    if found is None and create_as is None:
        raise no_store_error(name, backend=backend, hint=": create it with `put` or `load`")
    return Level(name, backend=backend, mode=mode or found or create_as or Mode.NORMAL, prefix=prefix)


def mode_of_store(name: str, *, backend: str, prefix: str) -> Mode | None:
    """Return the mode of a store, or ``None`` if the store does not exist.

    Raises:
        typer.BadParameter: ``prefix`` is invalid.
        LevelError: The store cannot be read.
    """
    check_prefix(prefix)
    return stored_mode(name, backend=backend, prefix=prefix)


def display_name(name: str, *, backend: str) -> str:
    """Return the name of a store for output. The password in a URL is left out.

    Raises:
        LevelError: The backend is unknown, or cannot have a store of that name.
    """
    return create(backend, name, {}).name


def no_store_error(name: str, *, backend: str, hint: str = "") -> CommandError:
    """Return the error of a command that needs an existing store."""
    return CommandError(f"there is no store at {display_name(name, backend=backend)}{hint}", code="CLI_NO_STORE")


def check_prefix(prefix: str) -> None:
    """Raise an error if ``prefix`` cannot be the prefix of a store's metadata.

    Raises:
        typer.BadParameter: ``prefix`` is invalid; the message says why.
    """
    try:
        _core.KeySpace(prefix)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--metadata-prefix") from error
