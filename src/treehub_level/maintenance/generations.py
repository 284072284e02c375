"""A folder with the backups of one store, by the time at which they were taken."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timedelta, timezone
from typing import Final

from ..backends.durable_files import remove_tree, sync_folder
from ..errors import StateError
from .unfinished import SUFFIX

_FORM: Final = "%Y%m%dT%H%M%S.%f"
#: The name of a backup: the time in UTC, to the millisecond.
_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6}\.[0-9]{3})Z(?:\.sqlite)?")
#: The ends of the names by the backend that opens a backup.
_ENDS: Final = {"leveldb": "", "sqlite": ".sqlite"}
#: The name that the next backup has while it is unfinished.
_NEXT: Final = "next"
#: The beginning of the name of a backup that is being removed.
_REMOVING: Final = ".removing-"


class Generations:
    """The backups in a folder.

    Args:
        folder: The absolute path of the folder, which need not exist.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        #: The name to give to `unfinished`.
        self.next = os.path.join(folder, _NEXT)

    def complete(self) -> list[str]:
        """Return the paths of the complete backups, the oldest first.

        Raises:
            OSError: The folder cannot be read.
        """
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [os.path.join(self._folder, name) for name in sorted(names) if _NAME.fullmatch(name)]

    def newest(self) -> str | None:
        """Return the path of the newest complete backup; ``None`` if there is none.

        Raises:
            OSError: The folder cannot be read.
        """
        return next(reversed(self.complete()), None)

    def has_unfinished(self) -> bool:
        """Return True if a backup was interrupted, or is being written."""
        return os.path.exists(self.next + SUFFIX)

    def new_name(self, backend: str) -> str:
        """Return the path for a backup that is taken now.

        It sorts after all others, even if the clock was put back: the newest are kept.

        Args:
            backend: The registered name of the backend that opens it.
        """
        moment = datetime.fromtimestamp(time.time(), timezone.utc)
        found = _NAME.fullmatch(os.path.basename(self.newest() or ""))
        if found is not None:
            latest = datetime.strptime(found[1], _FORM).replace(tzinfo=timezone.utc)
            moment = max(moment, latest + timedelta(milliseconds=1))
        return os.path.join(self._folder, f"{moment.strftime(_FORM)[:-3]}Z{_ENDS[backend]}")

    def remove_old(self, keep: int) -> None:
        """Remove all but the newest backups. A removal that is interrupted leaves no half backup.

        Args:
            keep: The number of backups to keep: at least 1.

        Raises:
            OSError: A backup cannot be removed.
        """
        for path in self.complete()[:-keep]:
            os.rename(path, os.path.join(self._folder, _REMOVING + os.path.basename(path)))
        sync_folder(self._folder)
        for name in os.listdir(self._folder):
            if name.startswith(_REMOVING):
                remove_tree(os.path.join(self._folder, name))


def require_keep(keep: object) -> int | None:
    """Return the number of backups to keep.

    Raises:
        TypeError: It is neither an int nor ``None``.
        ValueError: It is below 1.
    """
    if keep is None:
        return None
    if isinstance(keep, bool) or not isinstance(keep, int):
        raise TypeError(f"keep is a number of backups or None, not {keep!r:.80}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}: the new backup itself is kept")
    return keep


def resolve_backup(path: str) -> str:
    """Return the path of a backup: the path itself, or the newest backup in a folder of them.

    Raises:
        StateError: There is no complete backup.
        OSError: The folder cannot be read.
    """
    generations = Generations(path)
    newest = generations.newest() if os.path.isdir(path) else None
    if newest is not None:
        return newest
    if os.path.exists(path + SUFFIX) or (os.path.isdir(path) and generations.has_unfinished()):
        raise StateError(
            f"the backup {path!r} is not complete: it was interrupted, or is being written. Run the backup again, "
            "which continues it; or restore another backup"
        )
    if not os.path.exists(path):
        raise StateError(f"there is no backup at {path!r}")
    return path
