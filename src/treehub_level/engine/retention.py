"""The time for which a server keeps its log: `Retention`, and the record of its progress.

Time is measured while the store is in use: see `RetentionState.advanced`. So neither a jump of the
clock nor a server that stands still for months makes a client start over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

import orjson

from ..backends.base import Entry, Reader
from .clock import MAX_MS
from .records import OwnRecords, is_cid

#: The name of the record.
RETENTION: Final = "retention"

_DAY: Final = 24 * 60 * 60
_DAY_MS: Final = _DAY * 1000
#: A longer pause between two runs counts as so many milliseconds.
_MAX_GAP_MS: Final = _DAY_MS
#: A gap between two marks may be this part of its age. So the age of a change is known so exactly.
_MARK_SPACING: Final = 1 / 8
#: A compaction reads the whole log. So it waits for this many new changes, and for this part of
#: the records that the last one has left; or for a day.
_LEAST_CHANGES: Final = 1000
_LEAST_PART: Final = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The time for which a server keeps those changes in its log that new clients do not need.

    The last change of each key stays, unless it is a delete. A client whose deletes are gone starts
    over at its next sync: it takes all entries again, and keeps its local changes.

    Args:
        superseded_after: The time after which a change goes that a later one of the same key
            supersedes: seconds, or a `timedelta`. `Level.history` and ``snapshot(at=)`` see that
            far back.
        max_changes: The most changes in the log that are kept for that time; ``None`` for no limit.
            Beyond it the oldest superseded ones go earlier.
        clients_unseen_after: The time after which a client counts as gone. Deletes go once they are
            as old as superseded changes, and every client that was seen in this time has them.
        every: The time between two compactions.

    Raises:
        ValueError: A time is negative or ``every`` is 0, or ``max_changes`` is negative.
    """

    superseded_after: float | timedelta = 7 * _DAY
    max_changes: int | None = 1_000_000
    clients_unseen_after: float | timedelta = 90 * _DAY
    every: float | timedelta = 60 * 60

    def __post_init__(self) -> None:
        for name in ("superseded_after", "clients_unseen_after", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
                raise TypeError(f"{name} is a number of seconds or a timedelta, not {value!r:.80}")
            seconds = seconds_of(value)
            if not 0 <= seconds <= MAX_MS / 1000 or (name == "every" and not seconds):
                raise ValueError(f"{name} is {value!r:.80}: give a time that is not negative, and not 0 for every")
        if self.max_changes is not None and (type(self.max_changes) is not int or self.max_changes < 0):
            raise ValueError(f"max_changes is a number of changes or None, not {self.max_changes!r:.80}")

    @property
    def description(self) -> str:
        """The retention in words, for people."""
        most = "" if self.max_changes is None else f", {self.max_changes:,} at most"
        return (
            f"superseded changes are kept for {span(self.superseded_after)}{most}; clients unseen for "
            f"{span(self.clients_unseen_after)} start over; the log is compacted every {span(self.every)}"
        )


def seconds_of(time: float | timedelta) -> float:
    """Return a time in seconds."""
    return time.total_seconds() if isinstance(time, timedelta) else float(time)


def span(time: float | timedelta) -> str:
    """Return a time in words: ``7 days``, ``1 hour``."""
    seconds = seconds_of(time)
    for unit, size in (("day", _DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:g} second{'' if seconds == 1 else 's'}"


class Mark(NamedTuple):
    """The CID that a server had at a time.

    Attributes:
        cid: The CID.
        elapsed: The time: see `RetentionState`.
    """

    cid: int
    elapsed: int


@dataclass(frozen=True, slots=True)
class RetentionState:
    """The record of retention in a server's store.

    Attributes:
        wall: The clock at the last run, in milliseconds since 1970; 0 before the first.
        elapsed: Milliseconds in use up to the last run.
        is_whole: True if clients were noted since the store was created, so that no others exist.
        compacted_to: The CID up to which the last complete compaction reached: up to there the log
            has one record for each key at most.
        deleted_to: The CID up to which it dropped deletes.
        kept: The number of records that it left up to ``compacted_to``.
        compacted_at: The elapsed time at its end.
        marks: CIDs at earlier runs, in order.
    """

    wall: int = 0
    elapsed: int = 0
    is_whole: bool = False
    compacted_to: int = 0
    deleted_to: int = 0
    kept: int = 0
    compacted_at: int = 0
    marks: tuple[Mark, ...] = ()

    def advanced(self, now: int, head: int, retention: Retention) -> RetentionState:
        """Return the state at a run.

        The time since the last run counts up to a day: the store may have been closed since, and
        the clock may be wrong.

        Args:
            now: The clock, in milliseconds since 1970.
            head: The CID of the server.
            retention: The retention, which decides on the marks to keep.
        """
        gap = min(max(now - self.wall, 0), _MAX_GAP_MS) if self.wall else 0
        elapsed = self.elapsed + gap
        marks = self.marks
        if head and (not marks or marks[-1].cid < head):
            marks = (*marks, Mark(head, elapsed))
        longest = max(_ms(retention.superseded_after), _ms(retention.clients_unseen_after))
        return replace(self, wall=now, elapsed=elapsed, marks=_thinned(marks, elapsed, longest))

    def cid_before(self, time: float | timedelta) -> int:
        """Return a CID whose changes are older than so many seconds; the highest known one."""
        before = self.elapsed - _ms(time)
        return max((mark.cid for mark in self.marks if mark.elapsed <= before), default=0)

    def compact_to(self, head: int, retention: Retention) -> int:
        """Return the CID up to which superseded changes may go now."""
        kept = head if retention.max_changes is None else retention.max_changes
        return max(self.cid_before(retention.superseded_after), head - kept, self.compacted_to)

    def is_due(self, compact_to: int, delete_to: int) -> bool:
        """Return True if a compaction up to these CIDs is worth reading the log."""
        if compact_to - self.compacted_to >= max(_LEAST_CHANGES, int(self.kept * _LEAST_PART)):
            return True
        is_new = compact_to > self.compacted_to or delete_to > self.deleted_to
        return is_new and self.elapsed - self.compacted_at >= _DAY_MS

    def to_entry(self, records: OwnRecords) -> Entry:
        """Return the entry that stores the state."""
        document = {
            "wall": self.wall,
            "elapsed": self.elapsed,
            "whole": self.is_whole,
            "compacted_to": self.compacted_to,
            "deleted_to": self.deleted_to,
            "kept": self.kept,
            "compacted_at": self.compacted_at,
            "marks": [[*mark] for mark in self.marks],
        }
        return records.key(RETENTION), orjson.dumps(document)


def read_retention(reader: Reader, records: OwnRecords, head: int) -> RetentionState:
    """Read the state of retention; an empty one before the first run.

    Args:
        reader: The reader.
        records: The own records of the server.
        head: The CID of the server in the same state: no mark is above it.

    Raises:
        CorruptionError: The record is malformed.
    """
    match records.read(reader, RETENTION):
        case None:
            return RetentionState()
        case {
            "wall": wall,
            "elapsed": elapsed,
            "whole": bool(is_whole),
            "compacted_to": compacted_to,
            "deleted_to": deleted_to,
            "kept": kept,
            "compacted_at": compacted_at,
            "marks": list(items),
        } if all(map(is_cid, (wall, elapsed, compacted_to, deleted_to, kept, compacted_at))):
            marks = _marks(items, head)
            if marks is not None and deleted_to <= compacted_to <= head and compacted_at <= elapsed:
                return RetentionState(wall, elapsed, is_whole, compacted_to, deleted_to, kept, compacted_at, marks)
    key = records.key(RETENTION)
    raise records.damaged(key, f"does not hold the progress of retention up to CID {head}", reader.get(key))


def _marks(items: Sequence[Any], head: int) -> tuple[Mark, ...] | None:
    """Return marks that rise up to the head; ``None`` for anything else."""
    marks: list[Mark] = []
    for item in items:
        match item:
            case [cid, elapsed] if is_cid(cid) and is_cid(elapsed) and cid <= head:
                if not marks or (marks[-1].cid < cid and marks[-1].elapsed <= elapsed):
                    marks.append(Mark(cid, elapsed))
                    continue
        return None
    return tuple(marks)


def _thinned(marks: Sequence[Mark], now: int, longest: int) -> tuple[Mark, ...]:
    """Return the marks that are needed: more of them for recent times, one beyond the longest.

    A mark goes if the gap that it leaves is a small part of the age of the gap. So gaps do not grow
    from run to run.
    """
    kept: list[Mark] = []
    for index, mark in enumerate(marks):
        after = marks[index + 1] if index + 1 < len(marks) else None
        if after is not None and kept and after.elapsed - kept[-1].elapsed <= (now - after.elapsed) * _MARK_SPACING:
            continue
        if now - mark.elapsed >= longest:
            kept.clear()  # an older mark tells nothing more
        kept.append(mark)
    return tuple(kept)


def _ms(time: float | timedelta) -> int:
    return int(seconds_of(time) * 1000)
