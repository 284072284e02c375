"""A whole ``sync()`` as a generator: it yields requests, is sent replies, and ends when both sides are drained.

It does no I/O of its own. ``run`` executes a step in the client's engine; whoever drives the generator carries the
messages. So every interleaving can be tested without a socket, and both APIs drive the same code.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from .. import _core
from ..backends.base import Entry, Transaction
from ..engine.modes import Client, Plan, Step
from ..errors import ForbiddenError, ProtocolError, StoreMismatchError, SyncError, TransportError
from ..types import SyncReport
from .client import Outcome, Outgoing, answers, rebind_step, receive_step, request_step
from .limits import PushLimits
from .messages import MAX_EPOCHS, Forked, Page, ParsedReply, PulledPage, Request, Reset
from .schedule import PollResult
from .wire import read_answer, read_head

T = TypeVar("T")

#: Replies in a row that bring nothing before it is given up.
PATIENCE = 8


class Ahead(NamedTuple):
    """The request that comes next, if nothing goes wrong with the reply at hand: it may be sent while that is taken."""

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
) -> Generator[Request | Ahead, object, SyncReport]:
    """Exchange until both sides are drained.

    A push that is too large for whoever carries it (a TransportError of status 413, thrown in; or one without a status,
    where the push is large) is taken back and halved. A single change that is too large is held back; everything else
    goes on. If pushing is forbidden (a ForbiddenError, thrown in), so does everything but that.

    Args:
        run: Executes a step in the client's engine, and returns its result.
        mode: The client.
        pull: Whether to drain the server; ``False`` pulls as much as the push needs.
        push: Whether to push what is dirty. A push that an earlier session has left undecided is settled in any case.
        on_reset: ``"reset"``, or ``"raise"`` to stop before a reset.
        report: Filled in as it goes.
        limits: What may be pushed at once, learnt by earlier sessions.
        look_ahead: Whether to say what comes next as soon as it is known.

    Yields:
        Requests; the reply to each is to be sent in, as `read_answer` takes it. Before some comes an `Ahead`, to
        which nothing is to be sent in.

    Returns:
        The report.

    Raises:
        ValueError: Neither pull nor push, or an unknown ``on_reset``.
        StoreMismatchError: Another server, or a reset with ``on_reset="raise"``. Nothing of the reply was written.
        ProtocolError: A malformed or impossible reply, or nothing but replies that bring nothing.
        TransportError: Everything is synchronised but changes that are too large to be sent.
        ForbiddenError: Everything is synchronised but changes that may not be pushed; or nothing is allowed.
    """
    if not pull and not push:
        raise ValueError("pull=False and push=False leave nothing to do")
    if on_reset not in ("reset", "raise"):
        raise ValueError(f'on_reset is "reset" or "raise", not {on_reset!r:.80}')
    encoder = _core.Encoder(mode.space)
    limits = limits or PushLimits()
    caught_up = False
    doubted: list[Entry] = []
    fruitless = 0
    ahead: Request | None = None
    while True:
        if ahead is not None:
            request = ahead
        else:
            outgoing: Outgoing = run(request_step(mode, limits, push=push, withdraw=bool(doubted)))
            request = outgoing.request
            report.cid = request.cid
            busy = bool(request.keys) or request.reset or (push and outgoing.dirty)
            if not busy and (caught_up or not pull):
                complaint = run(_complaint_step(mode, limits)) if push and limits.withholds else None
                if complaint is not None:
                    raise complaint
                return report
        try:
            message = yield request
        except TransportError as error:
            doubted = encoder.changes(request.changes)
            if not limits.doubts(doubted, error):
                raise
            # Whether the server took an earlier copy is not known: only it can say, and refuse those to come.
            continue
        except ForbiddenError as error:
            if not request.keys:
                raise
            limits.refusal, doubted = error, []
            continue
        ahead = _next_pull(request, read_head(message, encoder)) if look_ahead else None
        if ahead is not None:
            yield Ahead(ahead)
        reply = read_answer(message, encoder)
        report.rounds += 1
        outcome = _take(run, mode, request, reply, on_reset, report)
        if doubted and outcome is not None and not outcome.pushed:
            # The server can be reached, and has not seen it: so it was the size.
            limits.refused(doubted, mode.space)
        doubted = []
        if outcome is None or isinstance(reply, Forked):
            fruitless += 1
            ahead = None
            if fruitless == PATIENCE:
                raise ProtocolError(f"{PATIENCE} replies in a row brought nothing: they answer something else")
        else:
            fruitless = 0
            caught_up = outcome.caught_up


def _next_pull(request: Request, page: Page | None) -> Request | None:
    """What to ask once this page is taken, if that is plain: the client is too far behind for a push to be judged."""
    if page is None or (page.nonce, page.base) != (request.nonce, request.cid):
        return None
    if page.ack is not None or page.head - page.cid <= request.limit:
        return None
    # The page has those behind its base, the request only the last ones that were known: some may lie between.
    epochs = sorted({*request.epochs, *page.epochs}, key=lambda epoch: epoch.start)
    return replace(
        request,
        server=page.server,
        cid=page.cid,
        max_head=max(request.max_head, page.head),
        epochs=epochs[-MAX_EPOCHS:],
        nonce=uuid.uuid4().hex,
        changes=[],
        withdraw=(),
    )


def poll_session(
    run: Callable[[Step[Any]], Any], mode: Client, *, on_reset: str, report: SyncReport, limits: PushLimits
) -> Generator[Request, object, PollResult]:
    """Ask once for what is new, with nothing to push, and take what comes.

    The server may keep the question waiting, and other sessions go on meanwhile: what comes too late is left alone.

    Args:
        run: Executes a step in the client's engine, and returns its result.
        mode: The client.
        on_reset: See `sync_session`.
        report: Filled in.
        limits: What may be pushed, as far as the last session has learnt it.

    Yields:
        One request; its reply is to be sent in, as `read_answer` takes it.

    Raises:
        StoreMismatchError, ProtocolError: See `sync_session`.
    """
    outgoing: Outgoing = run(request_step(mode, limits, push=False))
    request = outgoing.request
    if request.keys or request.reset:
        return PollResult.MORE
    reply = read_answer((yield request), _core.Encoder(mode.space))
    if isinstance(reply, PulledPage) and reply.cid == request.cid and not (reply.more or reply.entries):
        return PollResult.NONE
    outcome = _take(run, mode, request, reply, on_reset, report)
    return PollResult.TAKEN if outcome is None or outcome.caught_up else PollResult.MORE


def _complaint_step(mode: Client, limits: PushLimits) -> Step[SyncError | None]:
    def step(transaction: Transaction, _: int) -> Plan[SyncError | None]:
        return Plan(limits.complaint(transaction, mode.space))

    return step


def _take(
    run: Callable[[Step[Any]], Any],
    mode: Client,
    request: Request,
    reply: ParsedReply,
    on_reset: str,
    report: SyncReport,
) -> Outcome | None:
    if not answers(request, reply):
        return None
    # A client that has seen nothing has nothing to lose: so it begins with a server that has forgotten deletes.
    resets = isinstance(reply, Reset) and (request.cid > 0 or request.max_head > 0)
    if resets and on_reset == "raise":
        raise StoreMismatchError(
            "the server was restored from a backup, or has forgotten deletes that this client has not pulled: "
            'sync(on_reset="reset") pulls everything anew and keeps what is dirty here'
        )
    outcome: Outcome | None = run(receive_step(mode, request, reply))
    if outcome is not None:
        report.reset = report.reset or resets
        report.pulled += outcome.pulled
        report.pushed += outcome.pushed
        report.conflicts += outcome.conflicts
        if outcome.pushed or not request.withdraw:  # else it was the client that took everything back
            report.rejected += outcome.rejected
    return outcome


def rebind_session(run: Callable[[Step[Any]], Any], mode: Client) -> Generator[Request, object, None]:
    """Ask a server who it is, and follow it from now on.

    Args:
        run: Executes a step in the client's engine, and returns its result.
        mode: The client.

    Yields:
        One request; its reply is to be sent in.

    Raises:
        ProtocolError: A malformed reply, or one to something else.
    """
    request = Request(
        server=None, client=uuid.uuid4().hex, cid=0, max_head=0, epochs=[], seq=0, nonce=uuid.uuid4().hex, limit=1
    )
    reply = read_answer((yield request), _core.Encoder(mode.space))
    if not answers(request, reply):
        raise ProtocolError("the server's reply is not one to the request that was sent. Nothing was changed")
    run(rebind_step(mode, reply.server))
