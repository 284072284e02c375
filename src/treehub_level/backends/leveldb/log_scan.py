"""The check that the logs of a LevelDB directory have no gap.

LevelDB gives each write a sequence number. The MANIFEST names the oldest log that is not in tables
yet, together with the last sequence number at that time. Each record of a log contains the sequence
number of its first write, and the number of its writes. The sequence numbers in the logs must
therefore be consecutive. LevelDB does not check this (observed with LevelDB 1.22 and 1.23):

- LevelDB opens a log with an unreadable part in the middle, and skips that part, unless checks are
  "paranoid".
- Paranoid or not, LevelDB skips zeros in a log without an error, and continues at the next block.
- Paranoid or not, LevelDB opens a store with two logs of which the older one was truncated.
- Paranoid or not, if the end of the MANIFEST is missing, LevelDB deletes the tables named there.
- LevelDB refuses a store if the end of its MANIFEST is unreadable, even if the tables and logs are
  complete. LevelDB itself writes such a MANIFEST, if the disk fails while a table is written and
  works again during a compaction.

The formats are described in LevelDB's ``doc/log_format.md``, ``db/log_reader.cc`` and
``db/version_edit.cc``.
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
#: The header of a fragment: checksum, length, type.
_HEADER: Final = Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
#: The header of a record of a log: the sequence number of its first write, the number of its
#: writes.
_BATCH_HEADER: Final = Struct("<QI")
_MANIFEST: Final = re.compile(rb"(MANIFEST-[0-9]+)\n")
_LOG: Final = re.compile(r"([0-9]+)\.log")
_TABLE: Final = re.compile(r"([0-9]+)\.(ldb|sst)")

#: The tags in the records of a MANIFEST. A name follows the first, a number each of the next three.
_COMPARATOR, _LOG_NUMBER, _NEXT_FILE, _LAST_SEQUENCE = 1, 2, 3, 4
_COMPACT_POINTER, _DELETED_FILE, _NEW_FILE, _PREVIOUS_LOG = 5, 6, 7, 9


class LogScan(NamedTuple):
    """The result of `scan_logs`.

    Attributes:
        gap: A description of the first gap in the sequence numbers; ``None`` if there is none.
        damaged_files: The names of the files with unreadable data. If there is no gap, only the
            ends of these files are unreadable.
        manifest_cut: The name of the MANIFEST and the length of its readable part in bytes, if the
            MANIFEST is one of the damaged files.
    """

    gap: str | None
    damaged_files: Sequence[str] = ()
    manifest_cut: tuple[str, int] | None = None


def scan_logs(path: str, *, verify_checksums: bool) -> LogScan:
    """Check the sequence numbers in the logs of a store that is not open.

    Args:
        path: The directory, which must contain a store.
        verify_checksums: True to verify the checksums of all records, at about 10 MB per second.
            False to leave that to LevelDB.

    Raises:
        OSError: A file cannot be read.
    """
    try:
        name, edits, size = _read_manifest(path, verify_checksums)
        first, last_sequence = _oldest_log(edits)
        logs = [log for log in log_files(path) if int(log[:-4]) >= first]
        has_first = bool(logs) and int(logs[0][:-4]) == first
        if size is not None or not has_first:
            tables = _live_tables(edits)
            found = {number: table for table, number in _numbered(path, _TABLE)}
            if size is not None and not (has_first and tables <= found.keys()):
                raise _DamagedError("the MANIFEST cannot be read")
            if not has_first:
                # LevelDB has not created the log yet; or it has deleted the log, and the lost
                # end of the MANIFEST named a later one. Then there are files that are not listed.
                _refuse_unlisted(path, [*logs, *(table for number, table in found.items() if number not in tables)])
    except LookupError:
        return LogScan("the MANIFEST cannot be read")
    except _DamagedError as error:
        return LogScan(str(error))
    gap, damaged = _follow_logs(path, logs, last_sequence, verify_checksums)
    return LogScan(gap, damaged) if size is None else LogScan(gap, [name, *damaged], (name, size))


def is_complete(path: str) -> bool:
    """Return True if a directory has the oldest log and all tables that its MANIFEST names.

    Raises:
        OSError: A file cannot be read.
    """
    try:
        _, edits, damage = _read_manifest(path, True)
        first, _ = _oldest_log(edits)
        complete = first in _numbers_of(path, _LOG) and _live_tables(edits) <= _numbers_of(path, _TABLE)
        return complete and damage is None
    except (LookupError, _DamagedError, FileNotFoundError):
        return False


def listed_tables(path: str) -> set[str]:
    """Return the possible names of the tables that a MANIFEST names; empty if it is damaged.

    Raises:
        OSError: A file cannot be read.
    """
    try:
        _, edits, damage = _read_manifest(path, True)
        live = _live_tables(edits) if damage is None else set()
    except (LookupError, _DamagedError, FileNotFoundError):
        return set()
    return {f"{number:06}.{suffix}" for number in live for suffix in ("ldb", "sst")}


def _numbers_of(path: str, kind: re.Pattern[str]) -> set[int]:
    return {number for _, number in _numbered(path, kind)}


def _refuse_unlisted(path: str, names: list[str]) -> None:
    for name in names:
        if os.path.getsize(os.path.join(path, name)):  # LevelDB's repair leaves empty tables behind
            raise _DamagedError(f"the MANIFEST does not list {name}")


def log_files(path: str) -> list[str]:
    """Return the names of LevelDB's logs in a directory, oldest first.

    Raises:
        OSError: The directory cannot be read.
    """
    return [name for name, _ in sorted(_numbered(path, _LOG), key=itemgetter(1))]


def _numbered(path: str, kind: re.Pattern[str]) -> list[tuple[str, int]]:
    return [(name, int(match[1])) for name in os.listdir(path) if (match := kind.fullmatch(name))]


def _follow_logs(
    path: str, logs: list[str], last_sequence: int, verify_checksums: bool
) -> tuple[str | None, list[str]]:
    """Return the first gap in the logs, and the names of the damaged logs up to that gap."""
    damaged: list[str] = []
    expected: int | None = None
    for name in logs:
        with _mapped(os.path.join(path, name)) as data:
            records = _Records(data, verify_checksums)
            for record in records:
                if len(record) < _BATCH_HEADER.size:
                    records.damaged = True
                    continue
                sequence, count = _BATCH_HEADER.unpack_from(record)
                if expected is None and (name != logs[0] or records.damaged):
                    # Each log but the last has a record: LevelDB begins a new log when the previous
                    # one is full, or before a compaction (see `DirectoryBackend.compact_range`).
                    return f"the writes in {logs[0]} before number {sequence} are missing", damaged
                # The first record may be older than the entry of its log in the MANIFEST, which
                # LevelDB makes after it has moved the previous log to a table.
                if sequence != expected and (expected is not None or sequence > last_sequence + 1):
                    missing = last_sequence + 1 if expected is None else expected
                    return f"the writes before number {sequence}, from {missing} on, are missing", damaged
                expected = sequence + count
            if records.damaged:
                damaged.append(name)
    return None, damaged


class _DamagedError(Exception):
    """The MANIFEST cannot be read, or contradicts the files in the directory."""


class _Records:
    """An iterator over the records of a log or a MANIFEST, like LevelDB's ``log::Reader``.

    Attributes:
        damaged: True if unreadable data was found so far. A truncated record or zeros at the end of
            the file are not damage: a crash leaves them.
        end: The offset of the end of the last record.
    """

    def __init__(self, data: mmap.mmap | bytes, verify_checksums: bool) -> None:
        self._data = data
        self._verify_checksums = verify_checksums
        self.damaged = False
        self.end = 0

    def __iter__(self) -> Iterator[bytes]:
        data, verify, unpack, size = self._data, self._verify_checksums, _HEADER.unpack_from, len(self._data)
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
            if zeros or position > end or (verify and masked_crc32c(data[start - 1 : position]) != checksum):
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


def _read_manifest(path: str, verify_checksums: bool) -> tuple[str, list[bytes], int | None]:
    """Read the MANIFEST up to its first unreadable record.

    Returns:
        The name of the MANIFEST, its readable records, and the length in bytes of the readable
        part; ``None`` if all of it is readable.

    Raises:
        _DamagedError: There is no MANIFEST; or a part is unreadable, and ``verify_checksums`` is
            false, so that the length of the readable part is not known.
    """
    with open(os.path.join(path, "CURRENT"), "rb") as file:
        match = _MANIFEST.fullmatch(file.read(100))
    if match is None:
        raise _DamagedError("CURRENT names no MANIFEST")
    name, edits, end = match[1].decode(), [], 0
    try:
        with _mapped(os.path.join(path, name)) as data:
            records = _Records(data, verify_checksums)
            for edit in records:
                if records.damaged:
                    break
                edits.append(edit)
                end = records.end
    except FileNotFoundError:
        raise _DamagedError("CURRENT names a MANIFEST that is missing") from None
    if records.damaged and not verify_checksums:
        raise _DamagedError("the MANIFEST cannot be read")
    return name, edits, end if records.damaged else None


def _oldest_log(edits: list[bytes]) -> tuple[int, int]:
    """Find the oldest log that is not in tables yet, in the records of a MANIFEST.

    Returns:
        The number of the log, and the last sequence number when the MANIFEST first named that log.
    """
    log = last_sequence = -1
    for edit in edits:
        numbers = dict(_numbers(edit))
        if numbers.get(_LOG_NUMBER, log) != log:
            log, last_sequence = numbers[_LOG_NUMBER], numbers[_LAST_SEQUENCE]
    if log < 0:
        raise _DamagedError("the MANIFEST names no log")
    return log, last_sequence


def _numbers(edit: bytes) -> Iterator[tuple[int, int]]:
    """Yield the tags and the numbers at the beginning of a record of a MANIFEST."""
    position = 0
    while position < len(edit):
        tag, position = _varint(edit, position)
        if tag in (_LOG_NUMBER, _NEXT_FILE, _LAST_SEQUENCE, _PREVIOUS_LOG):
            number, position = _varint(edit, position)
            yield tag, number
        elif tag == _COMPARATOR:
            position = _skip_string(edit, position)
        else:
            return


def _live_tables(edits: list[bytes]) -> set[int]:
    """Return the numbers of the tables that are live after all records of a MANIFEST."""
    live: set[int] = set()
    for edit in edits:
        position = 0
        while position < len(edit):
            tag, position = _varint(edit, position)
            number, position = _varint(edit, position)  # the length of the comparator's name, or a level
            if tag == _COMPARATOR:
                position += number
            elif tag == _COMPACT_POINTER:
                position = _skip_string(edit, position)
            elif tag in (_DELETED_FILE, _NEW_FILE):
                number, position = _varint(edit, position)
                live.discard(number)
                if tag == _NEW_FILE:
                    live.add(number)
                    _, position = _varint(edit, position)
                    position = _skip_string(edit, _skip_string(edit, position))
    return live


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a variable-length integer (LEB128), and the offset of its end."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7


def _skip_string(data: bytes, position: int) -> int:
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


def masked_crc32c(data: bytes) -> int:
    """Return LevelDB's masked CRC-32C, which is rotated and has a constant added."""
    crc, table = 0xFFFFFFFF, _CRC32C
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
