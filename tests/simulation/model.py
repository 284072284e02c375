"""The exchange as a model: the protocol in a few plain objects, run under random schedules (T1).

    python -m tests.simulation.model --schedules 20000
    python -m tests.simulation.model --schedules 2000 --without casclean
    python -m tests.simulation.model --seed 5000042

It states what `treehub_level.replication` must do, without bytes, stores or errors. A change to the protocol is made
here first.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .model_messages import (
    Ack,
    Change,
    Decision,
    Epoch,
    Forked,
    Keys,
    Page,
    Push,
    Reply,
    Request,
    Reset,
    ends_of,
    epoch_of,
)
from .runner import main
from .schedule import SWEPT, ClientUnderTest, Configuration, Content, Loss, ServerUnderTest, weigh


@dataclass
class ServerState:
    data: dict[str, Content] = field(default_factory=dict)
    log: dict[int, Change] = field(default_factory=dict)
    cid: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)
    floor: int = 0

    def copy(self) -> ServerState:
        return ServerState(
            dict(self.data), dict(self.log), self.cid, list(self.epochs), dict(self.decisions), self.floor
        )


class Server:
    """The server's half. `exchange` is the protocol; the rest is what happens to servers."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._on = configuration
        self._state = ServerState()
        self._epoch_begun = False

    # ---------------------------------------------------------------------------------------------- protocol

    def exchange(self, request: Request) -> Reply:
        """Answer one request, under the write lock. The first rule that matches decides."""
        state, without = self._state, self._on.without
        decision = state.decisions.get(request.client)
        ack, rejected = None, frozenset[str]()
        if request.keys and decision is not None and "dedupe" not in without:
            if (request.seq, request.nonce) == (decision.seq, decision.nonce):
                ack, rejected = decision.ack, self._unproven(decision.ack, request.keys)
            elif request.seq <= decision.seq:
                return Forked(request.nonce, request.cid)

        agreed = self._agreed(request)
        below_floor = request.cid < state.floor and not request.reset and "floor" not in without
        if agreed != self._hi(request) or request.cid > state.cid or below_floor:
            return Reset(request.nonce, request.cid, min(agreed, request.cid, state.cid), ack, rejected)

        if request.keys_after is not None:
            keys = sorted(key for key in state.data if key > request.keys_after)
            limit = self._on.limit
            return Keys(
                request.nonce,
                request.cid,
                head=state.cid,
                epochs=self._epochs_for(request, state.cid),
                after=request.keys_after,
                keys=tuple(keys[:limit]),
                end=len(keys) <= limit,
            )

        behind = [(cid, *state.log[cid]) for cid in sorted(state.log) if cid > request.cid]
        page = self._cut(behind)
        refused = False
        if request.keys and ack is None:
            distance = len(behind) if "distance" in without else state.cid - request.cid
            refused = distance > self._on.limit
            if request.withdraw and not refused:
                ack, rejected = self._refuse(request)
            elif not refused:
                ack, rejected = self._decide(request, page if "whole" in without else behind)
        cut = len(page) < len(behind)
        to = page[-1][0] if cut else state.cid
        return Page(
            request.nonce,
            request.cid,
            to,
            state.cid,
            more=cut or refused,
            epochs=self._epochs_for(request, to if "hi" in self._on.without else state.cid),
            ack=ack,
            rejected=rejected,
            changes=tuple(page),
        )

    def _cut(self, behind: list[tuple[int, str, Content]]) -> list[tuple[int, str, Content]]:
        page: list[tuple[int, str, Content]] = []
        weight = 0
        for change in behind[: self._on.limit]:
            weight += weigh(change[2])
            if weight > self._on.page_weight and page:
                break
            page.append(change)
        return page

    def _decide(self, request: Request, judges: list[tuple[int, str, Content]]) -> tuple[Ack, frozenset[str]]:
        """Take what nobody else has changed since the client's CID. The server wins the rest."""
        state = self._state
        foreign = {key for _, key, _ in judges}
        accepted = [change for change in request.changes if change[0] not in foreign]
        rejected = frozenset(key for key, _ in request.changes if key in foreign)
        if not accepted:
            # Needs no record: the changes that judged stay behind this base, so the same request is refused for ever.
            return Ack(state.cid, state.cid, None), rejected
        before = state.cid
        for key, content in accepted:
            self.write(key, content)
        ack = Ack(before, state.cid, state.epochs[-1].id)
        state.decisions[request.client] = Decision(request.seq, request.nonce, ack)
        return ack, rejected

    def _refuse(self, request: Request) -> tuple[Ack, frozenset[str]]:
        """Refuse a push that is taken back, for ever: a copy of it may still be on its way."""
        ack = Ack(self._state.cid, self._state.cid, None)
        if "withdraw" not in self._on.without:
            self._state.decisions[request.client] = Decision(request.seq, request.nonce, ack)
        return ack, frozenset(request.withdraw)

    def _unproven(self, ack: Ack, keys: tuple[str, ...]) -> frozenset[str]:
        """Which changes of a push decided earlier the log does not prove to have been taken.

        They were refused, or superseded and compacted away since. Either way their last change is behind the client's
        CID.
        """
        if ack.after - ack.before == len(keys) or "rejected" in self._on.without:
            return frozenset()
        taken = {self._state.log[cid][0] for cid in range(ack.before + 1, ack.after + 1) if cid in self._state.log}
        return frozenset(key for key in keys if key not in taken)

    def _hi(self, request: Request) -> int:
        return request.cid if "hi" in self._on.without else request.hi

    def _agreed(self, request: Request) -> int:
        """The last CID, at most ``hi``, up to which the client's history and this one are the same."""
        hi = self._hi(request)
        if hi == 0 or "epoch" in self._on.without:
            return hi
        if not request.epochs:  # it has synchronised by the seed's verbs only: taken at its word
            return hi if hi <= self._state.cid else 0
        here, there = ends_of(self._state.epochs, self._state.cid), ends_of(request.epochs, hi)
        return max((min(end, here[epoch]) for epoch, end in there.items() if epoch in here), default=0)

    def _epochs_for(self, request: Request, stop: int) -> tuple[Epoch, ...]:
        """Those that begin behind the client's CID and before ``stop``; all, for a client that has shown none."""
        known = request.cid if request.epochs else 0
        return tuple(epoch for epoch in self._state.epochs if known <= epoch.start < stop)

    # ------------------------------------------------------------------------------------------ what happens

    def calm(self) -> None:
        pass

    @property
    def head(self) -> int:
        return self._state.cid

    def write(self, key: str, content: Content) -> None:
        state = self._state
        if not self._epoch_begun:
            state.epochs.append(Epoch(self._rng.getrandbits(62), state.cid))
            self._epoch_begun = True
        state.cid += 1
        state.log[state.cid] = (key, content)
        _store(state.data, key, content)

    def compact(self) -> None:
        last = {key: cid for cid, (key, _) in sorted(self._state.log.items())}
        self._state.log = {cid: change for cid, change in self._state.log.items() if last[change[0]] == cid}

    def forget_deletes(self, before: int) -> None:
        self.compact()
        state = self._state
        for cid, (_, content) in list(state.log.items()):
            if content is None and cid < before and cid != state.cid:
                del state.log[cid]
                state.floor = max(state.floor, cid)

    def restart(self, *, power: bool) -> None:
        self._epoch_begun = False

    def backup(self) -> ServerState:
        return self._state.copy()

    def restore(self, backup: ServerState) -> None:
        self._state = backup.copy()
        self._epoch_begun = False

    def live(self) -> dict[str, Content]:
        return dict(self._state.data)

    def log(self, after: int) -> dict[int, Change]:
        return {cid: change for cid, change in self._state.log.items() if cid > after}

    def epoch(self, cid: int) -> Hashable:
        return epoch_of(cid, self._state.epochs)


@dataclass(frozen=True)
class Resetting:
    """A reset under way: phase A pulls from 0, phase B (``cursor`` given) compares keys."""

    common: int
    cursor: str | None = None


@dataclass
class ClientState:
    """What a client has on disk."""

    id: int
    data: dict[str, Content] = field(default_factory=dict)
    dirty: dict[str, Content] = field(default_factory=dict)
    journal: tuple[Loss, ...] = ()
    cid: int = 0
    hi: int = 0
    epochs: tuple[Epoch, ...] = ()
    seq: int = 0
    push: Push | None = None
    aside: Push | None = None
    own: Ack | None = None
    reset: Resetting | None = None

    def copy(self) -> ClientState:
        return replace(self, data=dict(self.data), dirty=dict(self.dirty))


class Client:
    """The client's half. `start` and `receive` are the protocol; the rest is what happens to clients."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._on = configuration
        self._state = ClientState(rng.getrandbits(62))
        self._outstanding: Request | None = None
        self._durable = self._state.copy()
        self._since: list[ClientState] = []  # after each commit behind `_durable`
        self._calm = False
        self._base = 0

    @property
    def commits(self) -> int:
        return self._base + len(self._since)

    def _commit(self, *, durable: bool = False) -> None:
        self._since.append(self._state.copy())
        if durable:
            self._base, self._durable, self._since = self.commits, self._since[-1], []

    # ---------------------------------------------------------------------------------------------- protocol

    def start(self) -> Request:
        """Freeze a push if one is due, and make a request: the push as it was frozen, everything else as it is now."""
        state, without = self._state, self._on.without
        forbidden = not self._calm and self._rng.random() < self._on.forbidden
        if forbidden and state.push:
            state.push, state.aside = None, None if "aside" in without else state.push
            self._commit()
        undecided = state.push or state.aside
        may_freeze = not (undecided or state.reset or forbidden) and (state.own is None or "drain" in without)
        if may_freeze and state.dirty:
            state.seq += 1
            changes = tuple(sorted(state.dirty.items())[: self._on.push])
            state.push = Push(state.seq, self._rng.getrandbits(62), changes)
            self._commit(durable="durable_freeze" not in without)
        aside = None if forbidden or state.reset else state.aside
        push = state.push or aside or Push(state.seq, self._rng.getrandbits(62), ())
        withdrawn = push is aside or (bool(push.changes) and self._rng.random() < self._on.withdraw)
        if "inflight" in without:
            state.push = None
        self._outstanding = Request(
            state.id,
            state.cid,
            state.hi,
            state.epochs,
            push.seq,
            push.nonce,
            () if withdrawn else push.changes,
            reset=state.reset is not None,
            keys_after=state.reset.cursor if state.reset else None,
            withdraw=tuple(key for key, _ in push.changes) if withdrawn else (),
        )
        return self._outstanding

    def receive(self, reply: Reply) -> None:
        """Take a reply, in one batch, if it answers the outstanding request."""
        request, state = self._outstanding, self._state
        if request is None:
            return
        if (reply.nonce, reply.base) != (request.nonce, state.cid) and "respcas" not in self._on.without:
            return
        self._outstanding = None
        match reply:
            case Forked():
                state.id, state.seq, state.push, state.aside = self._rng.getrandbits(62), 0, None, None
                self._commit(durable=True)
            case Reset():
                self._take_ack(request, reply.ack, reply.rejected)
                common = min(reply.common, state.reset.common) if state.reset else reply.common
                state.reset, state.push = Resetting(common), None
                state.aside = None if reply.ack else state.aside
                state.cid, state.hi, state.epochs = 0, 0, ()
                self._commit()
            case Keys():
                if state.reset is not None and state.reset.cursor == reply.after:
                    if not self._on.without & {"hi", "keys_hi"}:
                        self._learn(reply)
                    self._sweep(state.reset, reply)
                    self._commit()
            case Page():
                self._apply(request, reply)
                self._commit()

    def _take_ack(self, request: Request, ack: Ack | None, rejected: frozenset[str]) -> None:
        if ack is None:
            return
        dirty = self._state.dirty
        frozen = self._state.push.changes if self._state.push else request.changes
        for key, content in frozen:
            if key in dirty and key not in rejected and (dirty[key] == content or "casclean" in self._on.without):
                del dirty[key]
        if ack.after > ack.before:
            self._state.own = ack

    def _apply(self, request: Request, page: Page) -> None:
        state, without = self._state, self._on.without
        self._take_ack(request, page.ack, page.rejected)
        self._learn(page)
        for cid, key, content in page.changes:
            if key in state.dirty:
                if state.own and state.own.covers(cid, state.epochs) and "skip" not in without:
                    continue
                if state.reset and cid <= state.reset.common:
                    continue
                if self._is_as_set_aside(key, content) and state.dirty[key] != content:
                    continue
                if state.dirty[key] != content:
                    state.journal += (Loss(key, state.dirty[key], content, cid),)
                del state.dirty[key]
            _store(state.data, key, content)
        state.cid = page.cid
        if "hi" in without:
            state.hi = page.cid
        if state.own and (state.cid >= state.own.after or not page.more):
            state.own = None
        if page.ack or page.more:
            state.push = None
        if request.withdraw:
            state.aside = None
        if state.reset and not page.more:
            state.reset = replace(state.reset, cursor="")

    def _is_as_set_aside(self, key: str, content: Content) -> bool:
        """Whether a change says what the push set aside says: it may be the client's own; the dirty one is newer."""
        aside = self._state.aside
        return aside is not None and (key, content) in aside.changes and "echo" not in self._on.without

    def _learn(self, reply: Page | Keys) -> None:
        """Remember which history this comes from, and up to where it was read."""
        state = self._state
        state.epochs += tuple(epoch for epoch in reply.epochs if epoch not in state.epochs)
        state.hi = max(state.hi, reply.head)

    def _sweep(self, reset: Resetting, reply: Keys) -> None:
        state = self._state
        last = reply.keys[-1] if reply.keys else reply.after
        for key in sorted(state.data):
            listed = key > reply.after and (reply.end or key <= last)
            if listed and key not in reply.keys and key not in state.dirty and "sweep" not in self._on.without:
                state.journal += (Loss(key, state.data.pop(key), SWEPT, state.cid),)
        state.reset = None if reply.end else replace(reset, cursor=last)

    # ------------------------------------------------------------------------------------------ what happens

    def calm(self) -> None:
        self._calm = True

    @property
    def cid(self) -> int:
        return self._state.cid

    @property
    def resetting(self) -> bool:
        return self._state.reset is not None

    @property
    def drained(self) -> bool:
        state = self._state
        return not (state.dirty or state.push or state.aside or state.reset)

    def write(self, key: str, content: Content) -> None:
        _store(self._state.data, key, content)
        self._state.dirty[key] = content
        self._commit()

    def pull_by_seed_verbs(self, server: ServerUnderTest) -> None:
        self._state.data, self._state.cid, self._state.hi = server.live(), server.head, server.head
        self._commit(durable=True)

    def crash(self, *, power: bool) -> None:
        self._outstanding = None
        if power:
            self._since = self._since[: self._rng.randint(0, len(self._since))]
            self._state = (self._since[-1] if self._since else self._durable).copy()

    def backup(self) -> ClientState:
        return self._state.copy()

    def restore(self, backup: ClientState) -> None:
        self._outstanding = None
        self._state = backup.copy()
        self._commit(durable=True)

    def live(self) -> dict[str, Content]:
        return dict(self._state.data)

    def dirty(self) -> dict[str, Content]:
        return self._state.dirty

    def journal(self) -> list[Loss]:
        return list(self._state.journal)

    def epoch(self) -> Hashable:
        return self._state.epochs[-1].id if self._state.epochs else None


def _store(data: dict[str, Content], key: str, content: Content) -> None:
    if content is None:
        data.pop(key, None)
    else:
        data[key] = content


@contextmanager
def world(
    rng: random.Random, configuration: Configuration
) -> Iterator[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]:
    """A server and its clients."""
    clients = {f"c{i}": Client(rng, configuration) for i in range(configuration.clients)}
    yield Server(rng, configuration), clients


if __name__ == "__main__":
    main(world, __doc__ or "")
