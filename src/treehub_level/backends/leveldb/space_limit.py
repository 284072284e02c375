"""The space that the writes of a LevelDB store leave free, so that the store can be opened again.

Opening a store writes its logs to tables before it deletes them, and LevelDB has up to two logs. A
store that has filled its disk with them could not be opened any more. More space than that would
not help reliably: one compaction may rewrite all tables of a level before it deletes any.
"""

from __future__ import annotations

import shutil
from typing import Final

from ..base import Batch
from ..disk_space import disk_full_error, frees_space

_MIB: Final = 1024 * 1024
#: The logs that LevelDB may have at a time, each as long as the write buffer.
_LOGS: Final = 2
#: The share of the disk that is kept at most.
_SHARE: Final = 1 / 4
#: The space is looked at again when this fraction of it may be used up.
_LOOKS: Final = 16


class SpaceLimit:
    """The limit for the writes of one open database, which are made one at a time.

    Args:
        path: The directory of the store.
        write_buffer_size: The option that the database was opened with, in bytes.

    Attributes:
        limit: The bytes written since opening at which to call `check`.
    """

    def __init__(self, path: str, write_buffer_size: int) -> None:
        self._path = path
        self.limit = 0
        self._reserve = 0.0
        try:
            size = shutil.disk_usage(path).total
        except (OSError, ValueError):  # no directory yet
            return
        self._reserve = min(_LOGS * write_buffer_size + _MIB, size * _SHARE)

    def check(self, batch: Batch, written: int) -> None:
        """Refuse a batch if the disk is full, unless it deletes more than it writes.

        Args:
            batch: The batch to write.
            written: The bytes written since opening, or more.

        Raises:
            StorageError: The disk is full.
        """
        try:
            room = shutil.disk_usage(self._path).free - self._reserve
        except (OSError, ValueError):  # the directory is gone: writing reports it
            return
        self.limit = written + max(int(room) // _LOOKS, 0)
        if room > 0 or not batch or frees_space(batch):
            return
        raise disk_full_error(
            f"cannot write to the LevelDB store at {self._path!r}: the disk is full, but for the space that opening "
            "the store again takes. Delete data and compact the store, or free space on the disk",
            refusal=True,
        )
