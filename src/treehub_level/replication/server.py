"""The server's half of the exchange: one step, under the write lock (``protocol.md``, "One exchange").

A refusal must be for ever. A message may arrive late, and twice; were it refused first and taken later, the client,
which has given it up, would meet its own old write as a stranger's. So a push is refused by what cannot shrink: the
distance in CIDs, the keys changed since its base (a key's last change stays in the log), the floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.access import FULL, Access
from ..engine.log import keys_of, permitted_records, read_floor, read_log
from ..engine.modes import Epoch, Plan, Server, Step, read_record
from ..errors import CorruptionError, ForbiddenError, ProtocolError, StoreMismatchError
from .fields import Ack, shown
from .messages import MAX_BYTES, Forked, Keys, LogPage, Reply, Request, Reset, encode_changes

#: Records that are read at a time where only their keys matter.
_READ = 1000


class Decision(NamedTuple):
    """What the server remembers of each client: its last push of which something was accepted, or that it took back.

    Attributes:
        seq: The number of the push.
        nonce: Its nonce.
        ack: What became of it.
        principal: Who sent the client's first one; ``None`` if nobody was named yet.
    """

    seq: int
    nonce: str
    ack: Ack
    principal: str | None


def exchange_step(request: Request, mode: Server, access: Access = FULL) -> Step[Reply]:
    """Answer one request. The first rule that matches decides.

    Whoever may see only a part of the keys gets the log and the keys of that part. To them it looks like a log that
    was compacted: CIDs go on over what is left out.

    Args:
        request: What the client asks.
        mode: The server.
        access: Who asks, and what they may see and change.

    Raises:
        ProtocolError: A malformed change.
        ForbiddenError: A push of what may not be changed, or a client id of another principal (in the step).
        StoreMismatchError: The request is for another server.
    """
    push = _checked_push(request, mode)

    def step(transaction: Transaction, head: int) -> Plan[Reply]:
        exchange = _Exchange(request, push, mode, access, transaction, head)
        reply = exchange.answer()
        if push and isinstance(reply, LogPage) and reply.ack is None:
            return exchange.decide(reply, transaction)
        return Plan(reply)

    return step


def answer_pull(request: Request, mode: Server, access: Access, reader: Reader, head: int) -> Reply:
    """Answer a request that pushes nothing, which needs no more than a reader: see `exchange_step`."""
    assert not request.keys, "a push is decided in a step"
    return _Exchange(request, _checked_push(request, mode), mode, access, reader, head).answer()


class _Exchange:
    """One request, and the moment at which it is answered."""

    def __init__(
        self, request: Request, push: list[Entry], mode: Server, access: Access, reader: Reader, head: int
    ) -> None:
        self._request = request
        self._push = push
        self._mode = mode
        self._access = access
        self._reader = reader
        self._head = head
        self._epochs: list[Epoch] = []
        self._address = mode.store_id, request.nonce, request.cid

    def answer(self) -> Reply:
        """What there is to say but for a push that is to be decided yet: that is a page without an ``ack``."""
        request = self._request
        if self._push:
            self._access.check_write(key for key, _ in self._push)
        ack: Ack | None = None
        rejected: list[str] = []

        decision = read_decision(self._reader, self._mode.space, request.client)
        if decision is not None:
            if decision.principal not in (None, self._access.principal):
                raise ForbiddenError(f"the client id {request.client} belongs to somebody else: take a new one")
            if self._push and (request.seq, request.nonce) == (decision.seq, decision.nonce):
                ack, rejected = decision.ack, self._unproven(decision.ack)
            elif self._push and request.seq <= decision.seq:
                return Forked(*self._address)

        self._epochs = self._mode.epochs(self._reader)
        agreed = last_agreed(request, self._epochs, self._head)
        _, floor = read_floor(self._reader, self._mode.space)
        if agreed < request.max_head or request.cid > self._head or (request.cid < floor and not request.reset):
            return Reset(*self._address, min(agreed, request.cid), ack, rejected, self._head)
        if request.keys_after is not None:
            return self._keys(request.keys_after, self._news(self._epochs))

        records = read_log(self._reader, self._mode.space, request.cid, request.limit, MAX_BYTES)
        to = records[-1][0] if records else request.cid
        return LogPage(
            *self._address,
            cid=to,
            head=self._head,
            more=to < self._head,
            epochs=self._news(self._epochs),
            ack=ack,
            rejected=rejected,
            records=permitted_records(records, self._access),
        )

    def decide(self, page: LogPage, transaction: Transaction) -> Plan[Reply]:
        """What becomes of the push, and the page that says so."""
        if self._is_far():
            page.more = True
            return Plan(page)
        if self._request.withdraw:
            return self._refuse(page)
        return self._take(page, transaction)

    def _is_far(self) -> bool:
        """Whether the client is too far behind for its push: in CIDs, since compaction cannot shrink that distance."""
        return self._head - self._request.cid > self._request.limit

    def _take(self, page: LogPage, transaction: Transaction) -> Plan[Reply]:
        """Take from the push what nobody has changed since the client's CID; the server wins the rest.

        All of the log behind that CID judges, even where the page was cut before its end.
        """
        foreign = set(keys_of(page.records))
        if page.more:
            foreign.update(keys_of(self._behind(page.cid, self._head)))
        accepted = [entry for entry in self._push if entry[0] not in foreign]
        page.rejected = _texts(key for key, _ in self._push if key in foreign)
        page.ack = Ack(self._head, self._head, None)
        if not accepted:
            # No record of it is needed: what judged stays behind this base, so the same request is refused for ever.
            return Plan(page)
        epoch_start = self._mode.epoch_start(transaction, self._head, self._epochs)
        epochs = self._epochs if epoch_start is None else epoch_start.epochs
        after = self._head + len(accepted)
        page.ack = Ack(self._head, after, epochs[-1].id)
        page.head = after
        page.cid = page.cid if page.more else after
        page.epochs = self._news(epochs)
        written = self._mode.plan_write_in(epoch_start, self._head, accepted, [self._decision(page.ack)])
        return Plan(page, written.batch, written.cid, durable=True, after_commit=written.after_commit)

    def _refuse(self, page: LogPage) -> Plan[Reply]:
        """Refuse a push that is taken back, for ever: a copy of it may still be on its way."""
        page.rejected = _texts(key for key, _ in self._push)
        page.ack = Ack(self._head, self._head, None)
        return Plan(page, [self._decision(page.ack)], durable=True)

    def _decision(self, ack: Ack) -> Entry:
        record = orjson.dumps([self._request.seq, self._request.nonce, *ack, self._access.principal])
        return _decision_key(self._mode.space, self._request.client), record

    def _unproven(self, ack: Ack) -> list[str]:
        """Keys of a push decided earlier that the log does not prove to have been taken.

        They were refused, or were superseded and compacted away since. Either way their last change lies behind the
        client's CID, and settles the matter there.
        """
        if ack.after - ack.before == len(self._push):
            return []
        taken = set(keys_of(self._behind(ack.before, ack.after)))
        return _texts(key for key, _ in self._push if key not in taken)

    def _behind(self, after: int, to: int) -> Iterator[tuple[int, bytes]]:
        """The log from ``after``, exclusive, to ``to``, in bounded memory."""
        while records := read_log(self._reader, self._mode.space, after, _READ, MAX_BYTES):
            for cid, record in records:
                if cid > to:
                    return
                yield cid, record
            after = records[-1][0]

    def _news(self, epochs: Sequence[Epoch]) -> list[Epoch]:
        """The epochs that the client may not know: those that begin behind its CID, or all if it has shown none."""
        first = self._request.cid if self._request.epochs else 0
        return [epoch for epoch in epochs if epoch.start >= first]

    def _keys(self, after: str, epochs: list[Epoch]) -> Keys:
        space, limit = self._mode.space, self._request.limit
        start, stop = self._access.bounds(max(space.user_start, after.encode() + b"\0"), None)
        with closing(self._reader.scan(start, stop, values=False)) as cursor:
            keys = cursor.fetch_keys(limit + 1)
        return Keys(*self._address, self._head, epochs, after, keys[:limit], end=len(keys) <= limit)


def is_idle(reply: Reply) -> bool:
    """Whether a reply brings the client nothing, so that it may as well wait for one that does."""
    return isinstance(reply, LogPage) and not (reply.records or reply.ack or reply.more)


def _checked_push(request: Request, mode: Server) -> list[Entry]:
    """The entries of a push, in which no key may stand twice; of one that is taken back, the keys alone.

    Raises:
        ProtocolError: A change that is none, a key twice, or more bytes than fit.
        StoreMismatchError: The request is for another server.
    """
    entries = encode_changes(request.changes or [[key] for key in request.withdraw], _core.Encoder(mode.space))
    if request.server not in (None, mode.store_id):
        raise StoreMismatchError(
            f"this is the server {mode.store_id}, and the client has synchronised with {request.server}: "
            "call rebind() if it shall follow this one from now on"
        )
    seen: set[bytes] = set()
    for key, _ in entries:
        if key in seen:
            raise ProtocolError(f"changes: the key {shown(key)} stands twice; send the last change of each key only")
        seen.add(key)
    return entries


def read_decision(reader: Reader, space: _core.KeySpace, client: str) -> Decision | None:
    """The decision on a client's last push; ``None`` if none of its pushes was accepted or taken back yet.

    Raises:
        CorruptionError: The record is not what this module writes.
    """
    record = read_record(reader, _decision_key(space, client))
    if record is None:
        return None
    try:
        seq, nonce, before, after, epoch, principal = record
        ack = Ack(int(before), int(after), None if epoch is None else str(epoch))
        return Decision(int(seq), str(nonce), ack, principal)
    except (TypeError, ValueError) as error:
        raise CorruptionError(f"the decision on the client {client} cannot be read: {record!r:.80}") from error


def last_agreed(request: Request, epochs: Sequence[Epoch], head: int) -> int:
    """The last CID, at most the ``hi`` of the request, up to which its history and that of these epochs are one.

    A client that shows no epochs has synchronised by the seed's verbs only: it is taken at its word.
    """
    if not request.epochs:
        return request.max_head if request.max_head <= head else 0
    here, there = _ends(epochs, head), _ends(request.epochs, request.max_head)
    shared = [min(end, here[epoch]) for epoch, end in there.items() if epoch in here]
    return max(shared, default=0)


def _ends(epochs: Sequence[Epoch], last: int) -> dict[str, int]:
    """The CID at which each epoch ended; the last one goes on to ``last``."""
    starts = [epoch.start for epoch in epochs[1:]]
    return {epoch.id: end for epoch, end in zip(epochs, [*starts, last], strict=False)}


def _decision_key(space: _core.KeySpace, client: str) -> bytes:
    return space.own_key(f"client/{client}")


def _texts(keys: Iterable[bytes]) -> list[str]:
    return [_core.decode_key(key) for key in keys]
