"""Rules about several keys: groups in the log, fractured reads, states of clients."""

from __future__ import annotations

from collections.abc import Iterator

from .history import Operation
from .index import Anomaly, Index

#: The CID of each change of a group.
Group = dict[str, int]


def groups_of(index: Index) -> dict[tuple[str, str], Group]:
    """Return the group of each accepted value of a batch, by its key and id.

    A later write of the same session may have replaced other values of the batch before it was
    pushed. Then these take their place.
    """
    found: dict[tuple[str, str], Group] = {}
    for operation in index.history.operations:
        if operation.kind not in ("write", "transaction") or len(operation.writes) < 2:
            continue
        group = _group(index, operation)
        for key, id_ in operation.writes.items():
            if id_ is not None and index.versions.cid_of(key, id_) is not None:
                found[key, id_] = group
    return found


def _group(index: Index, operation: Operation) -> Group:
    """Return the CIDs of the accepted changes of a batch, or of those that replaced them."""
    group: Group = {}
    for key, written in operation.writes.items():
        if written is None:
            continue  # a delete has no id
        write: Operation | None = operation
        while write is not None:
            cid = index.versions.cid_of(key, write.writes[key])
            if cid is not None:
                group[key] = cid
                break
            if write.writes[key] is None:
                break
            write = index.next(write, key)
    return group


def divided_groups(index: Index) -> Iterator[Anomaly]:
    """Find batches of which the log has a part, or which another session's change divides."""
    log = index.history.log
    for operation in index.history.operations:
        if operation.kind not in ("write", "transaction") or len(operation.writes) < 2:
            continue
        own = {key: index.versions.cid_of(key, id_) for key, id_ in operation.writes.items() if id_ is not None}
        if all(cid is None for cid in own.values()):
            continue
        group = _group(index, operation)
        if missing := [key for key in own if key not in group and not _ends_in_delete(index, operation, key)]:
            yield Anomaly("divided group", operation.session, f"{operation}: the log lacks {missing} of it")
            continue
        first, last = min(group.values()), max(group.values())
        for _, key, id_ in log[first - 1 : last]:
            if id_ is not None and not index.is_own(operation.session, key, id_):
                text = f"{operation}: CIDs {sorted(group.values())}, with {id_} of {key} in between"
                yield Anomaly("divided group", operation.session, text)
                break


def _ends_in_delete(index: Index, operation: Operation, key: str) -> bool:
    """Return True if a delete, which has no id, has replaced a value of a batch."""
    write = index.next(operation, key)
    while write is not None:
        if write.writes[key] is None:
            return True
        write = index.next(write, key)
    return False


def fractured_reads(index: Index) -> Iterator[Anomaly]:
    """Find states with one value of a batch beside an older value of another key of it.

    Read Atomic isolation excludes them: Bailis et al., "Scalable Atomic Visibility with RAMP
    Transactions" (2014).
    """
    groups = groups_of(index)
    for read in index.reads():
        if index.has_store(read.session) and not read.is_whole:
            continue
        for key, id_ in read.reads.items():
            group = groups.get((key, id_)) if id_ is not None else None
            if group is None or index.is_overlay(read, key):
                continue
            for other, cid in group.items():
                if other in read.reads and not index.is_overlay(read, other) and _is_older(index, read, other, cid):
                    text = f"{read} has {id_} of {key}, and {read.reads[other]} of {other}, older than its CID {cid}"
                    yield Anomaly("fractured read", read.session, text)


def _is_older(index: Index, read: Operation, key: str, cid: int) -> bool:
    """Return True if the version of a key that was read is certainly older than a CID."""
    position = index.versions.position(key, read.reads[key], read.cid)
    if position is None and read.reads[key] is None:
        position = index.versions.last_absent(key)
    return position is not None and position < cid


def states(index: Index) -> Iterator[Anomaly]:
    """Find states of clients that are not the server's at the client's CID, but for own changes.

    So the states of all clients are prefixes of one log. After a synchronisation that reports a
    consistent state, own changes are in the log up to this CID, too.
    """
    for read in index.reads():
        if read.cid is None or not read.is_whole:
            continue
        for key, id_ in read.reads.items():
            if key in read.dirty:
                continue
            version = index.versions.at(key, read.cid)
            expected = None if version is None else version.id
            if id_ == expected or (not read.is_consistent and _is_accepted_later(index, read, key)):
                continue
            name = "inconsistent report" if read.is_consistent else "not a prefix"
            text = f"{read} has {id_} of {key} at CID {read.cid}, where the server had {expected}"
            yield Anomaly(name, read.session, text)


def _is_accepted_later(index: Index, read: Operation, key: str) -> bool:
    """Return True if a client may have read an own change beyond its CID."""
    if read.reads[key] is not None:
        return index.is_overlay(read, key)
    deletes = index.own_writes.get((read.session, key), ())
    is_deleted = any(it.writes[key] is None and it.number < read.number for it in deletes)
    return is_deleted and read.cid is not None and index.versions.last_absent(key) > read.cid
