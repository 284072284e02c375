"""Back up an open store.

A backup is a store itself: a LevelDB directory or an SQLite file, with all rows, metadata and the
identity of its source. A backend that has files of its own copies them (`Backend.write_backup`);
the rows of another one are copied from a snapshot. A backup gets its name once it was verified
(`unfinished`), so a file or directory of that name is complete.
"""

from __future__ import annotations

import os
from contextlib import closing

from ..backends.base import Backend
from ..backends.registry import create
from ..engine.records import OwnRecords
from ..engine.store import Store
from ..errors import BackendNotFoundError, CorruptionError, LevelError, StateError
from ..types import BackupReport, Mode
from .backup_format import StepCounter, absolute_path, engine_at, examined
from .convert import identity_of
from .copy import Progress, copy_snapshot
from .generations import Generations, require_keep
from .unfinished import discard, publish, unfinished


def backup(
    store: Store, path: str | os.PathLike[str], *, keep: int | None = None, progress: Progress | None = None
) -> BackupReport:
    """Back up an open store. See `Level.backup`, which calls it inside the guard of the store."""
    return _Backup(store, progress).run(absolute_path(path), require_keep(keep))


class _Backup:
    """One call of `backup`."""

    def __init__(self, store: Store, progress: Progress | None) -> None:
        self._store = store
        self._backend = store.backend
        self._progress = progress
        self._engine = store.backend.backup_backend or _engine_of_copies()

    def run(self, path: str, keep: int | None) -> BackupReport:
        """Back up to a path; or, with ``keep``, to a new backup in the folder at that path."""
        _refuse_inside(path, self._backend)
        if keep is None:
            _refuse_taken(path, self._engine)
            with unfinished(path) as partial:
                mode, cid = self._write_verified(partial, None)
                publish(partial, path)
            return self._report(path, mode, cid)
        generations = Generations(path)
        _refuse_store(path)
        with unfinished(generations.next) as partial:
            previous = self._previous(path, generations)
            name = generations.new_name(self._engine)
            mode, cid = self._write_verified(partial, previous)
            publish(partial, name)
            report = self._report(name, mode, cid)
            generations.remove_old(keep)
        return report

    def _previous(self, path: str, generations: Generations) -> str | None:
        """Return the newest backup in a folder, if it can share files with the next one.

        Raises:
            StateError: It is a backup of another store.
        """
        newest = generations.newest()
        engine = None if newest is None else engine_at(newest)
        if newest is None or engine is None:
            return None
        try:
            found = create(engine, newest, {})
            found.open_read_only()
            with closing(found):
                store_id = self._store_id(found)
        except LevelError:
            return None  # damaged: nothing is shared with it
        if store_id not in (None, self._store_id(self._backend)):  # None: a store without ids
            raise StateError(
                f"{path!r} holds backups of another store, which would be removed in time: choose a folder of its "
                "own for each store, or move those backups away"
            )
        return newest if engine == self._engine else None

    def _store_id(self, backend: Backend) -> str | None:
        return identity_of(backend, OwnRecords(self._store.space, backend.name))[1]

    def _write_verified(self, partial: str, previous: str | None) -> tuple[Mode, int | None]:
        """Write and verify a copy. One with a damaged file of an earlier copy is written anew."""
        try:
            self._write(partial, previous)
            return self._verify(partial)
        except CorruptionError:
            discard(partial)
        self._write(partial, None)
        try:
            return self._verify(partial)
        except CorruptionError:
            discard(partial)
            raise

    def _write(self, partial: str, previous: str | None) -> None:
        if self._backend.backup_backend is not None:
            count = StepCounter("copy", self._tell)
            self._backend.write_backup(partial, previous=previous, on_copied=count.add)
            return
        discard(partial)
        target = create(self._engine, partial, {})
        target.open()
        with closing(target), closing(self._backend.snapshot()) as snapshot:
            records = OwnRecords(self._store.space, self._backend.name)
            copy_snapshot(snapshot, target, records, self._backend.name, self._tell)

    def _tell(self, step: str, done: int) -> None:
        """Report progress, and stop if the level is being closed: closing waits for this call."""
        self._store.require_open()
        if self._progress is not None:
            self._progress(step, done)

    def _verify(self, partial: str) -> tuple[Mode, int | None]:
        count = StepCounter("verify", self._tell)
        return examined(partial, self._engine, self._store.space, f"the backup of {self._backend.name!r}", count.add)

    def _report(self, path: str, mode: Mode, cid: int | None) -> BackupReport:
        status = [os.stat(file) for file in _files_of(path)]
        size = sum(found.st_size for found in status)
        return BackupReport(path, mode, cid, size, sum(found.st_size for found in status if found.st_nlink == 1))


def _engine_of_copies() -> str:
    """Return the backend for a copy of rows: the default one of `Level`, if it is installed."""
    try:
        create("leveldb", "", {})
    except BackendNotFoundError:
        return "sqlite"
    return "leveldb"


def _refuse_inside(path: str, backend: Backend) -> None:
    """Raise StateError for a path in the directory of the store itself."""
    store = os.path.realpath(backend.name)
    if backend.supports.persistent and os.path.isdir(store) and os.path.realpath(path).startswith(store + os.sep):
        raise StateError(f"cannot back up to {path!r}, inside the store itself: choose another folder")


def _refuse_taken(path: str, engine: str) -> None:
    """Raise StateError unless a path is free for a backup: nothing that is there is replaced."""
    if not os.path.lexists(path):
        return
    if os.path.isdir(path):
        if engine == "sqlite":
            raise StateError(
                f"cannot back up to {path!r}, which is a folder: a backup of this store is one file. Name a new file "
                "in it, or keep several backups in it with keep=N (--keep N)"
            )
        if not os.listdir(path):
            return
    if engine_at(path) is not None:
        raise StateError(
            f"there is a store or a backup at {path!r} already, and it is kept as it is: choose a new path; or keep "
            "several backups in one folder with keep=N (--keep N)"
        )
    raise StateError(f"cannot back up to {path!r}: it is not empty. Choose a new path")


def _refuse_store(folder: str) -> None:
    if engine_at(folder) is not None:
        raise StateError(f"{folder!r} is a store or a backup itself, and no folder of backups: choose another folder")


def _files_of(path: str) -> list[str]:
    return [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
