"""A whole ``sync()`` as a generator that yields requests and receives replies.

It ends when both sides are drained. It does no I/O. The caller passes ``run``, which executes a
step in the client's engine, and sends the messages. So the asyncio and the blocking API drive the
same code, and tests can try every interleaving without a socket.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from .. import _core
from ..backends.base import Entry, Transaction
from ..engine.modes import Client, Plan, Step
from ..errors import ForbiddenError, ProtocolError, StoreMismatchError, SyncError, TransportError
from ..types import SyncReport
from .client import PreparedRequest, is_reply_to, rebind_step, receive_step, request_step
from .fields import MAX_DISTANCE
from .following import evict_step
from .limits import FULL_STATUS, PushLimits
from .merging import Merger, OnConflict
from .messages import MAX_EPOCHS, Forked, Page, ParsedReply, PulledPage, Request, Reset
from .progress import ProgressCheck
from .reply_handler import ReplyOutcome
from .schedule import PollResult
from .synced import refresh_step
from .wire import decode_header, decode_reply

T = TypeVar("T")

#: Is told a request, and the effects of its reply.
Observer = Callable[[Request, ReplyOutcome], None]


class LookAhead(NamedTuple):
    """An announcement of the next request, which the caller may send at once.

    The server then prepares the next page while the client writes the current one. The request
    stays the next one unless the current reply turns out to be stale.
    """

    request: Request


def sync_session(
    run: Callable[[Step[Any]], Any],
    mode: Client,
    *,
    pull: bool = True,
    push: bool = True,
    on_reset: str = "reset",
    report: SyncReport,
    limits: PushLimits | None = None,
    look_ahead: bool = False,
    on_conflict: OnConflict | None = None,
    observe: Observer | None = None,
) -> Generator[Request | LookAhead, object, SyncReport]:
    """Exchange messages until both sides are drained.

    The caller sends each reply into the generator, or throws the error that occurred instead:

    - A TransportError with status 413, or one without a status after a large push, may mean that
      the push was too large. The push is withdrawn, and the next one has half the size. A single
      change that is too large is held back, and everything else is synchronised.
    - After a ForbiddenError for a push, everything is synchronised except the local changes.
    - Any other error ends the session.

    Args:
        run: Executes a step in the client's engine, and returns its result.
        mode: The client.
        pull: True to drain the server; False to pull only as much as the push needs.
        push: True to push the dirty changes. A push that an earlier session left undecided is sent
            in any case.
        on_reset: ``"reset"``, or ``"raise"`` to raise an error before a reset.
        report: The report; it is updated after each reply.
        limits: Limits on pushing that earlier sessions have learnt.
        look_ahead: True to announce the next request with a `LookAhead` as soon as it is known.
        on_conflict: The application's function that settles conflicts; ``None`` to journal all.
        observe: Called after each reply that was applied.

    Yields:
        A `Request`, whose reply is to be sent in, in a form that `decode_reply` accepts; or a
        `LookAhead`, to which ``None`` is to be sent.

    Returns:
        The report.

    Raises:
        ValueError: ``pull`` and ``push`` are both False, or ``on_reset`` is unknown.
        StoreMismatchError: The reply comes from another server, or demands a reset and ``on_reset``
            is ``"raise"``. Nothing of the reply was written.
        ProtocolError: A reply is malformed or contradicts its request, or the replies bring no
            progress (`ProgressCheck`).
        TransportError: Everything is synchronised except changes that are too large, or for which
            the database has no room.
        ForbiddenError: Everything is synchronised except changes that this client may not push; or
            this client may not pull either.
    """
    if not pull and not push:
        raise ValueError("pull=False and push=False leave nothing to do")
    if on_reset not in ("reset", "raise"):
        raise ValueError(f'on_reset is "reset" or "raise", not {on_reset!r:.80}')
    encoder = _core.Encoder(mode.space)
    limits = limits or PushLimits()
    limits.begin_session()
    merger = None if on_conflict is None else Merger(on_conflict, mode)
    caught_up = False
    too_large: _SentPush | None = None  # the last push, if it may have been too large
    progress = ProgressCheck()
    next_request: Request | None = None
    while True:
        if next_request is not None:
            request = next_request
        else:
            prepared: PreparedRequest = run(request_step(mode, limits, push=push, withdraw=too_large is not None))
            request = prepared.request
            report.cid, report.consistent = request.cid, prepared.is_consistent
            if prepared.is_evicting:
                run(evict_step(mode))
            is_drained = not (prepared.has_work or (push and prepared.has_pushable))
            if is_drained and ((caught_up and request.fill is None) or not pull):
                if prepared.is_evicting:
                    continue
                if limits.contended:
                    report.contended = run(_contended_step(mode, limits))
                    limits.contended = frozenset()  # the next session pushes them
                error = run(_held_back_step(mode, limits)) if push and limits.may_hold_back else None
                if error is not None:
                    raise error
                return report
        try:
            message = yield request
        except TransportError as error:
            too_large = _SentPush(encoder.changes(request.changes), request.groups, error)
            if not limits.may_be_too_large(too_large.entries, error):
                raise
            # The server may have accepted an earlier copy of the push. Withdrawing the push tells.
            continue
        except ForbiddenError as error:
            if not request.keys:
                raise
            limits.forbidden, too_large = error, None
            continue
        may_push = (push and prepared.has_pushable) or bool(request.keys)
        next_request = _next_pull(request, decode_header(message, encoder), may_push) if look_ahead else None
        if next_request is not None:
            yield LookAhead(next_request)
        reply = decode_reply(message, encoder)
        report.rounds += 1
        outcome = _receive(run, mode, request, reply, on_reset, report, merger, observe)
        if merger is not None:
            limits.contended = frozenset(mode.space.dirty_key(key.encode()) for key in merger.contended)
        if too_large is not None and outcome is not None and not outcome.pushed:
            # The server replies, and has not received the push: the size was the reason.
            if too_large.error.status == FULL_STATUS:
                limits.full = too_large.error
            else:
                limits.shrink(too_large.entries, too_large.groups, mode.space)
        too_large = None
        progress.check(request, reply, outcome)
        if outcome is None or outcome.is_cut or isinstance(reply, Forked):
            next_request = None
        else:
            caught_up = outcome.caught_up
        if next_request is not None:
            mode.outstanding, mode.pushed_last = next_request.nonce, False


class _SentPush(NamedTuple):
    """A push that was sent.

    Attributes:
        entries: Its changes.
        groups: The runs of them that belong together.
        error: The error that answered it.
    """

    entries: list[Entry]
    groups: Sequence[tuple[int, int]]
    error: TransportError


def _next_pull(request: Request, page: Page | None, may_push: bool) -> Request | None:
    """Return the request that follows a page; ``None`` if it depends on applying the page.

    A client that has nothing to push, or is so far behind that a push would be refused, pulls next.
    """
    if page is None or (page.nonce, page.base) != (request.nonce, request.cid):
        return None
    distance = page.head - page.cid
    if page.ack is not None or page.refill or distance <= (MAX_DISTANCE if may_push else 0):
        return None
    # The page lists the epochs after its base, the request the last ones that the client had seen:
    # they may overlap.
    epochs = sorted({*request.epochs, *page.epochs}, key=lambda epoch: epoch.start)
    return replace(
        request,
        server=page.server,
        cid=page.cid,
        max_head=max(request.max_head, page.head),
        epochs=epochs[-MAX_EPOCHS:],
        nonce=uuid.uuid4().hex,
        push_nonce=None,
        changes=[],
        groups=(),
        withdraw=(),
    )


def poll_session(
    run: Callable[[Step[Any]], Any],
    mode: Client,
    *,
    on_reset: str,
    report: SyncReport,
    limits: PushLimits,
    on_conflict: OnConflict | None = None,
    observe: Observer | None = None,
) -> Generator[Request, object, PollResult]:
    """Send one request without a push, and apply the reply.

    The request is a long poll: the server may hold it, and other sessions of the client run
    meanwhile. A reply that has become stale is ignored.

    Args:
        run: Executes a step in the client's engine, and returns its result.
        mode: The client.
        on_reset: See `sync_session`.
        report: The report; it is updated after the reply.
        limits: Limits on pushing that the last session has learnt.
        on_conflict: See `sync_session`.
        observe: Called after a reply that was applied.

    Yields:
        One request, whose reply is to be sent in, in a form that `decode_reply` accepts.

    Returns:
        The result of the poll.

    Raises:
        StoreMismatchError, ProtocolError: See `sync_session`.
    """
    prepared: PreparedRequest = run(request_step(mode, limits, push=False))
    request = prepared.request
    if request.keys or request.fill or prepared.has_work:
        return PollResult.INCOMPLETE
    reply = decode_reply((yield request), _core.Encoder(mode.space))
    if isinstance(reply, PulledPage) and reply.cid == request.cid and not (reply.more or reply.entries):
        if is_reply_to(reply, request):
            run(refresh_step(mode))
        return PollResult.EMPTY
    merger = None if on_conflict is None else Merger(on_conflict, mode)
    outcome = _receive(run, mode, request, reply, on_reset, report, merger, observe)
    return PollResult.APPLIED if outcome is None or outcome.caught_up else PollResult.INCOMPLETE


def _held_back_step(mode: Client, limits: PushLimits) -> Step[SyncError | None]:
    def step(transaction: Transaction, _: int) -> Plan[SyncError | None]:
        return Plan(limits.held_back_error(transaction, mode.space))

    return step


def _contended_step(mode: Client, limits: PushLimits) -> Step[list[str]]:
    """Return the keys of the contended changes that are still dirty."""

    def step(transaction: Transaction, _: int) -> Plan[list[str]]:
        keys = sorted(limits.contended)
        found = zip(keys, transaction.get_many(keys), strict=True)
        return Plan([_core.decode_key(key[len(mode.space.prefix) :]) for key, record in found if record is not None])

    return step


def _receive(
    run: Callable[[Step[Any]], Any],
    mode: Client,
    request: Request,
    reply: ParsedReply,
    on_reset: str,
    report: SyncReport,
    merger: Merger | None,
    observe: Observer | None,
) -> ReplyOutcome | None:
    """Apply a reply, and update the report. Return ``None`` if the reply is stale."""
    if not is_reply_to(reply, request):
        return None
    resets = isinstance(reply, Reset)
    if resets and on_reset == "raise":
        raise StoreMismatchError(
            "the server was restored from a backup, or has compacted away deletes that this client has not pulled: "
            'sync(on_reset="reset") pulls everything again and keeps the dirty changes'
        )
    outcome: ReplyOutcome | None = run(receive_step(mode, request, reply, merger))
    if outcome is not None:
        report.reset = report.reset or resets
        report.pulled += outcome.pulled + outcome.filled
        report.pushed += outcome.pushed
        report.filled += outcome.filled
        report.conflicts += outcome.conflicts
        report.refused += outcome.refused
        report.consistent = outcome.is_consistent
        if merger is not None and outcome.settlements is not None:
            merger.record(outcome.settlements, outcome.rejected)
            report.settled += outcome.settlements.settled
            report.failed_merges |= outcome.settlements.failed
        if outcome.rejected and (outcome.pushed or not request.withdraw):  # a withdrawn push is not a rejected one
            # A change that lost is pushed again until the page with the other change arrives.
            reported = set(report.rejected)
            report.rejected += [key for key in outcome.rejected if key not in reported]
        if observe is not None:
            observe(request, outcome)
    return outcome


def rebind_session(run: Callable[[Step[Any]], Any], mode: Client) -> Generator[Request, object, None]:
    """Request a server's id, and make the client follow that server.

    Args:
        run: Executes a step in the client's engine, and returns its result.
        mode: The client.

    Yields:
        One request, whose reply is to be sent in.

    Raises:
        ProtocolError: The reply is malformed, or does not answer the request.
    """
    request = Request(
        server=None,
        client=uuid.uuid4().hex,
        cid=0,
        max_head=0,
        epochs=[],
        nonce=uuid.uuid4().hex,
        seq=0,
        limit=1,
        complete=(),
    )
    reply = decode_reply((yield request), _core.Encoder(mode.space))
    if not is_reply_to(reply, request):
        raise ProtocolError(
            "the server's reply does not answer the request that was sent. Nothing was changed; try again"
        )
    run(rebind_step(mode, reply.server))
