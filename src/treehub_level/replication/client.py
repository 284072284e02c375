"""The client's half of an exchange: prepare a request, and apply each kind of reply in one batch.

A frozen push goes with every request until the server has decided on it, and the client's CID does
not change meanwhile. So all copies of a push start from the same CID. The server's rejections rely
on it: see ``server.py``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from ..backends.base import Entry, Reader, Transaction
from ..engine.following import UNCHECKED, Following
from ..engine.modes import Client, Plan, Step
from ..engine.records import OwnRecords
from ..errors import ProtocolError, StoreMismatchError
from .fields import MAX_READ
from .following import still_leaving
from .limits import PushLimits
from .losses import Loss, loss_entry, read_current_losses, read_losses
from .merging import Merger
from .messages import MAX_EPOCHS, Forked, ParsedReply, PulledPage, Request, Reset
from .push import DirtyGroups, freeze
from .records import read_state
from .reply_handler import ReplyHandler, ReplyOutcome, fill_of, recording
from .state import ClientState
from .synced import SYNCED

#: The number of changes and entries that a request asks for. With fewer than the protocol allows,
#: the server makes a page while the client writes the one before. 50,000 changes took 0.15 s with
#: pages of 4000, 0.19 s with 1000 and 0.39 s with 65,536 in one process; 0.79, 1.13 and 1.02 s over
#: HTTP.
PAGE_CHANGES = 4096
#: The number of present values that a request asks for.
READ_KEYS = MAX_READ


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is ready to be sent.

    Attributes:
        request: The request.
        has_pushable: True if the client has dirty changes that may be pushed.
        has_work: True if a push is undecided, a reset is in progress, or lost changes wait for the
            server's values.
        is_evicting: True if the store may hold clean keys that are not followed.
        is_consistent: See `SyncReport.consistent`.
    """

    request: Request
    has_pushable: bool
    has_work: bool
    is_evicting: bool
    is_consistent: bool


def request_step(mode: Client, limits: PushLimits, *, push: bool, withdraw: bool = False) -> Step[PreparedRequest]:
    """Prepare a request with the frozen push. If there is none, freeze one first.

    A request pushes, or asks for the next part of a fill: the client takes turns.

    Args:
        mode: The client.
        limits: The limits on pushing. If pushing is forbidden, the frozen push becomes the withheld
            push. It is never sent again, since others may have changed its keys by then. It is
            withdrawn as soon as pushing is allowed.
        push: True to freeze dirty changes, unless a push is undecided, the own range is open, a
            reset is in progress, or changes to which the last push has lost are still to be pulled.
            A push that is already frozen is sent in any case: the server may have accepted an
            earlier copy.
        withdraw: True to withdraw the frozen push instead of sending it.
    """
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[PreparedRequest]:
        before = read_state(transaction, mode.records, cid)
        state = replace(before, following=still_leaving(before.following, transaction, space))
        losses, ended = read_current_losses(transaction, mode.records)
        is_forbidden = limits.forbidden is not None
        if is_forbidden and state.push is not None:
            state = replace(state, push=None, withheld_push=state.push)
        has_pushable = limits.has_pushable(transaction, space)
        takes_turn = state.following.fill is None or not mode.pushed_last
        knows_losses = cid >= mode.rejected_to
        if push and has_pushable and state.may_freeze and takes_turn and knows_losses:
            frozen = freeze(transaction, mode.records, limits, state, losses)
            if frozen is not None:
                state = replace(state, seq=frozen.seq, push=frozen)
            has_pushable = limits.has_pushable(transaction, space)
        read = _keys_to_read(DirtyGroups(transaction, mode.records), losses) if losses else []
        request = _request(state, is_forbidden=is_forbidden, withdraw=withdraw, read=read)
        mode.outstanding, mode.pushed_last = request.nonce, request.is_push
        following = state.following
        has_work = request.is_push or following.is_resetting or bool(losses)
        is_consistent = state.is_at_head and not losses
        prepared = PreparedRequest(request, has_pushable, has_work, following.is_evicting, is_consistent)
        entries: list[Entry] = [loss_entry(space, key, None) for key in ended]
        entries += mode.hold(transaction)
        return Plan(prepared, [*state.replacing(before, space), *entries], durable=True)

    return step


def _request(state: ClientState, *, is_forbidden: bool, withdraw: bool, read: list[str]) -> Request:
    """Return the request of a client in a state."""
    following = state.following
    withheld_push = None if is_forbidden or following.is_resetting else state.withheld_push
    undecided = state.push or withheld_push
    is_withdrawn = undecided is not None and (withdraw or undecided is withheld_push)
    is_pushed = undecided is not None and not is_withdrawn
    return Request(
        server=state.server,
        client=state.id,
        cid=state.cid,
        max_head=max(state.max_head, state.cid),  # a manual sync does not record it
        epochs=list(state.epochs[-MAX_EPOCHS:]),
        nonce=uuid.uuid4().hex,
        seq=undecided.seq if undecided else state.seq,
        push_nonce=undecided.nonce if undecided else None,
        changes=undecided.changes if undecided and is_pushed else [],
        groups=undecided.groups if undecided and is_pushed else (),
        withdraw=undecided.keys if undecided and is_withdrawn else (),
        limit=PAGE_CHANGES,
        complete=following.complete,
        partial=(*following.checked, *following.leaving),
        fill=fill_of(following),
        read=read,
    )


def _keys_to_read(groups: DirtyGroups, losses: dict[bytes, Loss]) -> list[str]:
    """Return the keys whose present values are requested: whole groups, as far as they fit."""
    chosen: dict[bytes, None] = {}
    for key in losses:
        if key in chosen:
            continue
        group = groups.keys_with(key) if key in groups else [key]
        if chosen and len(chosen) + len(group) > READ_KEYS:
            break
        chosen |= dict.fromkeys(group)
    return [key.decode() for key in [*chosen][:READ_KEYS]]


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
    sent = {*request.keys}
    if reply.ack is not None and not reply.ack.after - reply.ack.before <= len(sent):
        return f"it accepts more changes than the {len(sent)} that were sent"
    if not sent.issuperset(reply.rejected) or (reply.ack is not None and not sent):
        return "it decides on changes that were not sent"
    if reply.ack is not None and reply.ack.after - reply.ack.before + len({*reply.rejected}) < len(sent):
        return f"it neither accepts nor rejects some of the {len(sent)} changes that were sent"
    if isinstance(reply, Reset):
        has_history = request.max_head or request.holds_data
        return None if has_history else "a client that has no data of the server cannot be reset"
    # The reply to another copy of the push, which asked for more, is a good one.
    if not sent and len(reply.entries) > request.limit:
        return "it holds changes that were not requested"
    if sent and not reply.more and reply.ack is None:
        return "it does not decide on the push, and does not ask for another request"
    if not {*request.read, *sent}.issuperset(key.decode() for key, _ in reply.values):
        return "it holds values that were not requested"
    return _fill_contradiction(reply, request)


def _fill_contradiction(page: PulledPage, request: Request) -> str | None:
    part = page.fill
    if part is None:
        return None
    if request.keys or request.fill is None or (part.prefix, part.after) != request.fill:
        return "it holds a part of a range that was not requested"
    if len(page.entries) + len(part.entries) > request.limit:
        return "it holds entries of a range that were not requested"
    return None


def _has_log_of_leaving(request: Request, following: Following) -> bool:
    """Return True if the log was requested for the ranges that were unfollowed with dirty changes.

    Without it, a page would move the CID beyond changes of others that these keys have not met.
    """
    logged = (*request.complete, *request.partial)
    return all(prefix.startswith(logged) for prefix in following.leaving)


def receive_step(
    mode: Client, request: Request, reply: ParsedReply, merger: Merger | None = None
) -> Step[ReplyOutcome | None]:
    """Apply a reply that `is_reply_to` the request.

    The result is ``None``, and nothing is written, if another request was sent since, also by
    another process, or the client's state has changed, or ranges with dirty changes were unfollowed
    since, for which the log was not requested.

    Args:
        mode: The client.
        request: The request.
        reply: The reply.
        merger: Settles the local changes that lose; ``None`` to journal all of them.

    Raises:
        StoreMismatchError: The client follows another server (raised by the step).
    """

    def step(transaction: Transaction, cid: int) -> Plan[ReplyOutcome | None]:
        state = read_state(transaction, mode.records, cid)
        if state.server not in (None, reply.server):
            raise StoreMismatchError(
                f"this client follows the server {state.server}, but the reply came from the server {reply.server}: "
                "call rebind(), or run `treehub-level sync --rebind`, to follow that one instead"
            )
        undecided = state.push or (state.withheld_push if request.withdraw else None)
        now = mode.outstanding, cid, undecided.nonce if undecided else None
        if now != (request.nonce, request.cid, request.push_nonce) or not mode.holds(transaction):
            return Plan(None)
        if not _has_log_of_leaving(request, state.following):
            return Plan(None)
        handler = ReplyHandler(mode, request, transaction, replace(state, server=reply.server), merger)
        match reply:
            case PulledPage():
                handler.apply_page(reply)
            case Reset():
                handler.apply_reset(reply)
            case Forked():
                handler.apply_fork()
        return handler.plan(state)

    return step


def read_consistent(reader: Reader, own: OwnRecords, cid: int) -> bool:
    """Return True if a client is consistent: see `SyncReport.consistent`.

    Args:
        reader: The reader.
        own: The own records of the client.
        cid: The CID of the client in the same state.

    Raises:
        CorruptionError: A record is malformed.
    """
    return read_state(reader, own, cid).is_at_head and not read_current_losses(reader, own)[0]


def rebind_step(mode: Client, server: str) -> Step[None]:
    """Follow another server: the next sync fills all ranges, and pushes the dirty changes."""
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        before = read_state(transaction, mode.records, cid)
        following: Following = replace(before.following, is_resetting=True)
        after = ClientState(uuid.uuid4().hex, 0, following, 0, server, bases=before.bases).filling_again(UNCHECKED)
        after = after.with_bases()
        losses = [loss_entry(space, key, None) for key in read_losses(transaction, mode.records)]
        forgotten = (space.own_key(SYNCED), None)
        batch = [*after.replacing(before, space), *losses, forgotten, *mode.hold(transaction), (space.prefix, b"0")]
        mode.outstanding, mode.rejected_to = None, 0
        return Plan(None, batch, 0, durable=True, after_commit=recording(mode, after))

    return step
