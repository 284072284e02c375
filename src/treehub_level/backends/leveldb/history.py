"""Whether what LevelDB will read from a directory is a beginning of its history, without a hole.

LevelDB numbers every write. Its MANIFEST names the logs that are not in tables yet, and the number that was reached
when it said so; each record of a log holds the number of its first write, and how many there are. So the numbers that
LevelDB will read must go on one by one. LevelDB itself does not look (observed with LevelDB 1.22 and 1.23):

- It opens a log of which a part in the middle cannot be read, and leaves that out, unless its checks are "paranoid".
- Paranoid or not, it passes over zeros in a log in silence, and goes on at the next block.
- Paranoid or not, it opens a store of two logs of which the older one was cut short.
- Paranoid or not, where the end of its MANIFEST is missing, it deletes the tables that were named there.
- It refuses a store whose MANIFEST cannot be read at its end, though tables and logs may have everything. It makes such
  a MANIFEST itself: where the disk fails while a table is made, and is mended while a compaction goes on.

The formats are those of LevelDB's ``doc/log_format.md``, ``db/log_reader.cc`` and ``db/version_edit.cc``.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple

_BLOCK: Final = 32 * 1024
#: Checksum, length and type of a fragment.
_HEADER: Final = Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
#: What a record of a log begins with: the number of its first write, and how many there are.
_BATCH: Final = Struct("<QI")
_MANIFEST: Final = re.compile(rb"(MANIFEST-[0-9]+)\n")
_LOG: Final = re.compile(r"([0-9]+)\.log")
_TABLE: Final = re.compile(r"([0-9]+)\.(ldb|sst)")

#: The tags of a MANIFEST's records. The first four are followed by one number each, but for the comparator's name.
_COMPARATOR, _LOG_NUMBER, _NEXT_FILE, _LAST_SEQUENCE = 1, 2, 3, 4
_COMPACT_POINTER, _DELETED_FILE, _NEW_FILE, _PREVIOUS_LOG = 5, 6, 7, 9


class History(NamedTuple):
    """What LevelDB would read.

    Attributes:
        gap: Where it does not go on, in words; ``None`` if it does to its end.
        damaged: The names of the files in which something cannot be read, and that are not needed from there on.
        manifest: Where to cut the MANIFEST, if it is one of them: its name, and the bytes of it that are needed.
    """

    gap: str | None
    damaged: Sequence[str] = ()
    manifest: tuple[str, int] | None = None


def read_history(path: str, *, checked: bool) -> History:
    """Follow the numbers of what LevelDB would read. Nobody may have the store open.

    Args:
        path: The directory, with a store in it.
        checked: Whether to compare checksums, at some 10 MB a second; without, they are LevelDB's to compare.

    Raises:
        OSError: A file cannot be read.
    """
    try:
        name, edits, size = _read_manifest(path, checked)
        first, reached = _log_named(edits)
        logs = [log for log in log_files(path) if int(log[:-4]) >= first]
        begins = bool(logs) and int(logs[0][:-4]) == first
        if size is not None or not begins:
            tables = _tables(edits)
            found = {number: table for table, number in _numbered(path, _TABLE)}
            if size is not None and not (begins and tables <= found.keys()):
                raise _DamagedError("the MANIFEST cannot be read")
            if not begins:
                # The log was deleted once the MANIFEST named a later one, or has not been made.
                _refuse_unknown(path, [*logs, *(table for number, table in found.items() if number not in tables)])
    except LookupError:
        return History("the MANIFEST cannot be read")
    except _DamagedError as error:
        return History(str(error))
    gap, damaged = _follow(path, logs, reached, checked)
    return History(gap, damaged) if size is None else History(gap, [name, *damaged], (name, size))


def _refuse_unknown(path: str, names: list[str]) -> None:
    for name in names:
        if os.path.getsize(os.path.join(path, name)):  # LevelDB's repair leaves empty tables behind
            raise _DamagedError(f"the MANIFEST does not know of {name}")


def log_files(path: str) -> list[str]:
    """The names of LevelDB's logs in a directory, oldest first.

    Raises:
        OSError: It cannot be read.
    """
    return [name for name, _ in sorted(_numbered(path, _LOG), key=itemgetter(1))]


def _numbered(path: str, kind: re.Pattern[str]) -> list[tuple[str, int]]:
    return [(name, int(match[1])) for name in os.listdir(path) if (match := kind.fullmatch(name))]


def _follow(path: str, logs: list[str], reached: int, checked: bool) -> tuple[str | None, list[str]]:
    """The gap in some logs, and which of them are damaged, behind a gap only up to there."""
    damaged: list[str] = []
    expected: int | None = None
    for name in logs:
        with _mapped(os.path.join(path, name)) as data:
            records = _Records(data, checked)
            for record in records:
                if len(record) < _BATCH.size:
                    records.damaged = True
                    continue
                sequence, count = _BATCH.unpack_from(record)
                if expected is None and (name != logs[0] or records.damaged):
                    # A log is begun when the one before is full. (`DirectoryBackend.compact_range` sees to the rest.)
                    return f"what came in {logs[0]} before number {sequence} is missing", damaged
                # The first was written before the MANIFEST named this log, while a table was made of the one before, or
                # right behind.
                if sequence != expected and (expected is not None or sequence > reached + 1):
                    missing = reached + 1 if expected is None else expected
                    return f"the writes before number {sequence}, from {missing} on, are missing", damaged
                expected = sequence + count
            if records.damaged:
                damaged.append(name)
    return None, damaged


class _DamagedError(Exception):
    """The MANIFEST cannot be read."""


class _Records:
    """The records of a log, or of a MANIFEST, as LevelDB's ``log::Reader`` returns them.

    Attributes:
        damaged: Whether anything up to here could not be read. A record that was cut off at the end is none, nor are
            zeros there: that is what a crash leaves.
        end: Where the last record ended.
    """

    def __init__(self, data: mmap.mmap | bytes, checked: bool) -> None:
        self._data = data
        self._checked = checked
        self.damaged = False
        self.end = 0

    def __iter__(self) -> Iterator[bytes]:
        data, checked, unpack, size = self._data, self._checked, _HEADER.unpack_from, len(self._data)
        position, end = 0, min(_BLOCK, size)
        parts: list[bytes] | None = None
        while True:
            if position + 7 > end:
                if end == size and size % _BLOCK:
                    return
                position, end = end, min(end + _BLOCK, size)
                if position == size:
                    return
                continue
            checksum, length, kind = unpack(data, position)
            start = position + 7
            position = start + length
            if position > end and end == size and size % _BLOCK:
                return
            zeros = not (kind or length)
            if zeros and not data[start:].strip(b"\0"):
                return
            if zeros or position > end or (checked and _checksum(data[start - 1 : position]) != checksum):
                self.damaged = True
                position = end
                parts = None
            elif kind == _FULL:
                self.damaged = self.damaged or parts is not None
                parts = None
                self.end = position
                yield data[start:position]
            elif kind == _FIRST:
                self.damaged = self.damaged or parts is not None
                parts = [data[start:position]]
            elif parts is None or kind not in (_MIDDLE, _LAST):
                self.damaged = True
                parts = None
            else:
                parts.append(data[start:position])
                if kind == _LAST:
                    self.end = position
                    yield b"".join(parts)
                    parts = None


def _read_manifest(path: str, checked: bool) -> tuple[str, list[bytes], int | None]:
    """The name of the MANIFEST, its records up to the first that cannot be read, and where that begins if there is one.

    Raises:
        _DamagedError: There is none, or something in it cannot be read and only checksums can tell what.
    """
    with open(os.path.join(path, "CURRENT"), "rb") as file:
        match = _MANIFEST.fullmatch(file.read(100))
    if match is None:
        raise _DamagedError("CURRENT names no MANIFEST")
    name, edits, end = match[1].decode(), [], 0
    try:
        with _mapped(os.path.join(path, name)) as data:
            records = _Records(data, checked)
            for edit in records:
                if records.damaged:
                    break
                edits.append(edit)
                end = records.end
    except FileNotFoundError:
        raise _DamagedError("CURRENT names a MANIFEST that is missing") from None
    if records.damaged and not checked:
        raise _DamagedError("the MANIFEST cannot be read")
    return name, edits, end if records.damaged else None


def _log_named(edits: list[bytes]) -> tuple[int, int]:
    """The number of the first log that is not in tables yet, and of the last write when the MANIFEST first named it."""
    log = reached = -1
    for edit in edits:
        numbers = dict(_numbers(edit))
        if numbers.get(_LOG_NUMBER, log) != log:
            log, reached = numbers[_LOG_NUMBER], numbers[_LAST_SEQUENCE]
    if log < 0:
        raise _DamagedError("the MANIFEST names no log")
    return log, reached


def _numbers(edit: bytes) -> Iterator[tuple[int, int]]:
    """The numbers that a record of a MANIFEST begins with, by their tags."""
    position = 0
    while position < len(edit):
        tag, position = _varint(edit, position)
        if tag in (_LOG_NUMBER, _NEXT_FILE, _LAST_SEQUENCE, _PREVIOUS_LOG):
            number, position = _varint(edit, position)
            yield tag, number
        elif tag == _COMPARATOR:
            position = _behind_text(edit, position)
        else:
            return


def _tables(edits: list[bytes]) -> set[int]:
    """The tables that a MANIFEST's records leave."""
    live: set[int] = set()
    for edit in edits:
        position = 0
        while position < len(edit):
            tag, position = _varint(edit, position)
            number, position = _varint(edit, position)  # the length of the comparator's name, or a level
            if tag == _COMPARATOR:
                position += number
            elif tag == _COMPACT_POINTER:
                position = _behind_text(edit, position)
            elif tag in (_DELETED_FILE, _NEW_FILE):
                number, position = _varint(edit, position)
                live.discard(number)
                if tag == _NEW_FILE:
                    live.add(number)
                    _, position = _varint(edit, position)
                    position = _behind_text(edit, _behind_text(edit, position))
    return live


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7


def _behind_text(data: bytes, position: int) -> int:
    length, position = _varint(data, position)
    return position + length


@contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap | bytes]:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""  # an empty file cannot be mapped
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data


def _crc32c_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
        table.append(crc)
    return table


_CRC32C: Final = _crc32c_table()


def _checksum(data: bytes) -> int:
    """LevelDB's: CRC-32C, turned and moved, so that the checksum of what holds checksums is no special one."""
    crc, table = 0xFFFFFFFF, _CRC32C
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
