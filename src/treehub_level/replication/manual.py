"""Manual sync, as in ``@treehub/level``: ``changes``, ``change``, ``apply``, ``dirty``, ``clean``.

Applications with a transport of their own call these methods. They lack the guarantees of `sync`:
``docs/protocol.md``, "Manual sync", lists the failures that can happen between two calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine import clock
from ..engine.access import FULL, Access
from ..engine.commits import read_page
from ..engine.modes import Client, Plan, Server, Step
from ..engine.records import Commit, OwnRecords
from ..errors import CIDMismatchError, CorruptionError, ProtocolError, StateError
from ..types import Change, Changes
from .base_values import BaseValueChanges
from .journal import LostChange, journal_entries
from .records import dirty_change, read_state
from .state import ClientState

#: Rows to read at a time.
_FETCH: Final = 1000


def check_cid(cid: object) -> int:
    """Return ``cid`` if it is a valid CID.

    Raises:
        TypeError: ``cid`` is not an ``int``, or is a ``bool``.
        ValueError: ``cid`` is negative, or greater than 2^53 - 1.
    """
    if type(cid) is not int:
        raise TypeError(f"a CID is an int, not {cid!r:.80}")
    if not 0 <= cid <= _core.MAX_CID:
        raise ValueError(f"a CID lies between 0 and 2^53 - 1; {cid} does not")
    return cid


def decode_record(record: bytes, cid: int | None = None) -> Change:
    """Decode a change record.

    Raises:
        CorruptionError: The record is malformed.
    """
    try:
        change: Change = tuple.__new__(Change, _core.decode_changes([record])[0])
    except ValueError as error:
        raise CorruptionError(f"a change record cannot be read: {record!r:.80}") from error
    if cid is not None:
        change.cid = cid
    return change


def decode_changes(records: Iterable[tuple[int, bytes]], commits: Iterable[Commit]) -> list[Change]:
    """Decode change records, and tell each change its author and its time where they are known.

    Args:
        records: The CID and the record of each change, in CID order.
        commits: The recorded commits of these changes, in CID order.

    Raises:
        CorruptionError: A record is malformed.
    """
    changes = [decode_record(record, cid) for cid, record in records]
    attribute(changes, commits)
    return changes


def attribute(changes: Iterable[Change], commits: Iterable[Commit]) -> None:
    """Set the author and the time of changes with rising CIDs, from their commits."""
    following = iter(commits)
    commit = next(following, None)
    for change in changes:
        while commit is not None and change.cid is not None and commit.last < change.cid:
            commit = next(following, None)
        if commit is None or change.cid is None:
            return
        if commit.first <= change.cid:
            change.by, change.at = commit.by, commit.at


class Part(NamedTuple):
    """A part of the change log, as stored.

    Attributes:
        cid: The CID of the last record that was read, whether the reader may see that record or
            not; if no record was read, the CID after which the part begins.
        records: The CID and the record of each change that the reader may see.
        commits: The recorded commits of these changes, in CID order.
        has_more: True if the log continues after ``cid``.
    """

    cid: int
    records: list[tuple[int, bytes]]
    commits: list[Commit]
    has_more: bool


def read_changes(reader: Reader, mode: Server, head: int, since: int, limit: int) -> Changes:
    """Return at most ``limit`` changes of the log after the CID ``since``.

    Args:
        reader: The store to read from.
        mode: The server.
        head: The server's CID.
        since: The CID after which the page begins.
        limit: The maximum number of changes.

    Raises:
        CIDMismatchError: ``since`` is greater than ``head``, or below the floor.
    """
    part = read_part(reader, mode, head, since, limit, max_bytes=1 << 62)
    return Changes(part.cid, decode_changes(part.records, part.commits), part.has_more)


def read_part(
    reader: Reader,
    mode: Server,
    head: int,
    since: int,
    limit: int,
    max_bytes: int,
    access: Access = FULL,
    whole_bytes: int = 0,
) -> Part:
    """Return records of the log after the CID ``since``: see `read_changes`.

    Args:
        reader: The store to read from.
        mode: The server.
        head: The server's CID.
        since: The CID after which the part begins.
        limit: The maximum number of records.
        max_bytes: The maximum size of the records. The first record is returned even if it is
            larger.
        access: The keys that the reader may see.
        whole_bytes: The maximum size of changes that belong together. A part that begins with them
            may be so large: see `read_page`.

    Raises:
        CIDMismatchError: ``since`` is greater than ``head``, or below the floor.
    """
    if since > head:
        raise CIDMismatchError(
            f"there are no changes after CID {since}: this server is at CID {head}. The server was restored from a "
            "backup, or the client has synchronised with another server",
            expected=head,
            got=since,
        )
    floor = mode.records.floor(reader, head).floor
    if 0 < since < floor:
        raise CIDMismatchError(
            f"deletes up to CID {floor} were compacted away, so the changes after CID {since} would be incomplete: "
            "use sync()",
            expected=floor,
            got=since,
        )
    page = read_page(reader, mode, head, since, limit, max_bytes, whole_bytes)
    reached = page.records[-1][0] if page.records else since
    # The log always keeps its newest record, so there are more records unless this page ends with
    # it.
    return Part(reached, *page.outgoing(mode, access), reached < head)


def change_step(mode: Server, base: int, entries: Sequence[Entry], access: Access = FULL) -> Step[int]:
    """Append pushed changes to the log, and return the new CID.

    Args:
        mode: The server.
        base: The CID that the client has pulled up to.
        entries: The changes, encoded.
        access: The keys that the client may write.

    Raises:
        ProtocolError: A key occurs twice.
        ForbiddenError: The client may not write a key (raised by the step).
        CIDMismatchError: The server's CID is not ``base`` (raised by the step).
    """
    keys = {key for key, _ in entries}
    if len(keys) < len(entries):
        raise ProtocolError("the push holds a key twice: send only the last change of each key")

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        access.check_write(keys)
        if base != cid:
            raise CIDMismatchError(
                f"the push starts from CID {base}, this server is at CID {cid}: pull first", expected=cid, got=base
            )
        if not entries:
            return Plan(cid)
        last = cid + len(entries)
        groups = ((cid + 1, last),) if len(entries) > 1 else ()
        commit = mode.commit_entry(Commit(cid + 1, last, None, access.principal, clock.now(), groups))
        plan = mode.plan_write_in(mode.epoch_start(transaction, cid), cid, entries, [commit])
        return Plan(last, plan.batch, plan.cid, after_commit=plan.after_commit)

    return step


def apply_step(mode: Client, to: int, entries: Sequence[Entry]) -> Step[int]:
    """Write a pulled page, drop the dirty changes of its keys, and move the CID to ``to``."""
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        _check_not_older(cid, to, "page")
        if to == cid:
            if entries and cid == 0:
                raise ProtocolError("a page with changes ends at CID 1 or later, not at CID 0")
            return Plan(cid)
        state = _idle_state(mode, transaction, cid)
        batch = [*_entries_without_history(state, to, space), *_core.apply_batch(space, to, entries)]
        bases = BaseValueChanges(transaction, mode.records, state.bases)
        keys = list(dict.fromkeys(key for key, _ in entries))
        dirty = dict(zip(keys, transaction.get_many([space.dirty_key(key) for key in keys]), strict=True))
        lost = []
        for key, value in entries:
            local, remote = dirty.pop(key, None), _core.join_record(key, value)
            if local is None:
                continue
            if local != remote:
                dirty_change(mode.records, space.dirty_key(key), local)
                lost.append(LostChange(key, local, remote, to, bases.change_of(key)))
            bases.forget(key)
        batch.extend(journal_entries(transaction, mode.records, lost))
        batch.extend(bases.entries())
        return Plan(to, batch, to)

    return step


def read_dirty(reader: Reader, own: OwnRecords, limit: int | None) -> list[tuple[bytes, bytes]]:
    """Return the keys and records of at most ``limit`` dirty changes, in key order.

    Raises:
        CorruptionError: A record is damaged.
    """
    rows: list[tuple[bytes, bytes]] = []
    space = own.space
    with closing(reader.scan(space.dirty_start, space.dirty_stop)) as cursor:
        while limit is None or len(rows) < limit:
            page = cursor.fetch(_FETCH if limit is None else min(_FETCH, limit - len(rows)))
            if not page:
                break
            rows.extend((dirty_change(own, key, record)[0], record) for key, record in page)
    return rows


def clean_step(mode: Client, to: int, pushed: Sequence[tuple[bytes, bytes | None]]) -> Step[int]:
    """Drop the dirty changes that the server accepted, and move the CID to ``to``.

    Args:
        mode: The client.
        to: The CID that ``change()`` returned on the server.
        pushed: Each key with the record that was pushed. A dirty change that was rewritten since
            stays dirty. ``None`` instead of the record drops the dirty change in any case.
    """
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        _check_not_older(cid, to, "reply")
        state = read_state(transaction, mode.records, cid) if to == cid else _idle_state(mode, transaction, cid)
        bases = BaseValueChanges(transaction, mode.records, state.bases)
        dirty_keys = [space.dirty_key(key) for key, _ in pushed]
        batch: list[Entry] = [] if to == cid else _entries_without_history(state, to, space)
        for dirty_key, record, (key, sent) in zip(dirty_keys, transaction.get_many(dirty_keys), pushed, strict=True):
            if record is None:
                continue
            if sent is None or same_record(record, sent):
                batch.append((dirty_key, None))
                bases.forget(key)
            else:
                bases.learn(key, _core.split_record(sent)[1])
        batch.extend(bases.entries())
        batch.append((space.prefix, b"%d" % to))
        return Plan(to, batch, to)

    return step


def same_record(stored: bytes, sent: bytes) -> bool:
    """Return True if two records are the same JSON.

    Records that ``@treehub/level`` has written may differ in white space and escapes.
    """
    return stored == sent or canonical(stored) == canonical(sent)


def canonical(record: bytes) -> bytes:
    """Return a record as this library would write it.

    A record that is not JSON is returned unchanged.
    """
    try:
        return orjson.dumps(orjson.loads(record))
    except (ValueError, TypeError):
        return record


def _check_not_older(cid: int, to: int, kind: str) -> None:
    if to < cid:
        raise CIDMismatchError(
            f"this client is at CID {cid}; a {kind} that ends at CID {to} is out of date and was not applied",
            expected=cid,
            got=to,
        )


def _entries_without_history(state: ClientState, to: int, space: _core.KeySpace) -> list[Entry]:
    """Return entries that drop the seen epochs: a manual sync does not report new ones."""
    return replace(state, max_head=to, epochs=()).replacing(state, space)


def _idle_state(mode: Client, transaction: Transaction, cid: int) -> ClientState:
    """Return the state of a client that no `sync` has left in the middle of a push or a reset.

    Raises:
        StateError: A push or a reset of `sync` is in progress.
    """
    space = mode.space
    for name, kind in (("push", "push"), ("aside", "push"), ("own", "push"), ("reset", "reset")):
        if transaction.get(space.own_key(name)) is not None:
            raise StateError(f"a {kind} of sync() is in progress: call sync() to finish it before apply() or clean()")
    return read_state(transaction, mode.records, cid)
