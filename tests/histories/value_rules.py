"""Rules about single values: aborted and intermediate reads, lost writes, lost updates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from .history import Operation, Version
from .index import Anomaly, Index
from .versions import ids


def log_anomalies(index: Index) -> Iterator[Anomaly]:
    """Find changes in the log that no session wrote, that failed, or that occur twice."""
    log = index.history.log
    seen: dict[tuple[str, str], int] = {}
    for number, (cid, key, id_) in enumerate(log, start=1):
        if cid != number:
            yield Anomaly("gap in the log", "", f"the change {number} has the CID {cid}")
            return
        if id_ is None:
            continue
        writer = index.writers.get((key, id_))
        if writer is None:
            yield Anomaly("unknown write", "", f"no session wrote {id_} to {key}, which has the CID {cid}")
        elif writer.outcome == "failed":
            yield Anomaly("failed write", writer.session, f"{id_} failed, but {key} has it under the CID {cid}")
        if (key, id_) in seen:
            yield Anomaly("repeated write", "", f"{id_} was written to {key} under {seen[key, id_]} and {cid}")
        seen[key, id_] = cid


def undrained_sessions(index: Index) -> Iterator[Anomaly]:
    """Find sessions that could not synchronise at the end, though the network was well."""
    for session in sorted(index.history.undrained):
        yield Anomaly("not drained", session, "it did not end")


def aborted_and_intermediate_reads(index: Index) -> Iterator[Anomaly]:
    """Find reads of values that never came into the log: Adya's G1a and G1b.

    A client may read its own changes before the server has decided on them.
    """
    for read in index.reads():
        for key, id_ in ids(read.reads):
            if index.versions.cid_of(key, id_) is not None:
                continue
            writer = index.writers.get((key, id_))
            if writer is None:
                yield Anomaly("unknown write", read.session, f"{read} read {id_} from {key}: no session wrote it")
            elif writer.session != read.session or not index.has_store(read.session):
                name = "G1b" if _is_superseded(index, writer, key) else "G1a"
                yield Anomaly(name, read.session, f"{read} read {id_} from {key}, which is not in the log")


def _is_superseded(index: Index, write: Operation, key: str) -> bool:
    """Return True if a later write of the same session to a key is in the log."""
    later = index.next(write, key)
    while later is not None:
        if index.versions.cid_of(key, later.writes[key]) is not None:
            return True
        later = index.next(later, key)
    return False


def lost_writes(index: Index) -> Iterator[Anomaly]:
    """Find writes that returned, and are in no log and no journal, and were not overwritten.

    A write of a client was overwritten locally if the next write of the same session to its key saw
    it.
    """
    for session, operations in index.history.sessions.items():
        if session in index.history.undrained:
            continue  # its writes may still be dirty
        journal = index.journal(session)
        for write in operations:
            if write.kind not in ("write", "transaction") or write.outcome != "ok":
                continue
            for key, id_ in ids(write.writes):
                if index.versions.cid_of(key, id_) is not None or (key, id_) in journal:
                    continue
                later = index.next(write, key) if index.has_store(session) else None
                if later is None or later.reads.get(key) != id_:
                    yield Anomaly("lost write", session, f"{write} wrote {id_} to {key}: neither in log nor journal")


def lost_updates(index: Index) -> Iterator[Anomaly]:
    """Find accepted changes of clients that overwrote a change which the client had not seen.

    Berenson et al. call it P4 in "A Critique of ANSI SQL Isolation Levels" (1995). It is a G-single
    over one key. Writes of sessions without a store, and changes of keys that the client did not
    have completely, are not covered: they see nothing.
    """
    for key, versions in index.versions.of_key.items():
        for before, version in pairwise([Version(0, key, None), *versions]):
            writer = None if version.id is None else index.writers.get((key, version.id))
            if writer is None or key not in writer.followed or index.is_own(writer.session, key, before.id):
                continue
            if not _has_seen(index, writer, key, before):
                yield Anomaly(
                    "lost update",
                    writer.session,
                    f"{writer} overwrote {before.id} of {key}, CID {before.cid}, by {version.id}, CID {version.cid}, "
                    f"after it had read {_bases(index, writer, key)}",
                )


def _has_seen(index: Index, write: Operation, key: str, before: Version) -> bool:
    if write.cid is not None and before.cid <= write.cid:
        return True  # the store may have changed between the read and the write
    return before.id in _bases(index, write, key)


def _bases(index: Index, write: Operation, key: str) -> list[str | None]:
    """Return the ids that a session's change of a key was made from, the oldest last.

    Those are the one that it read, and those that own changes overwrote before, as far as these own
    changes never reached the server.
    """
    bases = [write.reads.get(key)]
    earlier = index.previous(write, key)
    while earlier is not None and earlier.writes[key] == bases[-1] and index.versions.cid_of(key, bases[-1]) is None:
        bases.append(earlier.reads.get(key))
        earlier = index.previous(earlier, key)
    return bases
