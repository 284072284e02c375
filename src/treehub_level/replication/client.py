"""The client's half of an exchange: prepare a request, and apply each kind of reply in one batch.

A frozen push goes with every request until the server has decided on it, and the client's CID does
not change meanwhile. So all copies of a push start from the same CID. The server's rejections rely
on it: see ``server.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from .. import _core
from ..backends.base import Entry, Transaction
from ..engine.commits import commit_of
from ..engine.modes import Client, Plan, Step
from ..engine.records import Epoch
from ..errors import ProtocolError, StoreMismatchError
from ..types import Conflict
from .base_values import BaseValueChanges
from .fields import MAX_KEYS, Ack
from .journal import LostChange, journal_entries
from .limits import PushLimits, is_dirty
from .manual import same_record
from .messages import MAX_BYTES, MAX_EPOCHS, Forked, Keys, ParsedReply, PulledPage, Request, Reset
from .push import freeze, is_as_frozen
from .records import dirty_change, parse_conflict, read_state
from .state import ClientState, ResetProgress

#: The number of changes that a request asks for. With fewer than the protocol allows, the server
#: makes a page while the client writes the one before. 50,000 changes took 0.15 s with pages of
#: 4000, 0.19 s with 1000 and 0.39 s with 65,536 in one process; 0.79, 1.13 and 1.02 s over HTTP.
PAGE_CHANGES = 4096
#: The number of keys that a request asks for in phase B of a reset.
PAGE_KEYS = MAX_KEYS
#: The number of local keys that one batch compares in phase B of a reset.
SWEEP_KEYS = 4 * MAX_KEYS
#: The most bytes of local changes that lose to a page in one batch, unless one change is larger.
LOST_BYTES = MAX_BYTES
#: Dirty changes to read at a time: each may have 4 MiB.
_DIRTY = 16


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is ready to be sent.

    Attributes:
        request: The request.
        has_pushable: True if the client has dirty changes that may be pushed.
    """

    request: Request
    has_pushable: bool


@dataclass(slots=True)
class ReplyOutcome:
    """The effect of applying a reply.

    Attributes:
        pulled: The number of changes of other clients that were written.
        pushed: The number of pushed changes that the server accepted.
        conflicts: The local changes that lost.
        rejected: The keys of the push that the server rejected, or whose acceptance its log does
            not show.
        caught_up: True if the client's CID is the server's CID at the time of the reply.
        is_cut: True if only the beginning of the page was applied.
    """

    pulled: int = 0
    pushed: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    caught_up: bool = False
    is_cut: bool = False


def request_step(mode: Client, limits: PushLimits, *, push: bool, withdraw: bool = False) -> Step[PreparedRequest]:
    """Prepare a request with the frozen push. If there is none, freeze one first.

    Args:
        mode: The client.
        limits: The limits on pushing. If pushing is forbidden, the frozen push becomes the withheld
            push. It is never sent again, since others may have changed its keys by then. It is
            withdrawn as soon as pushing is allowed.
        push: True to freeze dirty changes, unless a push is undecided, the own range is open, or a
            reset is in progress. A push that is already frozen is sent in any case: the server may
            have accepted an earlier copy.
        withdraw: True to withdraw the frozen push instead of sending it.
    """
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[PreparedRequest]:
        before = state = read_state(transaction, mode.records, cid)
        has_pushable = limits.has_pushable(transaction, space)
        forbidden = limits.forbidden is not None
        if forbidden and state.push is not None:
            state = replace(state, push=None, withheld_push=state.push)
        if push and has_pushable and state.may_freeze:
            frozen = freeze(transaction, mode.records, limits, state.seq + 1)
            state = replace(state, seq=frozen.seq, push=frozen)
        withheld_push = None if forbidden or state.reset is not None else state.withheld_push
        undecided = state.push or withheld_push
        is_withdrawn = undecided is not None and (withdraw or undecided is withheld_push)
        request = Request(
            server=state.server,
            client=state.id,
            cid=cid,
            max_head=max(state.max_head, cid),  # a manual sync does not record it
            epochs=list(state.epochs[-MAX_EPOCHS:]),
            seq=undecided.seq if undecided else state.seq,
            nonce=undecided.nonce if undecided else uuid.uuid4().hex,
            changes=undecided.changes if undecided and not is_withdrawn else [],
            limit=PAGE_CHANGES if state.keys_after is None else PAGE_KEYS,
            reset=state.reset is not None,
            keys_after=state.keys_after,
            withdraw=undecided.keys if undecided and is_withdrawn else (),
        )
        return Plan(PreparedRequest(request, has_pushable), state.replacing(before, space), durable=True)

    return step


def is_reply_to(reply: ParsedReply, request: Request) -> bool:
    """Return True if ``reply`` answers ``request``. Messages may be delayed or duplicated.

    Raises:
        ProtocolError: The reply answers the request, but contradicts it.
    """
    if (reply.nonce, reply.base) != (request.nonce, request.cid):
        return False
    fault = _contradiction(reply, request)
    if fault is not None:
        raise ProtocolError(f"the server's reply contradicts the request: {fault}. Nothing was written")
    return True


def _contradiction(reply: ParsedReply, request: Request) -> str | None:
    """Return a sentence that says how a reply contradicts its request; ``None`` if it does not."""
    if isinstance(reply, Forked):
        return None if request.keys else "it rejects a push, but none was sent"
    if isinstance(reply, Keys):
        if reply.after != request.keys_after or len(reply.keys) > request.limit:
            return "it holds keys that were not requested"
        if not reply.end and len(reply.keys) < request.limit:
            return "it is not the last part of the keys, but holds fewer than were requested"
        return None if reply.head >= request.cid else f"its CID {reply.head} is below the client's CID {request.cid}"
    sent = {*request.keys}
    if reply.ack is not None and not reply.ack.after - reply.ack.before <= len(sent):
        return f"it accepts more changes than the {len(sent)} that were sent"
    if not sent.issuperset(reply.rejected) or (reply.ack is not None and not sent):
        return "it decides on changes that were not sent"
    if reply.ack is not None and reply.ack.after - reply.ack.before + len({*reply.rejected}) < len(sent):
        return f"it neither accepts nor rejects some of the {len(sent)} changes that were sent"
    if isinstance(reply, Reset):
        return "a client at CID 0 in a reset cannot be reset again" if request.reset and not request.max_head else None
    # The reply to another copy of the push, which asked for more, is a good one.
    if request.keys_after is not None or (not sent and len(reply.entries) > request.limit):
        return "it holds changes that were not requested"
    if sent and not reply.more and reply.ack is None:
        return "it does not decide on the push, and does not ask for another request"
    return None


def receive_step(mode: Client, request: Request, reply: ParsedReply) -> Step[ReplyOutcome | None]:
    """Apply a reply that `is_reply_to` the request.

    The result is ``None``, and nothing is written, if the client's state has changed since the
    request.

    Raises:
        StoreMismatchError: The client follows another server (raised by the step).
    """

    def step(transaction: Transaction, cid: int) -> Plan[ReplyOutcome | None]:
        state = read_state(transaction, mode.records, cid)
        if state.server not in (None, reply.server):
            raise StoreMismatchError(
                f"this client follows the server {state.server}, but the reply came from the server {reply.server}: "
                "call rebind() to follow that one instead"
            )
        undecided = state.push or (state.withheld_push if request.withdraw else None)
        now = cid, undecided.nonce if undecided else None, state.reset is not None, state.keys_after
        then = request.cid, request.nonce if request.keys else None, request.reset, request.keys_after
        if now != then:
            return Plan(None)
        handler = _ReplyHandler(mode, request, transaction, replace(state, server=reply.server), cid)
        match reply:
            case PulledPage():
                handler.apply_page(reply)
            case Keys():
                handler.apply_keys(reply)
            case Reset():
                handler.apply_reset(reply)
            case Forked():
                handler.apply_fork()
        return handler.plan(state)

    return step


def rebind_step(mode: Client, server: str) -> Step[None]:
    """Follow another server: the next sync pulls all of its data and pushes the dirty changes."""

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        before = read_state(transaction, mode.records, cid)
        bases = None if before.bases is None else before.bases.void()
        after = ClientState(uuid.uuid4().hex, 0, server, reset=ResetProgress(0, "A", ""), bases=bases)
        batch = [*after.replacing(before, mode.space), (mode.space.prefix, b"0")]
        return Plan(None, batch, 0, durable=True, after_commit=_recording(mode, after))

    return step


def _recording(mode: Client, state: ClientState) -> Callable[[], None]:
    """Return a function after which local writes record base values as a stored state demands."""
    return partial(setattr, mode, "base_generation", state.base_generation)


class _ReplyHandler:
    """Collects the effects of one reply: a batch of entries, and the client's new state.

    Args:
        mode: The client.
        request: The request that the reply answers.
        transaction: The transaction to read from.
        state: The client's state before the reply, with the server's id set.
        cid: The client's CID before the reply.
    """

    def __init__(self, mode: Client, request: Request, transaction: Transaction, state: ClientState, cid: int) -> None:
        self._mode = mode
        self._own = mode.records
        self._space = mode.space
        self._request = request
        self._transaction = transaction
        self._state = state
        self._cid = cid
        self._batch: list[Entry] = []
        self._lost: list[LostChange] = []
        #: The keys whose dirty change this batch deletes.
        self._cleaned: set[bytes] = set()
        self._durable = False
        self._outcome = ReplyOutcome()
        self._bases = BaseValueChanges(transaction, mode.records, state.bases)

    def plan(self, before: ClientState) -> Plan[ReplyOutcome | None]:
        """Return all effects as one batch."""
        space = self._space
        journaled = journal_entries(self._transaction, self._own, self._lost)
        self._outcome.conflicts = [parse_conflict(self._own, key, record or b"") for key, record in journaled]
        self._batch += journaled
        self._batch += self._bases.entries()
        self._batch += self._state.replacing(before, space)
        self._batch.append((space.prefix, b"%d" % self._cid))
        recording = _recording(self._mode, self._state)
        return Plan(self._outcome, self._batch, self._cid, durable=self._durable, after_commit=recording)

    def apply_page(self, page: PulledPage) -> None:
        """Write a page of changes, and drop the push if it was decided."""
        self._record_history(page)
        self._apply_ack(page.ack, page.rejected)
        if is_dirty(self._transaction, self._space):
            page = self._merge_page(page)
        else:
            self._batch += page.entries
            own_changes = 0 if self._state.own_range is None else sum(map(self._is_own_change, page.cids))
            self._outcome.pulled = len(page.entries) - own_changes
        self._cid = page.cid
        self._outcome.caught_up = not page.more
        state = self._state
        passed = state.own_range is not None and (page.cid >= state.own_range.after or not page.more)
        self._state = replace(
            state,
            epochs=_without_old(state.epochs, page.cid),
            push=None,
            withheld_push=None if self._request.withdraw else state.withheld_push,
            own_range=None if passed else state.own_range,
            reset=state.reset if page.more or state.reset is None else state.reset._replace(phase="B"),
        )

    def _record_history(self, reply: PulledPage | Keys) -> None:
        """Record the server's epochs, and the CID at which the reply was read."""
        state = self._state
        new = [epoch for epoch in reply.epochs if epoch not in state.epochs]
        # A new epoch starts after those that were seen. If it does not, their record was damaged.
        seen = [epoch for epoch in state.epochs if not new or epoch.start < new[0].start]
        self._state = replace(state, max_head=max(state.max_head, reply.head), epochs=(*seen, *new))

    def _apply_ack(self, ack: Ack | None, rejected: Sequence[str]) -> None:
        """Drop the dirty changes that were accepted, and are still those that were frozen.

        Those of the withheld push stay dirty. Accepted values become the base values of the keys
        that stay dirty.
        """
        self._outcome.rejected = [*rejected]
        if ack is None:
            return
        rejected_keys = {key.encode() for key in rejected}
        decided = self._state.push or (self._state.withheld_push if self._request.withdraw else None)
        pushed = decided.entries(self._space) if decided else []
        for (key, value), record in zip(pushed, self._dirty_records(pushed), strict=True):
            if record is None or key in rejected_keys:
                continue
            if decided is self._state.push and is_as_frozen(record, key, value):
                self._drop_dirty(key)
            elif ack.before >= self._request.cid:  # else pulled before, as another client's change
                self._bases.learn(key, value)
        self._outcome.pushed = ack.after - ack.before
        if self._outcome.pushed:
            self._state = replace(self._state, own_range=ack)

    def _dirty_records(self, entries: Sequence[Entry]) -> Iterator[bytes | None]:
        """Yield the dirty record of each entry's key; ``None`` if this batch has deleted it."""
        for start in range(0, len(entries), _DIRTY):
            keys = [key for key, _ in entries[start : start + _DIRTY]]
            dirty_keys = [self._space.dirty_key(key) for key in keys]
            for key, dirty_key, record in zip(keys, dirty_keys, self._transaction.get_many(dirty_keys), strict=True):
                if record is not None:
                    dirty_change(self._own, dirty_key, record)
                yield None if key in self._cleaned else record

    def _merge_page(self, page: PulledPage) -> PulledPage:
        """Write a page to a store with dirty changes, and return the part that was written.

        The server wins, except over a dirty change that was made with knowledge of the pulled one.
        The part ends early if the local changes are large, as if the server had cut the page there.
        """
        reset, withheld = self._state.reset, self._withheld_records()
        size = 0
        rows = zip(page.cids, page.entries, self._dirty_records(page.entries), strict=True)
        for index, (cid, entry, record) in enumerate(rows):
            key, value = entry
            is_own = self._is_own_change(cid)
            if record is not None:
                size += len(record)
                if size > LOST_BYTES and index:
                    self._outcome.is_cut = True
                    cids, entries = page.cids[:index], page.entries[:index]
                    return replace(page, cid=cids[-1], more=True, cids=cids, entries=entries)
                if is_own or (reset is not None and cid <= reset.common):
                    self._bases.learn(key, value)
                    continue
                remote = _core.join_record(key, value)
                if not same_record(record, remote):
                    if key in withheld and same_record(withheld[key], remote):
                        self._bases.learn(key, value)
                        continue
                    commit, base = commit_of(page.commits, cid), self._bases.change_of(key)
                    by, at = (None, None) if commit is None else (commit.by, commit.ms)
                    self._lost.append(LostChange(key, record, remote, cid, base, by=by, at=at))
                self._drop_dirty(key)
            self._batch.append(entry)
            self._outcome.pulled += not is_own
        return page

    def _withheld_records(self) -> dict[bytes, bytes]:
        """Return the change record of each key of the withheld push.

        A pulled change with the same record may be the client's own, accepted from an earlier copy
        of the push. The dirty change is newer than that record in either case, and does not lose to
        it.
        """
        withheld_push = self._state.withheld_push
        return {} if withheld_push is None else withheld_push.records(self._space)

    def _is_own_change(self, cid: int) -> bool:
        """Return True if the change ``cid`` belongs to the client's own last push."""
        own_range = self._state.own_range
        return (
            own_range is not None
            and own_range.before < cid <= own_range.after
            and epoch_at(self._state.epochs, cid) == own_range.epoch
        )

    def _drop_dirty(self, key: bytes) -> None:
        self._cleaned.add(key)
        self._batch.append((self._space.dirty_key(key), None))
        self._bases.forget(key)

    def apply_reset(self, reply: Reset) -> None:
        """Begin a reset: pull everything again from CID 0.

        The base values become void: the client forgets which history it has seen, so those of the
        server's present history cannot be told from others. That goes for accepted values, too.
        """
        self._apply_ack(reply.ack, reply.rejected)
        self._state = replace(self._state, bases=self._bases.void())
        common = reply.common if self._state.reset is None else min(reply.common, self._state.reset.common)
        self._cid = 0
        withheld_push = self._state.withheld_push if reply.ack is None else None
        reset = ResetProgress(common, "A", "")
        self._state = replace(self._state, max_head=0, epochs=(), push=None, withheld_push=withheld_push, reset=reset)

    def apply_keys(self, reply: Keys) -> None:
        """Delete local keys that are neither dirty nor live on the server.

        The keys up to the last one of the reply are compared; if the reply is the last, all others
        too.
        """
        self._record_history(reply)
        space, reset = self._space, self._state.reset
        assert reset is not None, "keys are requested only during a reset"
        live = set(reply.keys)
        stop = None if reply.end else reply.keys[-1] + b"\0"
        start = max(space.user_start, reply.after.encode() + b"\0")
        with closing(self._transaction.scan(start, stop, values=False)) as cursor:
            found = cursor.fetch_keys(SWEEP_KEYS)
        last_compared, is_complete, size = b"", len(found) < SWEEP_KEYS, 0
        for key in found:
            if size > MAX_BYTES:
                is_complete = False
                break
            last_compared = key
            if key not in live and self._transaction.get(space.dirty_key(key)) is None:
                value = self._transaction.get(key)
                self._lost.append(LostChange(key, _core.join_record(key, value), None, self._cid, kind="reset"))
                self._batch.append((key, None))
                size += len(value or b"")
        if is_complete and reply.end:
            self._state = replace(self._state, reset=None)
            self._outcome.caught_up = reply.head == self._cid
        else:
            cursor_key = reply.keys[-1] if is_complete else last_compared
            self._state = replace(self._state, reset=reset._replace(cursor=_core.decode_key(cursor_key)))

    def apply_fork(self) -> None:
        """Take a new client id, and drop the push. The dirty changes stay."""
        self._durable = True
        self._state = replace(self._state, id=uuid.uuid4().hex, seq=0, push=None, withheld_push=None)


def epoch_at(epochs: Sequence[Epoch], cid: int) -> str | None:
    """Return the id of the epoch of the change ``cid``; ``None`` if ``epochs`` does not list it."""
    return next((epoch.id for epoch in reversed(epochs) if epoch.start < cid), None)


def _without_old(epochs: tuple[Epoch, ...], cid: int) -> tuple[Epoch, ...]:
    """Drop epochs from the front while more than `MAX_EPOCHS` are left.

    An epoch with changes after ``cid`` stays: those changes are still to be pulled.
    """
    first = 0
    while len(epochs) - first > MAX_EPOCHS and epochs[first + 1].start <= cid:
        first += 1
    return epochs[first:]
