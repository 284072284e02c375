"""The store that a command names, and the mode to open it in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from .. import _core
from ..backends import create
from ..blocking import Level, Snapshot, stored_mode
from ..blocking.level import close_and_remove_unused
from ..types import Mode
from .errors import CommandError


def readable_level(name: str, *, mode: Mode | None = None, backend: str, prefix: str) -> Level:
    """Return a level for a command that only reads, not open yet.

    It is opened with ``read_only``: no store is created or changed, and other processes may have it
    open.

    Args:
        name: The store.
        mode: The value of the option ``--mode``, if given; else the store's own mode counts.
        backend: The registered name of the backend.
        prefix: The prefix of the store's metadata.

    Raises:
        CommandError: The store does not exist.
        typer.BadParameter: ``prefix`` is invalid.
        LevelError: The store cannot be read.
    """
    found = _existing_mode(name, backend=backend, prefix=prefix)
    return Level(name, backend=backend, mode=mode or found, prefix=prefix, read_only=True)


@contextmanager
def readable_state(
    name: str, at: int | None, *, mode: Mode | None = None, backend: str, prefix: str
) -> Iterator[Level | Snapshot[str, Any, Any]]:
    """Open an existing store for a command that only reads, as of a CID or in its present state.

    The other arguments and the errors are those of `readable_level`.

    Raises:
        HistoryError: The log of the server does not cover the CID.
        ModeError: A CID is given, and the store is no server.
    """
    with readable_level(name, mode=mode, backend=backend, prefix=prefix) as level:
        if at is None:
            yield level
            return
        with level.snapshot(at=at) as snapshot:
            yield snapshot


def existing_level(name: str, *, mode: Mode | None = None, backend: str, prefix: str) -> Level:
    """Return a level for a command that changes an existing store, not open yet.

    A mistyped path is an error, not a new store. The arguments and errors are those of
    `readable_level`.
    """
    found = _existing_mode(name, backend=backend, prefix=prefix)
    return Level(name, backend=backend, mode=mode or found, prefix=prefix, keep_base=None)


@contextmanager
def created_level(
    name: str,
    *,
    mode: Mode | None = None,
    backend: str,
    prefix: str,
    create_as: Mode,
    follow: Sequence[str] | None = None,
) -> Iterator[Level]:
    """Open a level for the length of a block, and create its store if it does not exist.

    If the block fails, a store that was created for it is removed again, unless it holds data.

    Args:
        name: The store.
        mode: The value of the option ``--mode``, if given.
        backend: The registered name of the backend.
        prefix: The prefix of the store's metadata.
        create_as: The mode of a new store, if ``mode`` is not given.
        follow: The ranges that a new client follows; ``None`` for all keys.

    Raises:
        typer.BadParameter: ``prefix`` is invalid.
        LevelError: The store cannot be opened.
    """
    found = mode_of_store(name, backend=backend, prefix=prefix)
    opened_as = mode or found or create_as
    ranges = follow if found is None else None
    with Level(name, backend=backend, mode=opened_as, prefix=prefix, keep_base=None, follow=ranges) as level:
        try:
            yield level
        except BaseException:
            if found is None and level.is_open:
                close_and_remove_unused(level)
            raise


def _existing_mode(name: str, *, backend: str, prefix: str) -> Mode:
    found = mode_of_store(name, backend=backend, prefix=prefix)
    if found is None:
        raise no_store_error(name, backend=backend, hint=": create it with `put`, `load` or `sync`")
    return found


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
