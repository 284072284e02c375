"""The client's half of the exchange: making a request, and taking each kind of reply, in one batch each.

A frozen push goes with every request until the server has decided on it, and nothing else moves the CID meanwhile.
So all its copies start from one CID, which is what makes the server's refusals final.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.modes import Client, Epoch, Plan, Step
from ..errors import CorruptionError, ProtocolError, StoreMismatchError
from ..types import Conflict
from .fields import MAX_CHANGES, Ack
from .journal import LostChange, journal_entries, parse_conflict
from .limits import PushLimits, is_dirty
from .manual import same_record
from .messages import MAX_BYTES, MAX_EPOCHS, Forked, Keys, ParsedReply, PulledPage, Request, Reset
from .state import Push, Resetting, State

#: Changes, or keys, that are asked for at once.
PAGE_CHANGES = MAX_CHANGES
#: Changes that are frozen at once.
PUSH_CHANGES = MAX_CHANGES
#: Local keys that one batch of a sweep looks at.
SWEEP_KEYS = 4 * MAX_CHANGES


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, and what stands behind it.

    Attributes:
        request: The request.
        dirty: Whether there are dirty changes that may be pushed.
    """

    request: Request
    dirty: bool


@dataclass(slots=True)
class Outcome:
    """What taking a reply did.

    Attributes:
        pulled: Changes of others that were written.
        pushed: Changes of the push that the server took.
        conflicts: Local changes that lost.
        rejected: Keys of the push that the server did not take, or cannot prove to have.
        caught_up: Whether the client is where the server was when it replied.
    """

    pulled: int = 0
    pushed: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    caught_up: bool = False


def request_step(mode: Client, limits: PushLimits, *, push: bool, withdraw: bool = False) -> Step[Outgoing]:
    """Make a request: the frozen push as it was frozen, everything else as it is now.

    Args:
        mode: The client.
        limits: What may be frozen. If nothing may be pushed, the frozen push is set aside. It is taken back, as soon
            as that is allowed, and never sent again: the server may have changed its keys since.
        push: Whether to freeze dirty changes if no push is undecided, no own range open and no reset under way. A push
            that is frozen already is sent in any case: the server may have taken it.
        withdraw: Whether to take the frozen push back instead of sending it.
    """
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[Outgoing]:
        before = state = State.read(transaction, space)
        dirty = limits.is_used(transaction, space)
        forbidden = limits.refusal is not None
        if forbidden and state.push is not None:
            state = replace(state, push=None, withheld_push=state.push)
        if push and dirty and _may_freeze(state):
            changes = _freeze(transaction, space, limits)
            state = replace(state, seq=state.seq + 1, push=Push(state.seq + 1, uuid.uuid4().hex, changes))
        withheld_push = None if forbidden or state.reset is not None else state.withheld_push
        undecided = state.push or withheld_push
        taken_back = undecided is not None and (withdraw or undecided is withheld_push)
        request = Request(
            server=state.server,
            client=state.id,
            cid=cid,
            max_head=max(state.max_head, cid),  # one that came here by the seed's verbs has no record of it
            epochs=list(state.epochs[-MAX_EPOCHS:]),
            seq=undecided.seq if undecided else state.seq,
            nonce=undecided.nonce if undecided else uuid.uuid4().hex,
            changes=undecided.changes if undecided and not taken_back else [],
            limit=PAGE_CHANGES,
            reset=state.reset is not None,
            keys_after=_keys_after(state),
            withdraw=undecided.keys if undecided and taken_back else (),
        )
        return Plan(Outgoing(request, dirty), state.replacing(before, space), durable=True)

    return step


def _keys_after(state: State) -> str | None:
    """The key behind which phase B of a reset goes on; ``None`` outside of it."""
    return state.reset.cursor if state.reset is not None and state.reset.phase == "B" else None


def _may_freeze(state: State) -> bool:
    """Whether a new push may begin: the last one is decided and has come back, and no reset is under way."""
    return state.push is None and state.withheld_push is None and state.own_range is None and state.reset is None


def _freeze(reader: Reader, space: _core.KeySpace, limits: PushLimits) -> list[Any]:
    """The first dirty changes, as many as a push may hold."""
    encoder = _core.Encoder(space)
    changes: list[Any] = []
    size = 0
    with closing(limits.rows(reader, space)) as rows:
        for stored_key, record in islice(rows, PUSH_CHANGES):
            try:
                change = _core.decode_changes([record])[0]
                ((key, value),) = encoder.changes([change])
            except (ValueError, ProtocolError) as error:
                raise CorruptionError(f"the dirty change under {stored_key!r} cannot be sent: {error}") from error
            size += len(key) + len(value or b"")
            if changes and size > limits.size:
                break
            changes.append(change)
    return changes


def answers(request: Request, reply: ParsedReply) -> bool:
    """Whether this is a reply to that request: messages may come late, or twice.

    Raises:
        ProtocolError: It is, and cannot be.
    """
    if (reply.nonce, reply.base) != (request.nonce, request.cid):
        return False
    fault = _fault(request, reply)
    if fault is not None:
        raise ProtocolError(f"the server's reply is impossible: {fault}. Nothing of it was written")
    return True


def _fault(request: Request, reply: ParsedReply) -> str | None:
    if isinstance(reply, Forked):
        return None if request.keys else "it finds fault with a push, and none was sent"
    if isinstance(reply, Keys):
        if reply.after != request.keys_after or len(reply.keys) > request.limit:
            return "it brings keys that were not asked for"
        return None if reply.head >= request.cid else f"its CID {reply.head} is below the client's {request.cid}"
    sent = {*request.keys}
    if reply.ack is not None and not reply.ack.after - reply.ack.before <= len(sent):
        return f"it accepts more changes than the {len(sent)} that were sent"
    if not sent.issuperset(reply.rejected) or (reply.ack is not None and not sent):
        return "it decides on changes that were not sent"
    if isinstance(reply, Reset):
        return "a client at CID 0 in a reset cannot be reset again" if request.reset and not request.max_head else None
    if request.keys_after is not None or len(reply.entries) > request.limit:
        return "it brings changes that were not asked for"
    return "it neither decides on the push nor refuses it" if sent and not reply.more and reply.ack is None else None


def receive_step(mode: Client, request: Request, reply: ParsedReply) -> Step[Outcome | None]:
    """Take a reply that `answers` the request.

    The result is ``None``, and nothing is written, if the client has moved on since.

    Raises:
        StoreMismatchError: It comes from another server than the one that the client follows (in the step).
    """

    def step(transaction: Transaction, cid: int) -> Plan[Outcome | None]:
        state = State.read(transaction, mode.space)
        if state.server not in (None, reply.server):
            raise StoreMismatchError(
                f"this client has synchronised with the server {state.server}, and {reply.server} has answered: "
                "call rebind() if it shall follow that one from now on"
            )
        undecided = state.push or (state.withheld_push if request.withdraw else None)
        now = cid, undecided.nonce if undecided else None, state.reset is not None, _keys_after(state)
        then = request.cid, request.nonce if request.keys else None, request.reset, request.keys_after
        if now != then:
            return Plan(None)
        receipt = _Receipt(mode, request, transaction, replace(state, server=reply.server), cid)
        match reply:
            case PulledPage():
                receipt.page(reply)
            case Keys():
                receipt.keys(reply)
            case Reset():
                receipt.reset(reply)
            case Forked():
                receipt.forked()
        return receipt.plan(state)

    return step


def rebind_step(mode: Client, server: str) -> Step[None]:
    """Follow another server from now on: pull everything from it, push what is dirty."""

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        before = State.read(transaction, mode.space)
        after = State(uuid.uuid4().hex, 0, server, reset=Resetting(0, "A", ""))
        batch = [*after.replacing(before, mode.space), (mode.space.prefix, b"0")]
        return Plan(None, batch, 0, durable=True)

    return step


class _Receipt:
    """One reply being taken: the batch as it grows, and the client's records as they will be."""

    def __init__(self, mode: Client, request: Request, transaction: Transaction, state: State, cid: int) -> None:
        self._space = mode.space
        self._request = request
        self._transaction = transaction
        self._state = state
        self._cid = cid
        self._batch: list[Entry] = []
        self._lost: list[LostChange] = []
        self._durable = False
        self._outcome = Outcome()

    def plan(self, before: State) -> Plan[Outcome | None]:
        """Everything that was decided, as one batch."""
        space = self._space
        journaled = journal_entries(self._transaction, space, self._lost)
        self._outcome.conflicts = [parse_conflict(space, key, record or b"") for key, record in journaled]
        self._batch += journaled
        self._batch += self._state.replacing(before, space)
        self._batch.append((space.prefix, b"%d" % self._cid))
        return Plan(self._outcome, self._batch, self._cid, durable=self._durable)

    def page(self, page: PulledPage) -> None:
        self._learn(page)
        if is_dirty(self._transaction, self._space):
            self._apply_beside(self._take_ack(page.ack, page.rejected, page.entries), page)
        else:
            self._take_ack(page.ack, page.rejected, ())
            self._batch += page.entries
            own_range = 0 if self._state.own_range is None else sum(map(self._is_own, page.cids))
            self._outcome.pulled = len(page.entries) - own_range
        self._cid = page.cid
        self._outcome.caught_up = not page.more
        state = self._state
        passed = state.own_range is not None and (page.cid >= state.own_range.after or not page.more)
        self._state = replace(
            state,
            epochs=_recent(state.epochs, page.cid),
            push=None,
            withheld_push=None if self._request.withdraw else state.withheld_push,
            own_range=None if passed else state.own_range,
            reset=state.reset if page.more or state.reset is None else state.reset._replace(phase="B"),
        )

    def _learn(self, reply: PulledPage | Keys) -> None:
        """Remember which history this comes from, and up to where it was read."""
        state = self._state
        news = [epoch for epoch in reply.epochs if epoch not in state.epochs]
        self._state = replace(state, max_head=max(state.max_head, reply.head), epochs=(*state.epochs, *news))

    def _take_ack(self, ack: Ack | None, rejected: Sequence[str], pulled: Sequence[Entry]) -> dict[bytes, bytes]:
        """Clean what the server took, unless it was rewritten since it was frozen.

        Returns:
            The dirty records of the keys that were pushed or pulled, as they are now.
        """
        space = self._space
        pushed = _core.Encoder(space).changes(self._state.push.changes if self._state.push else ())
        keys = [*{key: None for entries in (pushed, pulled) for key, _ in entries}]
        records = self._transaction.get_many([space.dirty_key(key) for key in keys])
        dirty = {key: record for key, record in zip(keys, records, strict=True) if record is not None}
        self._outcome.rejected = [*rejected]
        if ack is None:
            return dirty
        refused = {key.encode() for key in rejected}
        for key, value in pushed:
            if key in dirty and key not in refused and _is_as_sent(dirty[key], key, value):
                self._clean(dirty, key)
        self._outcome.pushed = ack.after - ack.before
        if self._outcome.pushed:
            self._state = replace(self._state, own_range=ack)
        return dirty

    def _apply_beside(self, dirty: dict[bytes, bytes], page: PulledPage) -> None:
        """Write a page where some keys may be dirty: the server wins, but over what it does not know of."""
        reset, withheld_push = self._state.reset, self._set_aside()
        for cid, entry in zip(page.cids, page.entries, strict=True):
            key, value = entry
            own_range = self._is_own(cid)
            record = dirty.get(key)
            if record is not None:
                if own_range or (reset is not None and cid <= reset.common):
                    continue
                remote = _core.join_record(key, value)
                if not same_record(record, remote):
                    if key in withheld_push and same_record(withheld_push[key], remote):
                        continue
                    self._lost.append(LostChange(key, record, remote, cid))
                self._clean(dirty, key)
            self._batch.append(entry)
            self._outcome.pulled += not own_range

    def _set_aside(self) -> dict[bytes, bytes]:
        """The records of the push set aside. What is pulled and says the same may be the client's own.

        Either way the dirty change was made over just that, and does not lose to it.
        """
        changes = () if self._state.withheld_push is None else self._state.withheld_push.changes
        return {key: _core.join_record(key, value) for key, value in _core.Encoder(self._space).changes(changes)}

    def _is_own(self, cid: int) -> bool:
        """Whether this change is one of the client's own last push, come back."""
        own_range = self._state.own_range
        return (
            own_range is not None
            and own_range.before < cid <= own_range.after
            and _epoch_of(self._state.epochs, cid) == own_range.epoch
        )

    def _clean(self, dirty: dict[bytes, bytes], key: bytes) -> None:
        del dirty[key]
        self._batch.append((self._space.dirty_key(key), None))

    def reset(self, reply: Reset) -> None:
        self._take_ack(reply.ack, reply.rejected, ())
        common = reply.common if self._state.reset is None else min(reply.common, self._state.reset.common)
        self._cid = 0
        withheld_push = self._state.withheld_push if reply.ack is None else None
        reset = Resetting(common, "A", "")
        self._state = replace(self._state, max_head=0, epochs=(), push=None, withheld_push=withheld_push, reset=reset)

    def keys(self, reply: Keys) -> None:
        """Delete the clean keys here that the server has no longer, up to the last one it names."""
        self._learn(reply)
        space, reset = self._space, self._state.reset
        assert reset is not None, "keys are asked for in a reset only"
        live = set(reply.keys)
        stop = None if reply.end else reply.keys[-1] + b"\0"
        start = max(space.user_start, reply.after.encode() + b"\0")
        with closing(self._transaction.scan(start, stop, values=False)) as cursor:
            found = cursor.fetch_keys(SWEEP_KEYS)
        reached, whole, size = b"", len(found) < SWEEP_KEYS, 0
        for key in found:
            if size > MAX_BYTES:
                whole = False
                break
            reached = key
            if key not in live and self._transaction.get(space.dirty_key(key)) is None:
                value = self._transaction.get(key)
                self._lost.append(LostChange(key, _core.join_record(key, value), None, self._cid))
                self._batch.append((key, None))
                size += len(value or b"")
        if whole and reply.end:
            self._state = replace(self._state, reset=None)
            self._outcome.caught_up = reply.head == self._cid
        else:
            cursor_key = reply.keys[-1] if whole else reached
            self._state = replace(self._state, reset=reset._replace(cursor=_core.decode_key(cursor_key)))

    def forked(self) -> None:
        self._durable = True
        self._state = replace(self._state, id=uuid.uuid4().hex, seq=0, push=None, withheld_push=None)


def _is_as_sent(record: bytes, key: bytes, value: bytes | None) -> bool:
    """Whether a dirty record is still what was frozen."""
    return same_record(record, _core.join_record(key, value))


def _epoch_of(epochs: Sequence[Epoch], cid: int) -> str | None:
    return next((epoch.id for epoch in reversed(epochs) if epoch.start < cid), None)


def _recent(epochs: tuple[Epoch, ...], cid: int) -> tuple[Epoch, ...]:
    """The epochs worth keeping: the last ones, and those that go on behind ``cid``, where changes are still to come."""
    first = 0
    while len(epochs) - first > MAX_EPOCHS and epochs[first + 1].start <= cid:
        first += 1
    return epochs[first:]
