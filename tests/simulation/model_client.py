"""The client's half of the model. See ``model.py``."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from .configuration import Configuration
from .model_messages import Ack, Epoch, Forked, Keys, Page, Push, Reply, Request, Reset, SeedPage, Stranger, store
from .sides import SWEPT, Content, Loss, ServerUnderTest


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
    server: int | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the exchange has nothing under way that the seed's verbs would disturb."""
        return not (self.push or self.aside or self.own or self.reset)

    def copy(self) -> ClientState:
        return replace(self, data=dict(self.data), dirty=dict(self.dirty))


class Client:
    """The client's half. `start` and `receive` are the protocol; the rest is what happens to clients."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._on = configuration
        self._state = ClientState(rng.getrandbits(62))
        self._outstanding: Request | None = None
        self._is_refused = False
        self._calm = False
        self._durable = self._state.copy()
        self._since: list[ClientState] = []  # after each commit behind `_durable`
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
        if self._is_refused:
            return self.rebind()
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
        too_large = bool(push.changes) and not self._calm and self._rng.random() < self._on.withdraw
        withdrawn = push is aside or too_large
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
            server=state.server,
        )
        return self._outstanding

    def receive(self, reply: Reply) -> None:
        """Take a reply, in one batch, if it answers the outstanding request."""
        request, state = self._outstanding, self._state
        if request is None:
            return
        if request.client != state.id:
            self._follow(request, reply)
            return
        if (reply.nonce, reply.base) != (request.nonce, state.cid) and "respcas" not in self._on.without:
            return
        self._outstanding = None
        if isinstance(reply, Stranger):
            self._is_refused = True
            return
        state.server = reply.server
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

    def rebind(self) -> Request:
        """Ask a server who it is, as nobody it knows."""
        self._outstanding = Request(self._rng.getrandbits(62), 0, 0, (), 0, self._rng.getrandbits(62))
        return self._outstanding

    def _follow(self, request: Request, reply: Reply) -> None:
        """The second half of `rebind`: pull everything from this server, and push what is dirty."""
        if reply.nonce != request.nonce:
            return
        self._outstanding, self._is_refused, state = None, False, self._state
        state.id, state.seq, state.own = self._rng.getrandbits(62), 0, None
        state.push = state.aside = None
        state.cid, state.hi, state.epochs, state.reset = 0, 0, (), Resetting(0)
        state.server = reply.server
        self._commit(durable=True)

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
            store(state.data, key, content)
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

    # ---------------------------------------------------------------------------------------- the seed's verbs

    def pull_by_seed_verbs(self, server: ServerUnderTest) -> None:
        self._state.data, self._state.cid, self._state.hi = server.live(), server.head, server.head
        self._commit(durable=True)

    def pull_by_hand(self, server: Any) -> SeedPage | None:
        page: SeedPage | None = server.changes(self._state.cid)
        return page

    def apply_by_hand(self, page: SeedPage) -> None:
        state = self._state
        if page.cid <= state.cid or not state.is_idle:
            return
        for _, key, content in page.changes:
            if key in state.dirty and (lost := state.dirty.pop(key)) != content:
                state.journal += (Loss(key, lost, content, page.cid),)
            store(state.data, key, content)
        self._move_by_hand(page.cid)

    def push_by_hand(self, server: Any) -> SeedPage | None:
        state = self._state
        if not state.dirty or not state.is_idle or state.cid != server.head:
            return None
        changes = sorted(state.dirty.items())[: self._on.push]
        for key, content in changes:
            server.write(key, content)
        return SeedPage(server.head, tuple((server.head, *change) for change in changes))

    def clean_by_hand(self, pushed: SeedPage) -> None:
        dirty = self._state.dirty
        for _, key, content in pushed.changes:
            if dirty.get(key, SWEPT) == content:
                del dirty[key]
        self._move_by_hand(pushed.cid)

    def _move_by_hand(self, cid: int) -> None:
        """From now on it has no history to show."""
        self._state.cid, self._state.hi, self._state.epochs = cid, cid, ()
        self._commit()

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
        return not (state.dirty or state.push or state.aside or state.reset or self._is_refused)

    def write(self, key: str, content: Content) -> None:
        store(self._state.data, key, content)
        self._state.dirty[key] = content
        self._commit()

    def restore_loss(self, loss: Loss) -> None:
        self._forget(loss)
        self.write(loss.key, loss.local)

    def dismiss_loss(self, loss: Loss) -> None:
        self._forget(loss)
        self._commit()

    def _forget(self, loss: Loss) -> None:
        journal = [*self._state.journal]
        journal.remove(loss)
        self._state.journal = tuple(journal)

    def intrude(self) -> None:
        pass  # messages are well-formed here

    def crash(self, *, power: bool) -> None:
        self._outstanding, self._is_refused = None, False
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
