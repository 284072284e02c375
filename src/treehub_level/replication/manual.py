"""Manual sync, as in ``@treehub/level``: ``changes``, ``change``, ``apply``, ``dirty``, ``clean``.

Applications with a transport of their own call these methods. They lack the guarantees of `sync`:
``docs/protocol.md``, "Manual sync", lists the failures that can happen between two calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine import clock
from ..engine.access import FULL, Access
from ..engine.commits import read_page
from ..engine.modes import Client, Plan, Server, Step, Write
from ..engine.pending import PendingReader
from ..engine.records import Commit, OwnRecords
from ..errors import CIDMismatchError, CorruptionError, ProtocolError, StateError
from ..types import Change, Changes
from .canonical import same_record
from .effects import Effects
from .journal import LostChange
from .losses import has_losses
from .records import dirty_change, read_state
from .rules import Call, check_group
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
    page = read_page(reader, mode, head, since, limit, max_bytes, whole_bytes, access.keys)
    # The log always keeps its newest record, so there are more records unless this page ends with
    # it.
    return Part(page.cid, page.records, page.commits, page.cid < head)


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
        Refused, CheckError: See `rules.check_group` (raised by the step).
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
        check_group(mode, Call(access.principal, None), entries, PendingReader(transaction))
        last = cid + len(entries)
        groups = ((cid + 1, last),) if len(entries) > 1 else ()
        commit = mode.commit_entry(Commit(cid + 1, last, None, access.principal, clock.now(), groups))
        plan = mode.plan_write_in(mode.epoch_start(transaction, cid), cid, entries, [commit])
        return Plan(last, plan.batch, plan.cid, after_commit=plan.after_commit)

    return step


def write_step(mode: Server, entries: Sequence[Entry], access: Access, *, is_batch: bool = False) -> Step[None]:
    """Write entries of a caller durably, if the check of the server allows it.

    Args:
        mode: The server.
        entries: The entries, encoded.
        access: The rights of the caller, which cover the entries.
        is_batch: True if the entries belong together.

    Raises:
        Refused, CheckError: See `rules.check_group` (raised by the step).
    """

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        check_group(mode, Call(access.principal, None), entries, PendingReader(transaction))
        plan = mode.plan_write(transaction, cid, entries, [Write(len(entries), is_batch, access.principal)])
        plan.durable = True
        return plan

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
        following = state.following
        effects = Effects(mode, transaction, state)
        pages = entries if following.follows_all else [entry for entry in entries if following.wants(entry[0])]
        for (key, value), local in zip(entries, effects.records([key for key, _ in entries]), strict=True):
            if local is None:
                continue
            remote = _core.join_record(key, value)
            if local != remote:
                effects.journal(LostChange(key, local, remote, to, effects.bases.change_of(key)))
            effects.clean(key)
        effects.end_groups()
        effects.finish()
        batch = [*effects.batch, *_core.apply_batch(space, to, pages)]
        return _moving(mode, state, to, batch)

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

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        _check_not_older(cid, to, "reply")
        state = read_state(transaction, mode.records, cid) if to == cid else _idle_state(mode, transaction, cid)
        effects = Effects(mode, transaction, state)
        for (key, sent), record in zip(pushed, effects.records([key for key, _ in pushed]), strict=True):
            if record is None:
                continue
            if sent is None or same_record(record, sent):
                effects.clean(key)
            else:
                effects.bases.learn(key, _core.split_record(sent)[1])
        effects.end_groups()
        effects.finish()
        batch = [*effects.batch, (mode.space.prefix, b"%d" % to)]
        return Plan(to, batch, to) if to == cid else _moving(mode, state, to, batch)

    return step


def _check_not_older(cid: int, to: int, kind: str) -> None:
    if to < cid:
        raise CIDMismatchError(
            f"this client is at CID {cid}; a {kind} that ends at CID {to} is out of date and was not applied",
            expected=cid,
            got=to,
        )


def _moving(mode: Client, state: ClientState, to: int, batch: list[Entry]) -> Plan[int]:
    """Return the plan of a batch that moves the CID, and forgets the CIDs and epochs of the server.

    A manual sync reports neither new epochs nor the server's CID: see `ClientState.is_at_head`. A
    client that begins with one gets all changes, and fills nothing.
    """
    following = state.following if state.cid else state.following.completed()
    after = replace(state, cid=to, max_head=0, epochs=(), following=following)
    recording = partial(setattr, mode, "recording", after.recording)
    return Plan(to, [*batch, *after.replacing(state, mode.space)], to, after_commit=recording)


def _idle_state(mode: Client, transaction: Transaction, cid: int) -> ClientState:
    """Return the state of a client that no `sync` has left in the middle of its work.

    Raises:
        StateError: A push, a fill or a reset of `sync` is in progress.
    """
    state = read_state(transaction, mode.records, cid)
    following = state.following
    progress = {
        "push": state.push or state.withheld_push or state.own_range or has_losses(transaction, mode.space),
        "reset": following.is_resetting,
        "fill": cid and not following.is_complete,
    }
    for kind, is_in_progress in progress.items():
        if is_in_progress:
            raise StateError(f"a {kind} of sync() is in progress: call sync() to finish it before apply() or clean()")
    return state
