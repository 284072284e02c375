"""Restore a backup to a new store."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

from .. import _core
from ..backends.base import Backend
from ..backends.registry import create
from ..errors import LevelError, LockedError, StateError
from ..types import RestoreReport
from .backup_format import StepCounter, absolute_path, engine_at, examined, stored_cid
from .copy import Progress, copy
from .generations import resolve_backup
from .unfinished import discard, publish, translating_errors, unfinished


def restore(
    path: str | os.PathLike[str],
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
    progress: Progress | None = None,
    **backend_options: Any,
) -> RestoreReport:
    """Restore a backup to a new store, on any backend. The backup is only read.

    The store is the one that was backed up, as it was then, with its identity. A server recognises
    a client that was restored, and the clients recognise a restored server: see
    ``docs/how-to/back-up.md``. If the call is interrupted, call it again.

    Args:
        path: The backup; or a folder of backups (``keep``), of which the newest is restored.
        name: The new store: a path, a label or a URL. Nothing is restored over an existing store.
        backend: The backend of the new store, as for `Level`.
        prefix: The prefix of the store's metadata, as for `Level`.
        progress: Called with ``"copy"`` and the number of bytes, then with ``"verify"`` and the
            number of rows; for another kind of backend, as by ``blocking.copy``.
        **backend_options: Options of the backend.

    Returns:
        A report. The store was verified.

    Raises:
        StateError: There is no complete backup, or there is a store of that name already. Nothing
            was written.
        LockedError: The store of that name is open, or another call restores to it.
        CorruptionError: The backup is damaged. There is no new store.
        StorageError: The backup cannot be read, or the store cannot be written.
    """
    target, space = create(backend, os.fspath(name), backend_options), _core.KeySpace(prefix)
    with translating_errors(target.name):
        found = resolve_backup(absolute_path(path))
    engine = engine_at(found)
    if engine is None:
        raise StateError(f"{found!r} is no backup: neither a LevelDB directory nor an SQLite file")
    if target.backup_backend != engine:
        report = copy(found, name, from_backend=engine, to_backend=lambda _: target, prefix=prefix, progress=progress)
        with closing(target):
            target.open_read_only()
            return RestoreReport(found, report.mode, stored_cid(target, report.mode, space))
    final = os.path.abspath(target.name)
    _refuse_existing(target, final)
    with unfinished(final) as partial:
        discard(partial)
        with closing(create(engine, found, {})) as source:
            source.open_read_only()
            source.write_backup(partial, previous=None, on_copied=StepCounter("copy", progress).add)
        count = StepCounter("verify", progress)
        mode, cid = examined(partial, engine, space, f"the backup {found!r}", count.add)
        publish(partial, final)
    return RestoreReport(found, mode, cid)


def _refuse_existing(target: Backend, path: str) -> None:
    """Raise an error if there is a store, or another file, where one is to be restored."""
    if target.exists():
        try:
            target.open_read_only(locked=True)
            target.close()
        except LockedError as error:
            raise LockedError(
                f"cannot restore to {target.name!r}: that store is open, and nothing is restored over a running store. "
                "Restore to a new name, stop the program that uses the store, and let it use the new one"
            ) from error
        except LevelError:
            pass  # damaged, or no store: it is not replaced either
    taken = [path + suffix for suffix in ("", "-wal", "-journal") if os.path.lexists(path + suffix)]
    if taken == [path] and os.path.isdir(path) and not os.listdir(path) and target.backup_backend != "sqlite":
        return
    if taken:
        raise StateError(
            f"cannot restore to {target.name!r}: {taken[0]!r} exists, and nothing is restored over it. Restore to a "
            "new name, or move it away first"
        )
