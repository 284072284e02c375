"""The write budget of a database: the bytes that LevelDB accepts before it could stall a writer.

LevelDB stalls a writer in two cases (``DBImpl::MakeRoomForWrite``): level 0 has eight tables or
more, or the write buffer is full while the previous one is still being written to a table. So if no
table is being written and level 0 has at most six, one more write buffer of data fits without a
stall: in that time at most one buffer fills up, none is pending before it, and it adds one table.

LevelDB keeps the log file of a full buffer until its table is complete. Two log files in the
directory therefore mean that a table is being written.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, Protocol

from .log_scan import log_files

_MAX_LEVEL_0_TABLES: Final = 6
#: LevelDB clips the size of its write buffer to this range.
_MIN_BUFFER: Final = 64 * 1024
_MAX_BUFFER: Final = 1024 * 1024 * 1024
#: Bytes held back from the budget, more than a small write takes: `may_write` is called before the
#: write.
_RESERVE: Final = 1024 * 1024


class WriteStatistics(Protocol):
    """The part of ``_store_c.DB`` that `WriteStallGuard` reads."""

    @property
    def buffered(self) -> int:
        """An upper bound of the bytes written to write buffers since opening."""

    def property_value(self, name: str) -> str | None:
        """Return a property of LevelDB."""


class WriteStallGuard:
    """The write budget of one database. Every method must be called with other writers locked out.

    Args:
        directory: The directory of the database.
        write_buffer_size: The option that the database was opened with, in bytes.
    """

    def __init__(self, directory: str, write_buffer_size: int) -> None:
        self._directory = directory
        self._budget = min(max(write_buffer_size, _MIN_BUFFER), _MAX_BUFFER) - _RESERVE
        #: The value of ``database.buffered`` at which the budget is used up.
        self.limit = 0
        #: The log file of the buffer that is being written to a table; empty if there is none.
        self._pending_log = ""
        self._compactions = 0
        #: True if `may_write` returned False since the last `refresh`.
        self.refresh_wanted = False

    def attach(self, database: WriteStatistics) -> None:
        """Start with a newly opened database."""
        self._database = database
        self.limit = 0
        self._pending_log = ""
        self.refresh()

    def may_write(self) -> bool:
        """Return True if a small write would not stall."""
        if self._database.buffered < self.limit:
            return True
        self.refresh_wanted = True
        return False

    def refresh(self) -> None:
        """Grant a new budget if LevelDB is idle. Reads the directory: not for the event loop."""
        self.refresh_wanted = False
        if self._compactions or (self._pending_log and os.path.exists(self._pending_log)):
            return
        with suppress(OSError):  # no budget then: writers go through a worker thread
            logs = log_files(self._directory)
            self._pending_log = os.path.join(self._directory, logs[0]) if len(logs) > 1 else ""
            # Query this after listing the logs: while no table is being written, level 0 cannot
            # grow.
            tables = int(self._database.property_value("leveldb.num-files-at-level0") or 0)
            if len(logs) == 1 and tables <= _MAX_LEVEL_0_TABLES:
                self.limit = self._database.buffered + self._budget

    def begin_compaction(self) -> None:
        """Revoke the budget: the compaction flushes the write buffer, and writers wait for that."""
        self._compactions += 1
        self.limit = 0

    def end_compaction(self) -> None:
        """Allow `refresh` to grant a budget again."""
        self._compactions -= 1
