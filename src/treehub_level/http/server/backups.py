"""Backups of a hub's databases, into one folder that the program has chosen.

The folder has a folder of backups for each database: ``FOLDER/NAME/TIME``. A remote caller may ask
for a backup, and never chooses a path.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import LevelError
from ...maintenance.generations import require_keep
from ...types import BackupReport
from .periodic import reason_of
from .refusals import RefusedError, server_closing

if TYPE_CHECKING:
    from .hub import Hub

#: The backups of each database that are kept, unless the program says otherwise.
KEEP: Final = 8

logger = logging.getLogger("treehub_level.http")


class Backups:
    """The folder of a hub's backups.

    Args:
        folder: The folder. It is created at the first backup.
        keep: The number of backups to keep of each database.

    Raises:
        TypeError, ValueError: ``keep`` is no number above 0.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = KEEP) -> None:
        self.folder = os.path.abspath(os.fspath(folder))
        self.keep = require_keep(keep)

    def check_outside(self, root: str) -> None:
        """Check that the folder is not in a root, where it would be taken for a store.

        Raises:
            ValueError: It is.
        """
        folder, stores = Path(os.path.realpath(self.folder)), Path(os.path.realpath(root))
        if folder == stores or stores in folder.parents:
            raise ValueError(f"the backups would be in {root!r} among the stores: choose a folder outside of it")

    async def back_up(self, hub: Hub, name: str) -> BackupReport:
        """Back up a database. See `Hub.backup` for the errors."""
        return await back_up(hub, name, os.path.join(self.folder, name), self.keep)


async def back_up(hub: Hub, name: str, path: str | os.PathLike[str], keep: int | None) -> BackupReport:
    """Back up a database of a hub, and give up if the hub stops: see `Hub.backup`."""
    async with hub.use(name) as level:
        copying = asyncio.ensure_future(level.backup(path, keep=keep))
        stopping = asyncio.ensure_future(hub.stopping.wait())
        try:
            await asyncio.wait([copying, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            copying.cancel()
            stopping.cancel()
            await asyncio.gather(copying, stopping, return_exceptions=True)
        if copying.cancelled():
            raise server_closing()
        return copying.result()


def no_backups() -> RefusedError:
    """Return the refusal of a server that has no folder for backups."""
    return RefusedError(
        409,
        "LEVEL_NO_BACKUPS",
        "this server has no folder for backups: start it with --backup-to DIR",
    )


def backup_failed(name: str, error: LevelError) -> RefusedError:
    """Log why a backup failed, and return the refusal, which names no path of the server."""
    logger.error("the backup of database %s failed: %s", name, reason_of(error))
    return RefusedError(
        500, "LEVEL_BACKUP_FAILED", f"the backup failed ({error.code}), and older ones are kept: see the server's log"
    )
