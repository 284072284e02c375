"""How much can be written to LevelDB before it could make a writer wait.

LevelDB makes a writer wait in two cases (``DBImpl::MakeRoomForWrite``): level 0 holds eight tables or more, or the
write buffer is full while the one before it is still being turned into a table. So if at some moment no table is being
made and level 0 holds at most six, the next write buffer's worth of bytes goes in without a wait: in that time one
buffer at most becomes full, with none before it, and adds one table.

A table is being made from a full buffer for as long as that buffer's log file exists beside the current one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, Protocol

from .history import log_files

_MAX_LEVEL_0_TABLES: Final = 6
#: LevelDB clips the size of its write buffer to this range.
_MIN_BUFFER: Final = 64 * 1024
_MAX_BUFFER: Final = 1024 * 1024 * 1024
#: More than any small write takes, so that the last one that is let in still fits.
_RESERVE: Final = 1024 * 1024


class _Database(Protocol):
    @property
    def buffered(self) -> int: ...
    def property_value(self, name: str) -> str | None: ...


class WriteStallGuard:
    """What is left of the bytes that can be written without a wait. Used with every other writer kept out.

    Args:
        directory: That of the database.
        write_buffer_size: As the database was given it, in bytes.
    """

    def __init__(self, directory: str, write_buffer_size: int) -> None:
        self._directory = directory
        self._length = min(max(write_buffer_size, _MIN_BUFFER), _MAX_BUFFER) - _RESERVE
        self._end = 0
        self._full_buffer = ""
        self._compactions = 0
        #: Whether somebody asked for room and there was none: `look` for it, where waiting is allowed.
        self.wanted = False

    def begin(self, database: _Database) -> None:
        """The database was opened."""
        self._database = database
        self._end = 0
        self._full_buffer = ""
        self.look()

    def is_left(self) -> bool:
        """Whether a small write would not wait."""
        if self._database.buffered < self._end:
            return True
        self.wanted = True
        return False

    def look(self) -> None:
        """See whether LevelDB is at rest; if so, there is room from here on. It reads the directory."""
        self.wanted = False
        if self._compactions or (self._full_buffer and os.path.exists(self._full_buffer)):
            return
        with suppress(OSError):  # no room, then: writers go where they can wait
            logs = log_files(self._directory)
            self._full_buffer = os.path.join(self._directory, logs[0]) if len(logs) > 1 else ""
            # Asked after the logs: while no table is being made, level 0 cannot grow.
            tables = int(self._database.property_value("leveldb.num-files-at-level0") or 0)
            if len(logs) == 1 and tables <= _MAX_LEVEL_0_TABLES:
                self._end = self._database.buffered + self._length

    def close(self) -> None:
        """A compaction of a range begins: it empties the write buffer, and writers wait for it."""
        self._compactions += 1
        self._end = 0

    def reopen(self) -> None:
        """That compaction has ended."""
        self._compactions -= 1
