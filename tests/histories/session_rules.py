"""The session guarantees of Terry et al. (1994), for each session of a history.

"Session Guarantees for Weakly Consistent Replicated Data".

The versions of a key have the order of the log. A client's own change that the server has not
decided on has no place in it yet; it may lose.
"""

from __future__ import annotations

from collections.abc import Iterator

from .history import Operation
from .index import Anomaly, Index, Journal
from .versions import ids


def read_your_writes(index: Index) -> Iterator[Anomaly]:
    """Find reads of a value that is older than an own write which had returned before."""
    for session, operations in index.history.sessions.items():
        journal = index.journal(session)
        last: dict[str, Operation] = {}
        for operation in operations:
            if operation.outcome != "ok":
                continue
            if operation.kind in ("read", "transaction"):
                for key, id_ in operation.reads.items():
                    write = last.get(key)
                    if write is not None and _is_before(index, key, id_, write, journal):
                        text = f"{operation} read {id_} from {key} after {write} had written {write.writes[key]}"
                        yield Anomaly("read your writes", session, text)
            if operation.kind in ("write", "transaction"):
                last |= dict.fromkeys(operation.writes, operation)


def _is_before(index: Index, key: str, id_: str | None, write: Operation, journal: Journal) -> bool:
    """Return True if a read id is certainly older than an own write, which it should have seen.

    A write may lose together with another key of its batch. Then the server's value comes back,
    which may be an older write of the same session. It comes back, too, if the newer write was made
    in a range that the store did not have, where it was compared with that value later.
    """
    written = write.writes[key]
    if id_ is None or id_ == written:
        return False  # an absent key may be unfollowed, or deleted since
    read_cid, write_cid = index.versions.cid_of(key, id_), index.versions.cid_of(key, written)
    if read_cid is not None and write_cid is not None:
        return read_cid < write_cid
    writer = index.writers.get((key, id_))
    if writer is None or writer.session != write.session:
        # Another session's value: it has won over a write that is not in the log. The write shows
        # as lost if it is in no journal either.
        return False
    if writer.number > write.number:
        return False
    is_unseen = key in write.reads and write.reads[key] is None
    may_be_lost = written is None or ((key, written) in journal and (is_unseen or _is_grouped(index, write, key)))
    return read_cid is None or not may_be_lost


def _is_grouped(index: Index, write: Operation, key: str) -> bool:
    """Return True if a write, or a change that it overwrote locally, is of a batch."""
    operation: Operation | None = write
    while operation is not None:
        if len(operation.writes) > 1:
            return True
        earlier = index.previous(operation, key)
        is_over = earlier is not None and operation.reads.get(key) == earlier.writes[key]
        is_accepted = index.versions.cid_of(key, operation.writes[key]) is not None
        operation = earlier if is_over and not is_accepted else None
    return False


def monotonic_reads(index: Index) -> Iterator[Anomaly]:
    """Find reads of an older version, or at a lower CID, than the session had read before."""
    for session, operations in index.history.sessions.items():
        newest: dict[str, tuple[int, Operation]] = {}
        cid = 0
        for read in operations:
            if read.kind not in ("read", "transaction") or read.outcome != "ok":
                continue
            if read.cid is not None:
                if read.cid < cid:
                    yield Anomaly("monotonic reads", session, f"{read} was at CID {read.cid}, after {cid}")
                cid = max(cid, read.cid)
            for key, id_ in read.reads.items():
                if id_ is None and not _is_server_state(index, read, key):
                    continue
                position = index.versions.position(key, id_, read.cid)
                if position is None:
                    continue
                before = newest.get(key)
                if before is not None and position < before[0]:
                    text = f"{read} read CID {position} of {key}, after {before[1]} had read CID {before[0]}"
                    yield Anomaly("monotonic reads", session, text)
                else:
                    newest[key] = position, read


def _is_server_state(index: Index, read: Operation, key: str) -> bool:
    """Return True if a key can only be absent because the server does not have it."""
    return not index.has_store(read.session) or (read.is_whole and not index.deletes(read.session, key))


def monotonic_writes(index: Index) -> Iterator[Anomaly]:
    """Find writes of a session whose order in the log is not that of their calls.

    For a client this covers the writes of one key: those of different keys are pushed in the order
    of their keys, and may be rejected one by one (`reordered_writes`).
    """
    for session, operations in index.history.sessions.items():
        last: dict[str, tuple[int, Operation]] = {}
        for write in operations:
            if write.kind not in ("write", "transaction") or write.outcome != "ok":
                continue
            for key, id_ in ids(write.writes):
                cid = index.versions.cid_of(key, id_)
                if cid is None:
                    continue
                scope = key if index.has_store(session) else ""
                before = last.get(scope)
                if before is not None and cid < before[0]:
                    text = f"{write} has the CID {cid} of {key}, and {before[1]} before it {before[0]}"
                    yield Anomaly("monotonic writes", session, text)
                else:
                    last[scope] = cid, write


def writes_follow_reads(index: Index) -> Iterator[Anomaly]:
    """Find writes whose CID is lower than that of another session's write that was read before."""
    for session, operations in index.history.sessions.items():
        highest, source = 0, ""
        for operation in operations:
            if operation.outcome != "ok":
                continue
            if operation.kind in ("read", "transaction"):
                for key, id_ in ids(operation.reads):
                    cid = index.versions.cid_of(key, id_)
                    if cid is not None and cid > highest and not index.is_own(session, key, id_):
                        highest, source = cid, f"{operation} had read {id_} of {key}"
            if operation.kind in ("write", "transaction"):
                for key, id_ in ids(operation.writes):
                    cid = index.versions.cid_of(key, id_)
                    if cid is not None and cid < highest:
                        text = f"{operation} has the CID {cid} of {key}, after {source}, CID {highest}"
                        yield Anomaly("writes follow reads", session, text)


def reordered_writes(index: Index) -> int:
    """Count the accepted writes of clients with a lower CID than an earlier one to another key.

    They are no anomaly: see docs/reliability.md.
    """
    count = 0
    for session, operations in index.history.sessions.items():
        highest = 0
        for write in operations:
            if write.kind == "write" and index.has_store(session):
                cids = [index.versions.cid_of(key, id_) or highest for key, id_ in ids(write.writes)]
                count += any(cid < highest for cid in cids)
                highest = max([highest, *cids])
    return count
