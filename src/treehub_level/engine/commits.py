"""The commits in the change log: their records, and pages of the log that end between commits.

The record of a commit is stored under ``P + P + "commit/"`` and the cidkey of its last CID, so that
one seek finds the record that covers a change. A change without a record is a local write of the
server on its own; its time is not known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import closing
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple

from ..backends.base import Reader
from .key_ranges import ALL_KEYS, KeyRanges
from .log import ROW_BYTES, LogPart, read_log, read_wanted, records_size
from .modes import Server
from .records import Commit, OwnRecords, commit_key, commits_stop
from .scan import first_key

#: Commit records that are fetched at a time.
_FETCH: Final = 1000
#: The most CIDs between two changes whose commits are read by one scan instead of two.
_NEAR: Final = 64


class CommittedPart(NamedTuple):
    """A part of the change log.

    Attributes:
        records: The CID and the record of each change, in CID order.
        commits: The commits of these changes, as far as they have records, in CID order.
        cid: The CID up to which the log was read; the one after which the page begins if nothing
            was read.
    """

    records: list[tuple[int, bytes]]
    commits: list[Commit]
    cid: int


def _visible(commit: Commit, cids: Sequence[int]) -> Commit | None:
    """Return the part of a commit that lies among some CIDs; ``None`` if there is none."""
    seen = cids[bisect_left(cids, commit.first) : bisect_left(cids, commit.last + 1)]
    if not seen:
        return None
    runs = [seen[bisect_left(seen, first) : bisect_left(seen, last + 1)] for first, last in commit.groups]
    return commit._replace(
        first=seen[0], last=seen[-1], groups=tuple((run[0], run[-1]) for run in runs if len(run) > 1)
    )


def commit_of(commits: Sequence[Commit], cid: int) -> Commit | None:
    """Return the commit of a change; ``None`` if none of these, in CID order, covers it."""
    index = bisect_left(commits, cid, key=attrgetter("last"))
    return commits[index] if index < len(commits) and commits[index].first <= cid else None


def commits_between(reader: Reader, records: OwnRecords, head: int, first: int, last: int) -> list[Commit]:
    """Return the recorded commits of the changes from ``first`` to ``last``, in CID order.

    Args:
        reader: The reader.
        records: The own records of the server.
        head: The CID of the server in the same state.
        first: The lowest CID.
        last: The highest CID.

    Raises:
        CorruptionError: A record is malformed, or two of them overlap.
    """
    found: list[Commit] = []
    with closing(reader.scan(commit_key(records.space, first), commits_stop(records.space))) as cursor:
        while rows := cursor.fetch(min(_FETCH, last - first + 1)):
            for key, record in rows:
                commit = records.commit(key, record, head)
                if commit.first > last:
                    return found
                if found and commit.first <= found[-1].last:
                    raise records.damaged(key, f"overlaps the commit before it, which ends at {found[-1].last}", record)
                found.append(commit)
                if commit.last >= last:
                    return found
    return found


def last_commit(reader: Reader, records: OwnRecords, head: int) -> Commit | None:
    """Return the last recorded commit; ``None`` if there is none.

    Raises:
        CorruptionError: The record is malformed, or ends beyond ``head``, the CID of the server.
    """
    with closing(reader.scan(commit_key(records.space, 1), commits_stop(records.space), reverse=True)) as cursor:
        return next((records.commit(key, record, head) for key, record in cursor.fetch(1)), None)


def read_page(
    reader: Reader,
    mode: Server,
    head: int,
    after: int,
    limit: int,
    max_bytes: int,
    whole_bytes: int,
    wanted: KeyRanges = ALL_KEYS,
) -> CommittedPart:
    """Read a page of the log that does not end inside changes which belong together.

    If they do not fit any more, the page ends before them. If the page begins with them, it may
    have ``whole_bytes``, so that it holds all of them. They are cut only if they exceed that or the
    limit, or if the page begins inside them.

    The page may leave the server: a caller who wants, or may see, only some keys learns of the
    commits only as much as of the changes: no author of another change, and no CID of one.

    Args:
        reader: The reader.
        mode: The server.
        head: The CID of the server in the same state.
        after: The CID below the first one to read.
        limit: The largest number of changes.
        max_bytes: The largest total size of the changes and of the records of their commits, in
            bytes. One change is returned even if it is larger.
        whole_bytes: The largest total size of changes that belong together.
        wanted: The keys whose changes are wanted. If there are none, nothing is read, and the page
            ends at the head.

    Raises:
        CorruptionError: A key in the range of the log is not a log key, or a change or the record
            of a commit is damaged.
    """
    if not wanted:
        return CommittedPart([], [], max(after, head))
    if wanted.is_all:
        records = read_log(reader, mode, after, limit, max_bytes)
        part = LogPart(records, records[-1][0] if records else after)
    else:
        part = read_wanted(reader, mode, after, wanted, limit, max_bytes)
    commits = commits_of(reader, mode.records, head, part.records)
    part = _fitting(part, commits, max_bytes)
    if after < part.cid < head:
        part = _between_commits(reader, mode, head, part, limit, whole_bytes, wanted)
        if part.records and (not commits or commits[-1].last < part.records[-1][0]):
            commits = commits_of(reader, mode.records, head, part.records)
    mode.records.check_outgoing(part.records)
    if wanted.is_all:
        last = part.records[-1][0] if part.records else 0
        return CommittedPart(part.records, [commit for commit in commits if commit.first <= last], part.cid)
    cids = [cid for cid, _ in part.records]
    return CommittedPart(part.records, [*filter(None, (_visible(commit, cids) for commit in commits))], part.cid)


def commits_of(reader: Reader, records: OwnRecords, head: int, changes: Sequence[tuple[int, bytes]]) -> list[Commit]:
    """Return the recorded commits of some changes, in CID order.

    Args:
        reader: The reader.
        records: The own records of the server.
        head: The CID of the server in the same state.
        changes: The changes, in CID order. Few of them may be spread over a long log.

    Raises:
        CorruptionError: A record is malformed, or two of them overlap.
    """
    found: list[Commit] = []
    start = 0
    for index in range(1, len(changes) + 1):
        if index < len(changes) and changes[index][0] - changes[index - 1][0] <= _NEAR:
            continue
        first, last = changes[start][0], changes[index - 1][0]
        start = index
        if found and found[-1].last >= last:
            continue
        if found:
            first = max(first, found[-1].last + 1)
        found += commits_between(reader, records, head, first, last)
    return found


def _fitting(part: LogPart, commits: Sequence[Commit], max_bytes: int) -> LogPart:
    """Return the first records that fit into a page together with the records of their commits."""
    sizes = {commit.first: commits_size([commit]) for commit in commits}
    if not commits or records_size(part.records) + sum(sizes.values()) <= max_bytes:
        return part
    firsts = sorted(sizes, reverse=True)
    size = 0
    for count, (cid, record) in enumerate(part.records):
        size += ROW_BYTES + len(record)
        while firsts and firsts[-1] <= cid:
            size += sizes[firsts.pop()]
        if size > max_bytes and count:
            return LogPart(part.records[:count], part.records[count - 1][0])
    return part


def _between_commits(
    reader: Reader, mode: Server, head: int, part: LogPart, limit: int, whole_bytes: int, wanted: KeyRanges
) -> LogPart:
    """Return the records of a page that was cut, without a part of changes that belong together.

    If the page holds nothing else, return all of these changes, or a part if they do not fit.
    """
    commits = commits_between(reader, mode.records, head, part.cid, part.cid)
    run = next((run for commit in commits for run in commit.groups if run[0] <= part.cid < run[1]), None)
    if run is None:
        return part
    before = bisect_left(part.records, run[0], key=itemgetter(0))
    if before:
        return LogPart(part.records[:before], run[0] - 1)
    room, most = limit - len(part.records), whole_bytes - records_size(part.records)
    if room <= 0 or most <= 0:
        return part
    rest = read_wanted(reader, mode, part.cid, wanted, room, most, run[1])
    space = mode.space
    is_whole = first_key(reader, space.log_key(rest.cid) + b"\0", space.log_key(run[1]) + b"\0") is None
    if not is_whole or records_size(rest.records) > most:
        return part
    return LogPart([*part.records, *rest.records], rest.cid)


def commits_size(commits: Iterable[Commit]) -> int:
    """Return the bytes that some records of commits take in memory."""
    return sum(ROW_BYTES + len(commit.to_stored()) for commit in commits)
