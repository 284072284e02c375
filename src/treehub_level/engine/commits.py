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
from .access import Access
from .log import ROW_BYTES, outgoing_records, read_log, read_rows, records_size
from .modes import Server
from .records import Commit, OwnRecords, commit_key, commits_stop
from .scan import first_key

#: Commit records that are fetched at a time.
_FETCH: Final = 1000


class LogSegment(NamedTuple):
    """A part of the change log.

    Attributes:
        records: The CID and the record of each change, in CID order.
        commits: The commits of these changes, as far as they have records, in CID order.
    """

    records: list[tuple[int, bytes]]
    commits: list[Commit]

    def outgoing(self, mode: Server, access: Access) -> LogSegment:
        """Return the part of the page that may leave the server to a caller.

        A caller with rights to some keys learns of the commits only as much as of the changes: no
        author of a change that is hidden from it, and no CID.

        Raises:
            CorruptionError: A record is damaged.
        """
        records = outgoing_records(mode, self.records, access)
        if not access.prefix:
            return LogSegment(records, self.commits)
        cids = [cid for cid, _ in records]
        return LogSegment(records, [*filter(None, (_visible(commit, cids) for commit in self.commits))])


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
    reader: Reader, mode: Server, head: int, after: int, limit: int, max_bytes: int, whole_bytes: int
) -> LogSegment:
    """Read a page of the log that does not end inside changes which belong together.

    If they do not fit any more, the page ends before them. If the page begins with them, it may
    have ``whole_bytes``, so that it holds all of them. They are cut only if they exceed that or the
    limit, or if the page begins inside them.

    Args:
        reader: The reader.
        mode: The server.
        head: The CID of the server in the same state.
        after: The CID below the first one to read.
        limit: The largest number of changes.
        max_bytes: The largest total size of the changes and of the records of their commits, in
            bytes. One change is returned even if it is larger.
        whole_bytes: The largest total size of changes that belong together.

    Raises:
        CorruptionError: A key in the range of the log is not a log key, or the record of a commit
            is damaged.
    """
    records = read_log(reader, mode, after, limit, max_bytes)
    if not records:
        return LogSegment(records, [])
    commits = commits_between(reader, mode.records, head, records[0][0], records[-1][0])
    if commits:
        records = _fitting(records, commits, max_bytes)
        if records[-1][0] < head:
            records = _between_commits(reader, mode, records, commits, limit, whole_bytes)
        last = records[-1][0]
        commits = [commit for commit in commits if commit.first <= last]
    return LogSegment(records, commits)


def _fitting(records: list[tuple[int, bytes]], commits: Iterable[Commit], max_bytes: int) -> list[tuple[int, bytes]]:
    """Return the first records that fit into a page together with the records of their commits."""
    sizes = {commit.first: commits_size([commit]) for commit in commits}
    if records_size(records) + sum(sizes.values()) <= max_bytes:
        return records
    firsts = sorted(sizes, reverse=True)
    size = 0
    for count, (cid, record) in enumerate(records):
        size += ROW_BYTES + len(record)
        while firsts and firsts[-1] <= cid:
            size += sizes[firsts.pop()]
        if size > max_bytes and count:
            return records[:count]
    return records


def _between_commits(
    reader: Reader,
    mode: Server,
    records: list[tuple[int, bytes]],
    commits: Iterable[Commit],
    limit: int,
    whole_bytes: int,
) -> list[tuple[int, bytes]]:
    """Return the records of a page that was cut, without a part of changes that belong together.

    If the page holds nothing else, return all of these changes, or a part if they do not fit.
    """
    last = records[-1][0]
    run = next((run for commit in commits for run in commit.groups if run[0] <= last < run[1]), None)
    if run is None:
        return records
    before = bisect_left(records, run[0], key=itemgetter(0))
    if before:
        return records[:before]
    room, most = limit - len(records), whole_bytes - records_size(records)
    if room <= 0 or most <= 0:
        return records
    space = mode.space
    with closing(reader.scan(space.log_key(last + 1), space.log_key(run[1]) + b"\0")) as cursor:
        rest = [(mode.records.log_cid(key), record) for key, record in read_rows(cursor, room, most)]
    end = rest[-1][0] if rest else last
    is_whole = first_key(reader, space.log_key(end) + b"\0", space.log_key(run[1]) + b"\0") is None
    return [*records, *rest] if is_whole and records_size(rest) <= most else records


def commits_size(commits: Iterable[Commit]) -> int:
    """Return the bytes that some records of commits take in memory."""
    return sum(ROW_BYTES + len(commit.to_stored()) for commit in commits)
