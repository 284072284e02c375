"""The seed's pull and push, one step each: ``changes`` and ``apply``, ``dirty``, ``change`` and ``clean``.

They are kept as public verbs for those who bring their own transport. They lack the guarantees of the exchange: see
``protocol.md``, "The seed's steps", for what can go wrong between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.access import FULL, Access
from ..engine.log import permitted_records, read_floor, read_log
from ..engine.modes import Client, Plan, Server, Step, read_record
from ..errors import CIDMismatchError, CorruptionError, ProtocolError, StateError
from ..types import Change, Changes
from .journal import LostChange, journal_entries

#: Rows that are read at a time.
_FETCH: Final = 1000


def check_cid(cid: object) -> int:
    """``cid`` if it can be one.

    Raises:
        TypeError: Not an ``int`` (a ``bool`` is none).
        ValueError: Negative, or beyond 2^53 - 1.
    """
    if type(cid) is not int:
        raise TypeError(f"a CID is an int, not {cid!r:.80}")
    if not 0 <= cid <= _core.MAX_CID:
        raise ValueError(f"a CID lies between 0 and 2^53 - 1, not at {cid}")
    return cid


def decode_record(record: bytes, cid: int | None = None) -> Change:
    """A change record as a `Change`.

    Raises:
        CorruptionError: It is no change record.
    """
    try:
        change: Change = tuple.__new__(Change, _core.decode_changes([record])[0])
    except ValueError as error:
        raise CorruptionError(f"a change record cannot be read: {record!r:.80}") from error
    if cid is not None:
        change.cid = cid
    return change


class Part(NamedTuple):
    """A part of the log, as it is stored.

    Attributes:
        cid: Where it ends: the CID of its last record, seen or not, or the one asked after if there is none.
        records: The CID of each change that may be seen, and its record.
        has_more: Whether the log goes on behind it.
    """

    cid: int
    records: list[tuple[int, bytes]]
    has_more: bool


def read_changes(reader: Reader, space: _core.KeySpace, head: int, since: int, limit: int) -> Changes:
    """The page of the log behind ``since``, for a server whose CID is ``head``.

    Raises:
        CIDMismatchError: ``since`` lies beyond the log, or below what the log can still tell.
    """
    part = read_part(reader, space, head, since, limit, max_bytes=1 << 62)
    return Changes(part.cid, [decode_record(record, cid) for cid, record in part.records], part.has_more)


def read_part(
    reader: Reader, space: _core.KeySpace, head: int, since: int, limit: int, max_bytes: int, access: Access = FULL
) -> Part:
    """See `read_changes`."""
    if since > head:
        raise CIDMismatchError(
            f"changes after CID {since} were asked of a server at CID {head}: it was restored, or is another one",
            expected=head,
            got=since,
        )
    floor = read_floor(reader, space)[1]
    if 0 < since < floor:
        raise CIDMismatchError(
            f"deletes up to CID {floor} are forgotten, so changes after CID {since} would be incomplete: use sync()",
            expected=floor,
            got=since,
        )
    records = read_log(reader, space, since, limit, max_bytes)
    reached = records[-1][0] if records else since
    # The newest change always stays in the log, so there is more unless this was it.
    return Part(reached, permitted_records(records, access), reached < head)


def change_step(mode: Server, base: int, entries: Sequence[Entry], access: Access = FULL) -> Step[int]:
    """The seed's push: take the changes if ``base`` is the CID now, and answer with the new CID.

    Raises:
        ProtocolError: A key twice.
        ForbiddenError: A key that may not be written (in the step).
        CIDMismatchError: Another CID (in the step).
    """
    keys = {key for key, _ in entries}
    if len(keys) < len(entries):
        raise ProtocolError("a push holds a key twice: send the last change of each key only")

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        access.check_write(keys)
        if base != cid:
            raise CIDMismatchError(
                f"the push starts from CID {base}, this server is at CID {cid}: pull first", expected=cid, got=base
            )
        plan = mode.plan_write(transaction, cid, entries)
        return Plan(cid + len(entries), plan.batch, plan.cid, after_commit=plan.after_commit)

    return step


def apply_step(mode: Client, to: int, entries: Sequence[Entry]) -> Step[int]:
    """The seed's pull, second half: write a page, drop the dirty changes of its keys, move the CID to ``to``."""
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        _refuse_backwards(cid, to, "page")
        if to == cid:
            if entries and cid == 0:
                raise ProtocolError("a page with changes ends at CID 1 or later, not at CID 0")
            return Plan(cid)
        batch = [*_own_records(mode, transaction, to), *_core.apply_batch(space, to, entries)]
        keys = list(dict.fromkeys(key for key, _ in entries))
        dirty = dict(zip(keys, transaction.get_many([space.dirty_key(key) for key in keys]), strict=True))
        lost = []
        for key, value in entries:
            local, remote = dirty.pop(key, None), _core.join_record(key, value)
            if local is not None and local != remote:
                lost.append(LostChange(key, local, remote, to))
        batch.extend(journal_entries(transaction, space, lost))
        return Plan(to, batch, to)

    return step


def read_dirty(reader: Reader, space: _core.KeySpace, limit: int | None) -> list[tuple[bytes, bytes]]:
    """Keys and records of the dirty changes, in key order, at most ``limit``."""
    rows: list[tuple[bytes, bytes]] = []
    strip = len(space.prefix)
    with closing(reader.scan(space.dirty_start, space.dirty_stop)) as cursor:
        while limit is None or len(rows) < limit:
            page = cursor.fetch(_FETCH if limit is None else min(_FETCH, limit - len(rows)))
            if not page:
                break
            rows.extend((key[strip:], record) for key, record in page)
    return rows


def clean_step(mode: Client, to: int, pushed: Sequence[tuple[bytes, bytes | None]]) -> Step[int]:
    """The seed's push, second half: forget dirty changes that the server took, move the CID to ``to``.

    Args:
        mode: The client.
        to: The CID that the server answered.
        pushed: Keys, each with the record that was pushed: one rewritten since stays dirty. ``None`` where only the
            key is known.
    """
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        _refuse_backwards(cid, to, "answer")
        dirty_keys = [space.dirty_key(key) for key, _ in pushed]
        batch: list[Entry] = [] if to == cid else _own_records(mode, transaction, to)
        batch.extend(
            (dirty_key, None)
            for dirty_key, record, (_, sent) in zip(dirty_keys, transaction.get_many(dirty_keys), pushed, strict=True)
            if record is not None and (sent is None or same_record(record, sent))
        )
        batch.append((space.prefix, b"%d" % to))
        return Plan(to, batch, to)

    return step


def same_record(stored: bytes, sent: bytes) -> bool:
    """Whether two records say the same. The original's may differ in white space and escapes."""
    return stored == sent or canonical(stored) == canonical(sent)


def canonical(record: bytes) -> bytes:
    """The record as this library would write it; unchanged if it is not JSON."""
    try:
        return orjson.dumps(orjson.loads(record))
    except (ValueError, TypeError):
        return record


def _refuse_backwards(cid: int, to: int, what: str) -> None:
    if to < cid:
        raise CIDMismatchError(
            f"this client is at CID {cid}; a {what} that ends at CID {to} is late and was not applied",
            expected=cid,
            got=to,
        )


def _own_records(mode: Client, transaction: Transaction, to: int) -> list[Entry]:
    """What the client's own records become when the seed's verbs move its CID: it has no history to show any more."""
    space = mode.space
    for name, what in (("push", "push"), ("aside", "push"), ("own", "push"), ("reset", "reset")):
        if transaction.get(space.own_key(name)) is not None:
            raise StateError(f"a {what} of sync() is under way: let sync() finish before apply() or clean()")
    server = read_record(transaction, space.own_key("server"))
    if server is None:
        return []
    return [(space.own_key("server"), orjson.dumps({"id": server["id"], "hi": to, "epochs": []}))]
