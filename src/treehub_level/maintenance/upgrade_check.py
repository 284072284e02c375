"""The effect of an upgrade on a store, found without changing the store.

The format of a store has a number. A version of the library opens each store of its own number and
of lower ones, and refuses a higher one. So the number tells if the way to a new version is open,
and the records that the first opening would write tell if the way back is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal

from .. import _core
from ..backends import create
from ..backends.base import Backend, Entry, Reader
from ..engine.following import EARLIER_RESET
from ..engine.identity import opening_entries
from ..engine.records import FORMAT, OwnRecords
from ..errors import CorruptionError, LevelError, StateError
from ..types import Mode
from .convert import identity_of

NPM: Final = "@treehub/level"

#: The program that made a store.
Program = Literal["treehub-level", "@treehub/level"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeCheck:
    """The answer of `check_upgrade`.

    Attributes:
        mode: The mode of the store; ``None`` if it cannot be read.
        written_by: The program whose store it is; ``None`` for a NORMAL store, which has no records
            of a program, and for one that cannot be read.
        format: The number of the store's format; ``None`` if it has none.
        reads: The highest format that this version reads.
        problem: The reason why this version does not open the store, and the remedy; ``None`` if it
            opens the store.
        changes: The changes that the first opening makes.
        returns: True if the program that wrote the store can open it after that.
    """

    mode: Mode | None
    written_by: Program | None
    format: int | None
    reads: int
    problem: str | None
    changes: Sequence[str]
    returns: bool


def check_upgrade(
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
    **backend_options: Any,
) -> UpgradeCheck:
    """Tell if this version opens a store, and which changes that makes. The store stays as it is.

    Another process may have the store open meanwhile.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.
        **backend_options: As for `Level`.

    Raises:
        StateError: There is no store.
        StorageError: The store cannot be read, for another reason than damage.
    """
    store, space = create(backend, os.fspath(name), backend_options), _core.KeySpace(prefix)
    if not store.exists():
        raise StateError(f"there is no store at {store.name!r}")
    try:
        store.open_read_only()
    except CorruptionError as error:
        return _refused(None, None, error)
    with closing(store), closing(store.snapshot()) as reader:
        return _check_in(reader, store, OwnRecords(space, store.name))


def _check_in(reader: Reader, store: Backend, records: OwnRecords) -> UpgradeCheck:
    stored = records.stored_format(reader)
    if stored is not None and stored > FORMAT:
        hint = "install the version that wrote the store, or a later one"
        return _refused(
            None, stored, StateError(f"the store has format {stored}, and this version reads {FORMAT}: {hint}")
        )
    try:
        mode, store_id = identity_of(reader, records)
    except LevelError as error:
        return _refused(None, stored, error)
    written_by: Program | None = (
        None if mode is Mode.NORMAL else "@treehub/level" if store_id is None else "treehub-level"
    )
    try:
        entries = opening_entries(reader, store, mode, records)
    except LevelError as error:
        return _refused(mode, stored, error, written_by)
    changes = _described(entries, records.space)
    return UpgradeCheck(
        mode=mode,
        written_by=written_by,
        format=stored,
        reads=FORMAT,
        problem=None,
        changes=changes,
        returns=not changes,
    )


def _refused(
    mode: Mode | None,
    stored: int | None,
    error: LevelError,
    written_by: Program | None = None,
) -> UpgradeCheck:
    return UpgradeCheck(
        mode=mode,
        written_by=written_by or (None if stored is None else "treehub-level"),
        format=stored,
        reads=FORMAT,
        problem=str(error),
        changes=(),
        returns=True,
    )


def _described(entries: Sequence[Entry], space: _core.KeySpace) -> list[str]:
    """Return the changes of the first opening, for people."""
    keys = {key for key, _ in entries}
    changes = []
    if space.own_key("store") in keys:
        changes.append(f"gives the store an identity, format {FORMAT}: {NPM} no longer writes to it safely")
        keys -= {space.own_key("store"), space.own_key("id")}
    if space.own_key(EARLIER_RESET) in keys:
        changes.append(
            "goes on with a reset that an earlier version has begun, in a way that that version does not know"
        )
        keys -= {key for key in keys if key in (space.own_key(EARLIER_RESET), space.own_key("follow"), space.prefix)}
    names = sorted(key.removeprefix(space.prefix * 2).decode("utf-8", "replace") for key in keys)
    return [*changes, *(f"writes the record {name!r}" for name in names)]
