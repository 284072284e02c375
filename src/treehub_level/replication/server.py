"""The server's half of an exchange: one step under the write lock (``docs/protocol.md``).

A rejection must be permanent. A push may arrive late or twice. If the server rejected one copy and
later accepted another, the client, which has dropped the push, would pull its own old write as a
foreign change. So the criteria for a rejection never shrink: the distance in CIDs, the keys changed
since the push's base (compaction keeps the last change of each key), and the floor. A rule may
change its mind; so the server records that it refused a push, as it records one that was accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from .. import _core
from ..backends.base import Entry, Reader, Row, Transaction
from ..engine import clock
from ..engine.access import FULL, Access
from ..engine.commits import CommittedPart, commits_size, read_page
from ..engine.log import keys_of, read_log, read_rows, records_size, rows_size
from ..engine.modes import Plan, Server, Step
from ..engine.pending import PendingReader
from ..engine.records import Commit, Epoch, Floor
from ..engine.scan import first_key
from ..errors import InvalidKeyError, ProtocolError, StoreMismatchError
from .fields import MAX_DISTANCE, Ack, shown
from .messages import MAX_BYTES, FillPart, Forked, LogPage, Reply, Request, Reset, encode_changes
from .ranges import RequestedRanges, requested_ranges
from .records import Decision, StoredRefusal, decision_key, read_decision
from .rules import Call
from .verdict import Verdict, refusals
from .withdrawals import Withdrawal, read_withdrawal, withdrawal_entries, withdrawal_key

#: Records, or keys, to read at a time if only their keys are needed.
_READ: Final = 1000
#: Keys that are counted in the time that a record of a page takes.
_KEYS_FOR_RECORD: Final = 2
#: Values to read at a time: each may have 4 MiB.
_VALUES: Final = 16
#: An empty page that moves the client's CID by less is not sent to a client that waits.
_IDLE_CIDS: Final = 1000


def exchange_step(request: Request, mode: Server, access: Access = FULL, max_bytes: int | None = None) -> Step[Reply]:
    """Reply to one request. The first rule of the protocol that matches decides.

    A client that may see only some keys gets the log, values and live entries restricted to those.
    For such a client the log looks compacted: the CIDs of the other changes are missing.

    Args:
        request: The request.
        mode: The server.
        access: The client's principal, and the keys that it may see and write.
        max_bytes: The most bytes of rows in the page, unless its only row is larger, or it has only
            present values of lost changes; `MAX_BYTES` if not given.

    Raises:
        ProtocolError: A change, a prefix or a key is malformed.
        ForbiddenError: The client may not write, or follows keys that it may not read.
        StoreMismatchError: The request is for another server.
        CheckError: The check of the server failed (raised by the step).
        TransportError: The checks of the push take too long (raised by the step).
    """
    parsed = _parse(request, mode, access)

    def step(transaction: Transaction, head: int) -> Plan[Reply]:
        exchange = _Exchange(parsed, mode, access, transaction, head, max_bytes)
        reply = exchange.reply()
        plan: Plan[Reply] = Plan(reply)
        if isinstance(reply, LogPage):
            if parsed.push and reply.ack is None:
                plan = exchange.decide(reply, transaction)
            exchange.add_present(reply)
        return plan

    return step


def answer_pull(
    request: Request,
    mode: Server,
    access: Access,
    reader: Reader,
    head: int,
    max_bytes: int | None = None,
    after: int = 0,
) -> Reply:
    """Reply to a request without a push, which needs no transaction: see `exchange_step`.

    Args:
        request: The request.
        mode: The server.
        access: The client's principal, and the keys that it may see and write.
        reader: The store to read from.
        head: The server's CID.
        max_bytes: The most bytes of rows in the page: see `exchange_step`.
        after: The CID up to which the log is known to hold no wanted change after the client's CID.
    """
    assert not request.is_push, "a push is decided in a step"
    exchange = _Exchange(_parse(request, mode, access), mode, access, reader, head, max_bytes, after)
    reply = exchange.reply()
    if isinstance(reply, LogPage):
        exchange.add_present(reply)
    return reply


@dataclass(frozen=True, slots=True)
class _ParsedRequest:
    """A request with its parts that depend on the key space and on the caller's rights.

    Attributes:
        request: The request.
        push: The changes of its push, encoded; for a withdrawn push its keys.
        ranges: The keys that the client wants to know of, and may read.
        read: The keys whose present values are wanted, as they are stored.
    """

    request: Request
    push: list[Entry]
    ranges: RequestedRanges
    read: list[bytes]


class _Exchange:
    """One request, and the state of the server in which it is answered.

    Args:
        parsed: The request.
        mode: The server.
        access: The client's principal, and the keys that it may see and write.
        reader: The store to read from.
        head: The server's CID.
        max_bytes: The most bytes of rows in the page, unless its only row is larger, or it has only
            present values of lost changes; `MAX_BYTES` if not given.
        after: The CID up to which the log is known to hold no wanted change after the client's CID.
    """

    def __init__(
        self,
        parsed: _ParsedRequest,
        mode: Server,
        access: Access,
        reader: Reader,
        head: int,
        max_bytes: int | None,
        after: int = 0,
    ) -> None:
        self._request = parsed.request
        self._push = parsed.push
        self._ranges = parsed.ranges
        self._read = parsed.read
        self._mode = mode
        self._access = access
        self._reader = reader
        self._present = PendingReader(reader)
        self._head = head
        self._after = max(after, parsed.request.cid)
        self._max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        self._epochs: list[Epoch] = []
        self._floor = Floor(0, 0)
        self._has_decision = False
        self._withdrawal: Withdrawal | None = None
        self._reply_to = mode.store_id, self._request.nonce, self._request.cid

    def reply(self) -> Reply:
        """Return the reply, without present values.

        If there is a push to be decided, it is a page without ``ack``.
        """
        request = self._request
        ack: Ack | None = None
        rejected: list[str] = []
        refused: Sequence[StoredRefusal] = ()

        decision = self._last_decision()
        if decision is not None:
            if self._repeats(decision):
                ack, rejected, refused = decision.ack, self._unconfirmed(decision.ack), decision.refused
            elif request.seq <= decision.seq or not self._owns(decision):
                return Forked(*self._reply_to)

        self._epochs = self._mode.records.epochs(self._reader, self._head)
        self._floor = self._mode.records.floor(self._reader, self._head)
        common = last_common_cid(request, self._epochs, self._head)
        lacks_deletes = self._is_below_floor() and request.holds_data
        if common < request.max_head or request.cid > self._head or lacks_deletes:
            self._mode.check_store(self._reader)
            return Reset(*self._reply_to, min(common, request.cid, self._head), ack, rejected, self._head)

        page = read_page(
            self._reader,
            self._mode,
            self._head,
            self._after,
            request.limit,
            self._max_bytes,
            MAX_BYTES,
            self._ranges.log,
        )
        return LogPage(
            *self._reply_to,
            cid=page.cid,
            head=self._head,
            more=page.cid < self._head,
            epochs=self._unseen(self._epochs),
            ack=ack,
            rejected=rejected,
            refused=refusals(refused, self._push, {*rejected}),
            commits=page.commits,
            records=page.records,
            refill=self._advises_refill(page),
        )

    def _last_decision(self) -> Decision | None:
        """Return the decision on the client's last push, if this request has a push, too.

        A pull needs no client id of its own: the reply depends on the caller's rights alone.
        """
        if not self._push:
            return None
        records, client = self._mode.records, self._request.client
        decision = read_decision(self._reader, records, client, self._head)
        self._has_decision = decision is not None
        if decision is None:
            self._withdrawal = read_withdrawal(self._reader, records, client, self._head)
            decision = self._withdrawal and self._withdrawal.decision
        return decision

    def _repeats(self, decision: Decision) -> bool:
        """Return True if the push is the decided one, under any principal.

        Only the client that froze the push knows its nonce. So a client with a new token of another
        name learns the decision on the push that it sent with the old one.
        """
        return (self._request.seq, self._request.push_nonce) == (decision.seq, decision.nonce)

    def _owns(self, decision: Decision) -> bool:
        """Return True if the caller may use the client id of a decided push."""
        return decision.principal in (None, self._access.principal)

    def _is_below_floor(self) -> bool:
        """Return True if the log after the client's CID lacks deletes."""
        return self._request.cid < self._floor.floor

    def _advises_refill(self, page: CommittedPart) -> bool:
        """Return True if the log after a page is longer than the data that the client follows.

        The log is counted in CIDs, of which there is one for each record above the extent of
        compaction. The data is counted up to a number of keys that takes no longer than the page.
        """
        rest = self._head - max(page.cid, self._floor.compacted_to)
        if rest <= 0 or self._request.is_push or self._request.fill is not None:
            return False
        left = min(rest, max(_READ, _KEYS_FOR_RECORD * len(page.records)))
        for start, stop in self._ranges.log:
            with closing(self._reader.scan(max(start, self._mode.space.user_start), stop, values=False)) as cursor:
                while left > 0 and (keys := cursor.fetch_keys(min(left, _READ))):
                    left -= len(keys)
        return left > 0

    # ------------------------------------------------------------------------------ the decision

    def decide(self, page: LogPage, transaction: Transaction) -> Plan[Reply]:
        """Decide on the push, and add the decision to the page."""
        if self._is_too_far_behind():
            page.more = True
            return Plan(page)
        page.ack = Ack(self._head, self._head, None)
        if self._request.withdraw:
            page.rejected = _decode_keys(key for key, _ in self._push)
            return Plan(page, self._rejection_entries(page.ack, ()), durable=True)
        return self._judge(page, transaction)

    def _is_too_far_behind(self) -> bool:
        """Return True if the client has to pull before its push is judged.

        The distance counts CIDs, not records: compaction cannot shrink it. It does not depend on
        the request either: two copies of a push may differ in their limit, if another version of
        the client has sent the second one. The log below the floor lacks deletes.
        """
        return self._head - self._request.cid > MAX_DISTANCE or self._is_below_floor()

    def _judge(self, page: LogPage, transaction: Transaction) -> Plan[Reply]:
        """Accept the groups without a key that has changed since the client's CID, as rules allow.

        All of the log after that CID counts, even if the page ends earlier or lacks some keys.
        """
        call = Call(self._access.principal, self._request.client)
        verdict = Verdict(self._push, self._mode, self._access, call, self._present)
        verdict.judge(self._request.groups, self._changed_keys(page))
        page.rejected = _decode_keys(self._push[index][0] for index in verdict.rejected)
        page.refused = refusals(verdict.refused, self._push, {*page.rejected})
        if verdict.accepted:
            return self._accept(page, verdict, transaction)
        assert page.ack is not None, "the push is decided"
        # Without a refusal no record is needed: the keys stay changed since this base, so a repeat
        # is rejected too.
        entries = self._rejection_entries(page.ack, verdict.refused) if verdict.refused else []
        return Plan(page, entries, durable=bool(entries))

    def _changed_keys(self, page: LogPage) -> set[bytes]:
        """Return the keys that the log after the client's CID contains."""
        if not self._ranges.log.is_all:
            return set(keys_of(self._mode, self._log_between(self._request.cid, self._head)))
        changed = set(keys_of(self._mode, page.records))
        if page.more:
            changed.update(keys_of(self._mode, self._log_between(page.cid, self._head)))
        return changed

    def _accept(self, page: LogPage, verdict: Verdict, transaction: Transaction) -> Plan[Reply]:
        """Write the accepted changes, and add the decision to the page."""
        epoch_start = self._mode.epoch_start(transaction, self._head, self._epochs)
        epochs = self._epochs if epoch_start is None else epoch_start.epochs
        first, after = self._head + 1, self._head + len(verdict.accepted)
        page.ack = Ack(self._head, after, epochs[-1].id)
        page.head = after
        page.cid = page.cid if page.more else after
        page.epochs = self._unseen(epochs)
        groups = tuple((first + index, first + index + count - 1) for index, count in verdict.runs)
        commit = Commit(first, after, self._request.client, self._access.principal, clock.now(), groups)
        records = [self._decision_entry(page.ack, verdict.refused), self._mode.commit_entry(commit)]
        if self._withdrawal is not None:
            records.append((withdrawal_key(self._mode.space, self._request.client), None))
        written = self._mode.plan_write_in(epoch_start, self._head, verdict.accepted, records)
        return Plan(page, written.batch, written.cid, durable=True, after_commit=written.after_commit)

    def _rejection_entries(self, ack: Ack, refused: tuple[StoredRefusal, ...]) -> list[Entry]:
        """Return the record of a loss that the log does not show.

        A delayed copy of the push may still arrive: it must be rejected, too.
        """
        request = self._request
        if self._has_decision:
            return [self._decision_entry(ack, refused)]
        nonce = request.push_nonce or ""
        withdrawal = Withdrawal(request.seq, nonce, ack.before, self._access.principal, refused)
        return withdrawal_entries(self._reader, self._mode.records, request.client, withdrawal)

    def _decision_entry(self, ack: Ack, refused: tuple[StoredRefusal, ...]) -> Entry:
        request = self._request
        decision = Decision(request.seq, request.push_nonce or "", ack, self._access.principal, refused)
        return decision_key(self._mode.space, request.client), decision.to_stored()

    def _unconfirmed(self, ack: Ack) -> list[str]:
        """Return the keys of a push decided earlier that the log does not show as accepted.

        Their changes were rejected, or they were accepted, then superseded and compacted away. In
        either case the client gets the present value.
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

    # -------------------------------------------------------------------------- the present state

    def add_present(self, page: LogPage) -> None:
        """Add present values and the next part of the filled range, if the page reaches the head.

        They belong to the state at the head, and would be older than pages that follow.
        """
        if page.more:
            return
        rejected = () if self._request.withdraw else page.rejected
        keys = dict.fromkeys([*self._read, *(key.encode() for key in rejected)])
        size = records_size(page.records) + commits_size(page.commits)
        page.values = self._values([*keys], self._room_for_values(page) - size)
        left = self._max_bytes - size - rows_size([(key, value or b"") for key, value in page.values])
        if self._request.fill is not None and not self._push:
            rows = len(page.records) + len(page.values)
            page.fill = self._fill_part(self._request.limit - len(page.records), left, is_first=not rows)

    def _room_for_values(self, page: LogPage) -> int:
        """Return the bytes that a page may have with the present values.

        A page without changes has room for all values that fit any page, also if the memory of the
        server is short: otherwise a client would take it that the values of a group fit into no
        page, and replace the group in parts.
        """
        return self._max_bytes if page.records else MAX_BYTES

    def _values(self, keys: Sequence[bytes], left: int) -> list[Entry]:
        """Return the present values of the first keys, as many as fit. A hidden key is absent.

        The first value is returned also if it does not fit: a client that pulls large changes all
        the time has to learn of its losses, too.

        Args:
            keys: The keys.
            left: The bytes that are left in the page.
        """
        found: list[Entry] = []
        for start in range(0, len(keys), _VALUES):
            part = keys[start : start + _VALUES]
            for key, value in zip(part, self._present.get_many(part), strict=True):
                if not self._access.covers(key):
                    value = None
                left -= rows_size([(key, value or b"")])
                if left < 0 and found:
                    return self._checked_values(found)
                found.append((key, value))
        return self._checked_values(found)

    def _checked_values(self, values: list[Entry]) -> list[Entry]:
        self._mode.records.check_outgoing_rows([(key, value) for key, value in values if value is not None])
        return values

    def _fill_part(self, limit: int, left: int, *, is_first: bool) -> FillPart | None:
        """Return the next part of the filled range; ``None`` if no entry fits into the page.

        Args:
            limit: The rows that are left in the page.
            left: The bytes that are left in the page.
            is_first: True if the page has no row yet. The first entry is then returned also if it
                does not fit.
        """
        fill = self._request.fill
        assert fill is not None, "the request fills a range"
        entries: list[Row] = []
        is_end = True
        for start, stop in self._ranges.fill:
            rows = self._live_rows(start, stop, limit - len(entries), left, is_first=is_first and not entries)
            entries += rows
            left -= rows_size(rows)
            if first_key(self._reader, rows[-1][0] + b"\0" if rows else start, stop) is not None:
                is_end = False
                break
        if not entries and not is_end:
            return None
        self._mode.records.check_outgoing_rows(entries)
        to = _core.decode_key(entries[-1][0]) if entries else fill.after
        return FillPart(fill.prefix, fill.after, to, is_end, entries)

    def _live_rows(self, start: bytes, stop: bytes | None, limit: int, left: int, *, is_first: bool) -> list[Row]:
        if limit <= 0 or (left <= 0 and not is_first):
            return []
        with closing(self._reader.scan(start, stop)) as cursor:
            rows = read_rows(cursor, limit, max(left, 1))
        return [] if rows_size(rows) > left and not is_first else rows


def is_idle(reply: Reply) -> bool:
    """Return True if a reply holds nothing new, so that a long poll may go on waiting.

    An empty page also ends the wait once it moves the client's CID far. Otherwise the log in
    between would be read again after each commit.
    """
    if not isinstance(reply, LogPage) or reply.cid - reply.base >= _IDLE_CIDS:
        return False
    return not (reply.records or reply.ack or reply.more or reply.values or reply.fill)


def _parse(request: Request, mode: Server, access: Access) -> _ParsedRequest:
    """Validate and encode a request.

    Raises:
        ProtocolError: A change, a prefix or a key is malformed, a key occurs twice, or the push is
            too large.
        ForbiddenError: The client may not write, or follows keys that it may not read.
        StoreMismatchError: The request is for another server.
    """
    encoder = _core.Encoder(mode.space)
    push = _parse_push(request, encoder)
    try:
        read = [encoder.key(key) for key in request.read]
    except InvalidKeyError as error:
        raise ProtocolError(f'the field "read" of the request: {error}') from error
    if request.server not in (None, mode.store_id):
        raise StoreMismatchError(
            f"this is the server {mode.store_id}, but the client follows the server {request.server}: "
            "call rebind() on the client, or run `treehub-level sync --rebind`, to follow this one instead"
        )
    if push:
        access.check_write(())
    ranges = requested_ranges(request, mode.space, access)
    return _ParsedRequest(request, push, ranges, read)


def _parse_push(request: Request, encoder: _core.Encoder) -> list[Entry]:
    """Encode the changes of a push, or the keys of a withdrawn push.

    Raises:
        ProtocolError: A change is malformed, a key occurs twice, or the push is too large.
    """
    if request.changes:
        entries = encode_changes(request.changes, encoder, in_records=request.in_records)
    else:
        entries = encode_changes([[key] for key in request.withdraw], encoder)
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
