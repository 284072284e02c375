"""The own records of replication, each read with its type and its checks (``docs/format.md``).

On a client: the replication state, the dirty changes and the conflict journal. On a server: the
decisions on its clients' last pushes. A record that does not fit raises `CorruptionError`, as those
of ``engine.records`` do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Row
from ..engine import clock
from ..engine.base_values import BASES, Bases
from ..engine.following import EARLIER_RESET, FOLLOW, Following, common_of_earlier_reset
from ..engine.records import HEX, ID, Epoch, OwnRecords, is_cid
from ..errors import LevelError, ProtocolError
from ..types import Change, Conflict, ConflictKind
from .fields import MAX_PUSH, NONCE, Ack, Fields
from .state import NAMES, ClientState, Push

T = TypeVar("T")

_TEXT: Final = re.compile(r".+", re.DOTALL)

#: The first key after the conflict journal: "0" follows "/" in ASCII.
_JOURNAL, _AFTER_JOURNAL = "conflict/", "conflict0"


#: A reason, and the changes of a push that are refused for it: runs ``(first, count)`` of indices.
StoredRefusal = tuple[str, tuple[tuple[int, int], ...]]


class Decision(NamedTuple):
    """The server's record of a client's last push that was accepted, withdrawn or refused.

    The log shows nothing of a push that was withdrawn or refused. A push that was accepted or
    refused in part is recorded, too.

    Attributes:
        seq: The sequence number of the push.
        nonce: The nonce of the push.
        ack: The decision.
        principal: The principal that the client id belongs to; ``None`` without authentication.
        refused: The refusals of some of its changes.
    """

    seq: int
    nonce: str
    ack: Ack
    principal: str | None
    refused: tuple[StoredRefusal, ...] = ()

    def to_stored(self) -> bytes:
        """Return the decision as it is stored."""
        return orjson.dumps([self.seq, self.nonce, *self.ack, self.principal, *stored_refusals(self.refused)])


def stored_refusals(refused: Sequence[StoredRefusal]) -> list[Any]:
    """Return the last member of a stored decision; none if nothing was refused."""
    return [[[reason, [[*run] for run in runs]] for reason, runs in refused]] if refused else []


def parse_refusals(members: Sequence[Any]) -> tuple[StoredRefusal, ...]:
    """Return the refusals that `stored_refusals` has encoded.

    Raises:
        ProtocolError, ValueError: They are malformed.
    """
    if not members:
        return ()
    found: list[StoredRefusal] = []
    for item in Fields({"refused": members[0]}, "record").array("refused"):
        match item:
            case [str(reason), list(runs)] if reason and runs and len(members) == 1:
                found.append((reason, tuple(Fields({"runs": runs}, "record").runs("runs", MAX_PUSH, shortest=1))))
                continue
        raise ValueError("a refusal is not [reason, [[first, count], …]]")
    return tuple(found)


# ------------------------------------------------------------------------------------------ client


def read_state(reader: Reader, own: OwnRecords, cid: int) -> ClientState:
    """Read the replication state of a client.

    Args:
        reader: The reader.
        own: The own records of the client.
        cid: The CID of the client in the same state.

    Raises:
        CorruptionError: A record is missing or malformed, or contradicts another one.
    """
    *records, earlier_reset = reader.get_many([own.key(name) for name in (*NAMES, EARLIER_RESET)])
    if earlier_reset is not None:  # the opening turns it into a fill, unless it is damaged
        common_of_earlier_reset(reader, own)
    pairs = zip(NAMES, records, strict=True)
    found = {name: None if record is None else state_record(own, name, record, cid) for name, record in pairs}
    if found["id"] is None:
        raise own.damaged(own.key("id"), "is missing: it holds the id of this client")
    id, seq = found["id"]
    server, max_head, epochs = found["server"] or (None, 0, ())
    state = ClientState(
        id,
        seq,
        found[FOLLOW] or Following.without_record(cid),
        cid,
        server,
        max_head,
        epochs,
        push=found["push"],
        withheld_push=found["aside"],
        own_range=found["own"],
        bases=found[BASES],
    )
    if state.push is not None and state.push.seq != seq:
        raise own.damaged(own.key("push"), f"has the seq {state.push.seq}, but the last one is {seq}")
    return state


def state_record(own: OwnRecords, name: str, record: bytes, cid: int) -> Any:
    """Decode one record of the replication state.

    Args:
        own: The own records of the client.
        name: One of `NAMES`.
        record: The record.
        cid: The CID of the client in the same state.

    Raises:
        CorruptionError: The record is malformed.
    """
    return _parsed(own, own.key(name), record, lambda document: _PARSERS[name](document, own, cid))


def _parsed(own: OwnRecords, key: bytes, record: bytes, parse: Callable[[Any], T]) -> T:
    """Decode and parse a record.

    Raises:
        CorruptionError: ``parse`` raises an error, or the record is not JSON.
    """
    document = own.decode(key, record)
    try:
        return parse(document)
    except (ValueError, TypeError, LookupError, LevelError) as error:
        raise own.damaged(key, f"is malformed ({error!s:.200})", record) from error


def _identity(record: Any) -> tuple[str, int]:
    match record:
        case [str(id), seq] if ID.fullmatch(id) and is_cid(seq):
            return id, seq
    raise ValueError("it is not [client id, seq]")


def _followed(record: Any) -> tuple[str, int, tuple[Epoch, ...]]:
    """Return the id, the highest CID and the epochs of the server that a client follows."""
    fields = Fields(record, "record")
    max_head, epochs = fields.cid("hi"), tuple(fields.epochs("epochs"))
    if epochs and epochs[-1].start >= max_head:
        raise ValueError(f"an epoch starts at CID {epochs[-1].start}, but the client has seen the server at {max_head}")
    return fields.text("id", ID), max_head, epochs


def _push(record: Any, own: OwnRecords) -> Push:
    fields = Fields(record, "record")
    changes = [*fields.array("changes", MAX_PUSH)]
    groups = tuple(fields.runs("groups", len(changes)))
    last_group = fields.cid("last_group") if fields.has("last_group") else 0
    push = Push(fields.cid("seq"), fields.text("nonce", NONCE), changes, groups, last_group)
    encoder = _core.Encoder(own.space)
    keys: set[bytes] = set()
    for change in push.changes:
        if type(change) is not list or not 1 <= len(change) <= 2:
            raise ValueError("a change is neither [key, value] nor [key]")
        keys.add(encoder.key(change[0]))
    if not keys or len(keys) < len(push.changes):
        raise ValueError("it holds no change, or two of one key")
    return push


def _own_range(record: Any, cid: int) -> Ack:
    match record:
        case [int(before), int(after), str(epoch)] if is_cid(before) and is_cid(after) and ID.fullmatch(epoch):
            if before < after <= before + MAX_PUSH and cid < after:
                return Ack(before, after, epoch)
    raise ValueError(f"it is not [before, after, epoch] of at most {MAX_PUSH} changes that end after CID {cid}")


#: The function that checks each record of the replication state, from the decoded record, the own
#: records of the client and its CID.
_PARSERS: Final[dict[str, Callable[[Any, OwnRecords, int], object]]] = {
    "id": lambda document, own, cid: _identity(document),
    "server": lambda document, own, cid: _followed(document),
    "push": lambda document, own, cid: _push(document, own),
    "aside": lambda document, own, cid: _push(document, own),
    "own": lambda document, own, cid: _own_range(document, cid),
    FOLLOW: lambda document, own, cid: Following.from_document(document),
    BASES: lambda document, own, cid: Bases.from_document(document),
}


def dirty_change(own: OwnRecords, stored_key: bytes, record: bytes) -> Entry:
    """Return the key and the value of a dirty change; the value is ``None`` for a delete.

    Raises:
        CorruptionError: The record is malformed, or is a change of another key than the one that it
            is stored under. Such a change would be pushed again and again: after each push the
            dirty change of the other key is looked for.
    """
    key = stored_key[len(own.space.prefix) :]
    try:
        named, value = _core.split_record(record)
    except ValueError:
        raise own.damaged(stored_key, "of a dirty change cannot be read", record) from None
    if named != key:
        raise own.damaged(stored_key, "of a dirty change is a change of another key", record)
    return key, value


def pushable_changes(own: OwnRecords, rows: Sequence[Row]) -> list[list[Any]]:
    """Return dirty changes, decoded.

    Raises:
        CorruptionError: See `dirty_change`; or a value is not JSON, or cannot be pushed.
    """
    for row in rows:
        dirty_change(own, *row)
    try:
        changes: list[list[Any]] = _core.decode_changes([record for _, record in rows])
        _core.Encoder(own.space).changes(changes)
        return changes
    except (ValueError, ProtocolError):
        for row in rows:
            pushable_entry(own, *row)  # raises for the damaged one
        raise


def pushable_entry(own: OwnRecords, stored_key: bytes, record: bytes) -> Entry:
    """Return a dirty change, encoded as it would be pulled: see `pushable_changes`."""
    dirty_change(own, stored_key, record)
    try:
        return _core.Encoder(own.space).changes(_core.decode_changes([record]))[0]
    except (ValueError, ProtocolError) as error:
        raise own.damaged(stored_key, f"of a dirty change cannot be pushed ({error!s:.200})", record) from error


def journal_bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    """Return the range of the keys of the conflict journal."""
    return space.own_key(_JOURNAL), space.own_key(_AFTER_JOURNAL)


def conflict_number(own: OwnRecords, key: bytes) -> int:
    """Return the number of a record of the conflict journal, from its key.

    Raises:
        CorruptionError: The key has no number.
    """
    try:
        return _core.parse_cid_key(key[len(own.key(_JOURNAL)) :])
    except ValueError:
        raise own.damaged(key, "in the conflict journal has no number") from None


def parse_conflict(own: OwnRecords, key: bytes, record: bytes) -> Conflict:
    """Decode a record of the conflict journal.

    Raises:
        CorruptionError: The record is malformed.
    """
    number = conflict_number(own, key)
    encoder = _core.Encoder(own.space)

    def parse(document: Any) -> Conflict:
        fields = Fields(document, "record")
        lost, remote, cid = fields.get("key"), fields.get("remote"), fields.cid("cid")
        encoder.key(lost)
        is_read = fields.has("read") and fields.boolean("read")
        default: ConflictKind = "reset" if remote is None else "conflict"
        kind: ConflictKind = fields.get("kind") if fields.has("kind") else default
        if kind not in ("refused", default):
            raise ValueError(f'its kind is neither "refused" nor "{default}"')
        return Conflict(
            key=lost,
            local=_change_of(lost, fields.array("local"), None),
            remote=None if remote is None else _change_of(lost, fields.array("remote"), None if is_read else cid),
            id=number,
            base=_change_of(lost, fields.array("base"), None) if fields.has("base") else None,
            kind=kind,
            reason=fields.text("reason", _TEXT) if fields.has("reason") else None,
            by=fields.text("by", _TEXT) if fields.has("by") else None,
            at=_time(fields, "at"),
            noticed_at=_time(fields, "noticed_at"),
        )

    return _parsed(own, key, record, parse)


def _time(fields: Fields, name: str) -> datetime | None:
    """Return the time of an optional field, which has milliseconds since 1970."""
    if not fields.has(name):
        return None
    return clock.moment(fields.integer(name, 0, clock.MAX_MS))


def _change_of(key: str, items: Any, cid: int | None) -> Change:
    """Return a change of a key, from its decoded items.

    Raises:
        ValueError: It is a change of another key, or no change.
    """
    if not 1 <= len(items) <= 2 or items[0] != key:
        raise ValueError(f"a change is neither [{key!r:.40}, value] nor [{key!r:.40}]")
    change: Change = tuple.__new__(Change, items)
    if cid is not None:
        change.cid = cid
    return change


def check_holder(own: OwnRecords, key: bytes, record: bytes) -> None:
    """Check the record of the opening that wrote last.

    Raises:
        CorruptionError: The record is malformed.
    """
    token = own.decode(key, record)
    if not isinstance(token, str) or not HEX.fullmatch(token):
        raise own.damaged(key, "is not the token of an opening", record)


# ------------------------------------------------------------------------------------------ server


def decision_key(space: _core.KeySpace, client: str) -> bytes:
    """Return the key of the decision on a client's last push."""
    return space.own_key(f"client/{client}")


def read_decision(reader: Reader, own: OwnRecords, client: str, head: int) -> Decision | None:
    """Return the decision on a client's last push; ``None`` if there is no record of one.

    Args:
        reader: The reader.
        own: The own records of the server.
        client: The id of the client.
        head: The CID of the server in the same state: no decision is beyond it.

    Raises:
        CorruptionError: The record is malformed.
    """
    key = decision_key(own.space, client)
    record = reader.get(key)
    return None if record is None else parse_decision(own, key, record, head)


def parse_decision(own: OwnRecords, key: bytes, record: bytes, head: int) -> Decision:
    """Decode the decision on a client's last push: see `read_decision`.

    Raises:
        CorruptionError: The record is malformed.
    """

    def parse(document: Any) -> Decision:
        match document:
            case [seq, str(nonce), before, after, epoch, None | str() as principal, *refused] if is_cid(seq):
                ack = Fields({"ack": [before, after, epoch]}, "record").ack()
                if ack is not None and ack.after <= head and NONCE.fullmatch(nonce):
                    return Decision(seq, nonce, ack, principal, parse_refusals(refused))
        raise ValueError(f"it is not [seq, nonce, before, after, epoch, principal, refusals] of CIDs up to {head}")

    if not ID.fullmatch(key[len(decision_key(own.space, "")) :].decode(errors="replace")):
        raise own.damaged(key, "does not name a client")
    return _parsed(own, key, record, parse)
