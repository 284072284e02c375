"""The server's half of an exchange: one step under the write lock (``docs/protocol.md``).

A rejection must be permanent. A push may arrive late or twice. If the server rejected one copy and
later accepted another, the client, which has dropped the push, would pull its own old write as a
foreign change. So the criteria for a rejection never shrink: the distance in CIDs, the keys changed
since the push's base (compaction keeps the last change of each key), and the floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine import clock
from ..engine.access import FULL, Access
from ..engine.commits import read_page
from ..engine.log import keys_of, read_log
from ..engine.modes import Plan, Server, Step
from ..engine.records import Commit, Epoch
from ..errors import ProtocolError, StoreMismatchError
from .fields import MAX_DISTANCE, Ack, shown
from .messages import MAX_BYTES, Forked, Keys, LogPage, Reply, Request, Reset, encode_changes
from .records import Decision, decision_key, read_decision
from .withdrawals import Withdrawal, read_withdrawal, withdrawal_entries, withdrawal_key

#: Records to read at a time if only their keys are needed.
_READ = 1000


def exchange_step(request: Request, mode: Server, access: Access = FULL, max_bytes: int | None = None) -> Step[Reply]:
    """Reply to one request. The first rule of the protocol that matches decides.

    A client that may see only some keys gets the log and the live keys restricted to those. For
    such a client the log looks compacted: the CIDs of the other changes are missing.

    Args:
        request: The request.
        mode: The server.
        access: The client's principal, and the keys that it may see and write.
        max_bytes: The most bytes of records in the page, unless its only record is larger;
            `MAX_BYTES` if not given.

    Raises:
        ProtocolError: A change is malformed.
        ForbiddenError: The client may not write a key (raised by the step).
        StoreMismatchError: The request is for another server.
    """
    push = _parse_push(request, mode)

    def step(transaction: Transaction, head: int) -> Plan[Reply]:
        exchange = _Exchange(request, push, mode, access, transaction, head, max_bytes)
        reply = exchange.answer()
        if push and isinstance(reply, LogPage) and reply.ack is None:
            return exchange.decide(reply, transaction)
        return Plan(reply)

    return step


def answer_pull(
    request: Request, mode: Server, access: Access, reader: Reader, head: int, max_bytes: int | None = None
) -> Reply:
    """Reply to a request without a push, which needs no transaction: see `exchange_step`."""
    assert not request.is_push, "a push is decided in a step"
    return _Exchange(request, _parse_push(request, mode), mode, access, reader, head, max_bytes).answer()


class _Exchange:
    """One request, and the state of the server in which it is answered.

    Args:
        request: The request.
        push: The changes of its push, encoded; for a withdrawn push the keys.
        mode: The server.
        access: The client's principal, and the keys that it may see and write.
        reader: The store to read from.
        head: The server's CID.
        max_bytes: The most bytes of records in the page, unless its only record is larger;
            `MAX_BYTES` if not given.
    """

    def __init__(
        self,
        request: Request,
        push: list[Entry],
        mode: Server,
        access: Access,
        reader: Reader,
        head: int,
        max_bytes: int | None,
    ) -> None:
        self._request = request
        self._push = push
        self._mode = mode
        self._access = access
        self._reader = reader
        self._head = head
        self._max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        self._epochs: list[Epoch] = []
        self._has_decision = False
        self._withdrawal: Withdrawal | None = None
        self._reply_to = mode.store_id, request.nonce, request.cid

    def answer(self) -> Reply:
        """Return the reply. If there is a push to be decided, it is a page without ``ack``."""
        request = self._request
        if self._push:
            self._access.check_write(key for key, _ in self._push)
        ack: Ack | None = None
        rejected: list[str] = []

        decision = read_decision(self._reader, self._mode.records, request.client, self._head)
        # A pull needs no client id of its own: the reply depends on the caller's rights alone.
        self._has_decision = decision is not None
        if self._push and decision is None:
            self._withdrawal = read_withdrawal(self._reader, self._mode.records, request.client, self._head)
            if self._withdrawal is not None:
                seq, nonce, before, principal = self._withdrawal
                decision = Decision(seq, nonce, Ack(before, before, None), principal)
        if self._push and decision is not None:
            if self._repeats(decision):
                ack, rejected = decision.ack, self._unconfirmed(decision.ack)
            elif request.seq <= decision.seq or not self._owns(decision):
                return Forked(*self._reply_to)

        self._epochs = self._mode.records.epochs(self._reader, self._head)
        common = last_common_cid(request, self._epochs, self._head)
        floor = self._mode.records.floor(self._reader, self._head).floor
        if common < request.max_head or request.cid > self._head or (request.cid < floor and not request.reset):
            return Reset(*self._reply_to, min(common, request.cid), ack, rejected, self._head)
        if request.keys_after is not None:
            return self._list_keys(request.keys_after, self._unseen(self._epochs))

        page = read_page(self._reader, self._mode, self._head, request.cid, request.limit, self._max_bytes, MAX_BYTES)
        to = page.records[-1][0] if page.records else request.cid
        records, commits = page.outgoing(self._mode, self._access)
        return LogPage(
            *self._reply_to,
            cid=to,
            head=self._head,
            more=to < self._head,
            epochs=self._unseen(self._epochs),
            ack=ack,
            rejected=rejected,
            commits=commits,
            records=records,
        )

    def _repeats(self, decision: Decision) -> bool:
        """Return True if the push is the decided one, under any principal.

        Only the client that froze the push knows its nonce. So a client with a new token of another
        name learns the decision on the push that it sent with the old one.
        """
        return (self._request.seq, self._request.nonce) == (decision.seq, decision.nonce)

    def _owns(self, decision: Decision) -> bool:
        """Return True if the caller may use the client id of a decided push."""
        return decision.principal in (None, self._access.principal)

    def decide(self, page: LogPage, transaction: Transaction) -> Plan[Reply]:
        """Decide on the push, and add the decision to the page."""
        if self._is_too_far_behind():
            page.more = True
            return Plan(page)
        if self._request.withdraw:
            return self._reject_all(page)
        return self._accept(page, transaction)

    def _is_too_far_behind(self) -> bool:
        """Return True if the client has to pull before its push is judged.

        The distance counts CIDs, not records: compaction cannot shrink it. It does not depend on
        the request either: two copies of a push may differ in their limit, if another version of
        the client has sent the second one.
        """
        return self._head - self._request.cid > MAX_DISTANCE

    def _accept(self, page: LogPage, transaction: Transaction) -> Plan[Reply]:
        """Accept the changes of keys that have not changed since the client's CID.

        All of the log after that CID counts, even if the page ends earlier.
        """
        changed = set(keys_of(self._mode, page.records))
        if page.more:
            changed.update(keys_of(self._mode, self._log_between(page.cid, self._head)))
        accepted = [entry for entry in self._push if entry[0] not in changed]
        page.rejected = _decode_keys(key for key, _ in self._push if key in changed)
        page.ack = Ack(self._head, self._head, None)
        if not accepted:
            # No record is needed: those keys stay changed since this base, so a repeat is rejected
            # too.
            return Plan(page)
        epoch_start = self._mode.epoch_start(transaction, self._head, self._epochs)
        epochs = self._epochs if epoch_start is None else epoch_start.epochs
        after = self._head + len(accepted)
        page.ack = Ack(self._head, after, epochs[-1].id)
        page.head = after
        page.cid = page.cid if page.more else after
        page.epochs = self._unseen(epochs)
        commit = Commit(self._head + 1, after, self._request.client, self._access.principal, clock.now(), ())
        records: list[Entry] = [self._decision_entry(page.ack), self._mode.commit_entry(commit)]
        if self._withdrawal is not None:
            records.append((withdrawal_key(self._mode.space, self._request.client), None))
        written = self._mode.plan_write_in(epoch_start, self._head, accepted, records)
        return Plan(page, written.batch, written.cid, durable=True, after_commit=written.after_commit)

    def _reject_all(self, page: LogPage) -> Plan[Reply]:
        """Reject a withdrawn push, and record it: a delayed copy of the push may still arrive."""
        page.rejected = _decode_keys(key for key, _ in self._push)
        page.ack = Ack(self._head, self._head, None)
        return Plan(page, self._withdrawal_entries(page.ack), durable=True)

    def _withdrawal_entries(self, ack: Ack) -> list[Entry]:
        request = self._request
        if self._has_decision:
            return [self._decision_entry(ack)]
        withdrawal = Withdrawal(request.seq, request.nonce, ack.before, self._access.principal)
        return withdrawal_entries(self._reader, self._mode.records, request.client, withdrawal)

    def _decision_entry(self, ack: Ack) -> Entry:
        record = orjson.dumps([self._request.seq, self._request.nonce, *ack, self._access.principal])
        return decision_key(self._mode.space, self._request.client), record

    def _unconfirmed(self, ack: Ack) -> list[str]:
        """Return the keys of a push decided earlier that the log does not show as accepted.

        Their changes were rejected, or they were accepted, then superseded and compacted away. In
        either case the key has a later change after the client's CID, which the client will pull.
        """
        if ack.after - ack.before == len(self._push):
            return []
        logged = set(keys_of(self._mode, self._log_between(ack.before, ack.after)))
        return _decode_keys(key for key, _ in self._push if key not in logged)

    def _log_between(self, after: int, to: int) -> Iterator[tuple[int, bytes]]:
        """Yield the log from ``after`` (exclusive) to ``to`` (inclusive), in bounded memory."""
        while records := read_log(self._reader, self._mode, after, _READ, MAX_BYTES):
            for cid, record in records:
                if cid > to:
                    return
                yield cid, record
            after = records[-1][0]

    def _unseen(self, epochs: Sequence[Epoch]) -> list[Epoch]:
        """Return the epochs that the client may not have seen.

        Those are the epochs that begin at its CID or later, or all if its request lists none.
        """
        first = self._request.cid if self._request.epochs else 0
        return [epoch for epoch in epochs if epoch.start >= first]

    def _list_keys(self, after: str, epochs: list[Epoch]) -> Keys:
        space, limit = self._mode.space, self._request.limit
        start, stop = self._access.bounds(max(space.user_start, after.encode() + b"\0"), None)
        with closing(self._reader.scan(start, stop, values=False)) as cursor:
            keys = cursor.fetch_keys(limit + 1)
        return Keys(*self._reply_to, self._head, epochs, after, keys[:limit], end=len(keys) <= limit)


def is_idle(reply: Reply) -> bool:
    """Return True if a reply holds nothing new, so that a long poll may go on waiting."""
    return isinstance(reply, LogPage) and not (reply.records or reply.ack or reply.more)


def _parse_push(request: Request, mode: Server) -> list[Entry]:
    """Validate and encode the changes of a push, or the keys of a withdrawn push.

    Raises:
        ProtocolError: A change is malformed, a key occurs twice, or the push is too large.
        StoreMismatchError: The request is for another server.
    """
    encoder = _core.Encoder(mode.space)
    if request.changes:
        entries = encode_changes(request.changes, encoder, in_records=request.in_records)
    else:
        entries = encode_changes([[key] for key in request.withdraw], encoder)
    if request.server not in (None, mode.store_id):
        raise StoreMismatchError(
            f"this is the server {mode.store_id}, but the client follows the server {request.server}: "
            "call rebind() on the client to follow this one instead"
        )
    seen: set[bytes] = set()
    for key, _ in entries:
        if key in seen:
            raise ProtocolError(f"changes: the key {shown(key)} occurs twice; send only the last change of each key")
        seen.add(key)
    return entries


def last_common_cid(request: Request, epochs: Sequence[Epoch], head: int) -> int:
    """Return the last CID that a client's history and the server's have in common.

    The result is at most ``request.max_head``.

    A client that has only used manual sync lists no epochs: its CID is accepted if it is not beyond
    the server's.
    """
    if not request.epochs:
        return request.max_head if request.max_head <= head else 0
    here, there = _ends(epochs, head), _ends(request.epochs, request.max_head)
    shared = [min(end, here[epoch]) for epoch, end in there.items() if epoch in here]
    return max(shared, default=0)


def _ends(epochs: Sequence[Epoch], last: int) -> dict[str, int]:
    """Return the last CID of each epoch; the last epoch ends at ``last``."""
    starts = [epoch.start for epoch in epochs[1:]]
    return {epoch.id: end for epoch, end in zip(epochs, [*starts, last], strict=False)}


def _decode_keys(keys: Iterable[bytes]) -> list[str]:
    return [_core.decode_key(key) for key in keys]
