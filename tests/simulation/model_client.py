"""The client's half of the model: see ``model.py``."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from .configuration import Configuration
from .model_messages import (
    Ack,
    Epoch,
    Forked,
    Keys,
    ManualPage,
    Page,
    Push,
    Reply,
    Request,
    Reset,
    WrongServer,
    set_or_delete,
)
from .sides import SWEPT, UNKNOWN, Content, Loss, ServerUnderTest, weigh


@dataclass(frozen=True)
class ResetProgress:
    """A reset in progress: phase A pulls from CID 0; phase B, with a ``cursor``, compares keys."""

    common: int
    cursor: str | None = None


@dataclass
class ClientState:
    """The stored state of a client."""

    id: int
    data: dict[str, Content] = field(default_factory=dict)
    dirty: dict[str, Content] = field(default_factory=dict)
    base_values: dict[str, Content] = field(default_factory=dict)
    journal: tuple[Loss, ...] = ()
    cid: int = 0
    max_head: int = 0
    epochs: tuple[Epoch, ...] = ()
    seq: int = 0
    push: Push | None = None
    withheld_push: Push | None = None
    own_range: Ack | None = None
    reset: ResetProgress | None = None
    server: int | None = None

    @property
    def is_idle(self) -> bool:
        """True if no push and no reset is in progress, so that a manual sync is allowed."""
        return not (self.push or self.withheld_push or self.own_range or self.reset)

    def copy(self) -> ClientState:
        return replace(self, data=dict(self.data), dirty=dict(self.dirty), base_values=dict(self.base_values))


class Client:
    """A client of the model. `start` and `receive` are the protocol; schedules call the rest."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._options = configuration
        self.limit = configuration.limit
        self._state = ClientState(rng.getrandbits(62))
        self._outstanding: Request | None = None
        #: The rejected keys whose later changes are still to be pulled, and the CID pulled up to.
        self._owed: frozenset[str] = frozenset()
        self._checked_cid = -1
        #: The nonces of withdrawn pushes: their rejection needs no later change.
        self._withdrawn: set[int] = set()
        self._has_wrong_server = False
        self._faults_stopped = False
        self._durable = self._state.copy()
        self._openings = random.Random(self._state.id)
        self._keeps_base = configuration.keep_base
        self._at_risk: list[ClientState] = []  # the state after each commit since `_durable`
        self._durable_commits = 0

    @property
    def commits(self) -> int:
        return self._durable_commits + len(self._at_risk)

    def _commit(self, *, durable: bool = False) -> None:
        self._at_risk.append(self._state.copy())
        if durable:
            self._durable_commits, self._durable, self._at_risk = self.commits, self._at_risk[-1], []

    def _has(self, mechanism: str) -> bool:
        """Return True unless this run removes the mechanism."""
        return mechanism not in self._options.without

    # --------------------------------------------------------------------------------- protocol

    def start(self) -> Request:
        """Freeze a push if possible, and return a request with the frozen push."""
        if self._has_wrong_server:
            return self.rebind()
        state = self._state
        forbidden = not self._faults_stopped and self._rng.random() < self._options.forbidden
        if forbidden and state.push:
            state.withheld_push = state.push if self._has("withheld_push") else None
            state.push = None
            self._commit()

        undecided = state.push or state.withheld_push
        is_drained = state.own_range is None or not self._has("drained_own_range")
        if state.dirty and is_drained and not (undecided or state.reset or forbidden):
            state.seq += 1
            changes = tuple(sorted(state.dirty.items())[: self._options.push])
            state.push = Push(state.seq, self._rng.getrandbits(62), changes)
            self._commit(durable=self._has("durable_freeze"))

        withheld_push = None if forbidden or state.reset else state.withheld_push
        push = state.push or withheld_push or Push(state.seq, self._rng.getrandbits(62), ())
        too_large = bool(push.changes) and not self._faults_stopped and self._rng.random() < self._options.withdraw
        withdraw = push is withheld_push or too_large
        if not self._has("frozen_push"):
            state.push = None
        self._outstanding = Request(
            client=state.id,
            cid=state.cid,
            max_head=state.max_head,
            epochs=state.epochs,
            seq=push.seq,
            nonce=push.nonce,
            changes=() if withdraw else push.changes,
            withdraw=tuple(key for key, _ in push.changes) if withdraw else (),
            reset=state.reset is not None,
            keys_after=state.reset.cursor if state.reset else None,
            server=state.server,
            limit=self.limit,
        )
        if withdraw:
            self._withdrawn.add(push.nonce)
        return self._outstanding

    def receive(self, reply: Reply) -> None:
        """Apply a reply to the outstanding request, in one batch. Ignore a stale reply."""
        request, state = self._outstanding, self._state
        if request is None:
            return
        if request.client != state.id:
            self._apply_rebind(request, reply)
            return
        if (reply.nonce, reply.base) != (request.nonce, state.cid) and self._has("stale_replies"):
            return
        self._outstanding = None
        if isinstance(reply, WrongServer):
            self._has_wrong_server = True
            return
        if isinstance(reply, Page):
            reply = self._beginning(reply)
        self._check_progress(request, reply)
        state.server = reply.server
        match reply:
            case Forked():
                state.id, state.seq = self._rng.getrandbits(62), 0
                state.push = state.withheld_push = None
                self._commit(durable=True)
            case Reset():
                self._apply_ack(request, reply.ack, reply.rejected)
                self._forget_base_values()
                common = min(reply.common, state.reset.common) if state.reset else reply.common
                state.reset = ResetProgress(common)
                state.push = None
                state.withheld_push = None if reply.ack else state.withheld_push
                state.cid, state.max_head, state.epochs = 0, 0, ()
                self._commit()
            case Keys():
                if state.reset is not None and state.reset.cursor == reply.after:
                    if self._has("max_head") and self._has("keys_max_head"):
                        self._record_history(reply)
                    self._sweep(state.reset, reply)
                    self._commit()
            case Page():
                self._apply_page(request, reply)
                self._commit()

    def _check_progress(self, request: Request, reply: Reply) -> None:
        """Check the progress that every reply must bring: a client refuses any other reply."""
        if request.cid != self._checked_cid:
            self._owed = frozenset()  # the client has pulled by other means meanwhile
        if isinstance(reply, Page):
            assert reply.cid > request.cid or not reply.more, "a page announces more, and holds nothing"
            if request.nonce not in self._withdrawn:
                self._owed |= reply.rejected
            self._owed -= {key for _, key, _ in reply.changes}
            assert reply.more or not self._owed, "a push was rejected for changes that the log does not have"
            self._checked_cid = reply.cid
        elif isinstance(reply, Keys):
            is_part = len(reply.keys) == request.limit
            assert reply.end or is_part or not self._has("sweep"), "a part of the keys is not the last, and not full"
        if isinstance(reply, (Page, Reset)) and reply.ack is not None:
            accepted = reply.ack.after - reply.ack.before
            assert accepted + len(reply.rejected) >= len(request.keys), "changes are neither accepted nor rejected"

    def rebind(self) -> Request:
        """Return a request for a server's id, with a client id that no server knows."""
        self._outstanding = Request(
            client=self._rng.getrandbits(62), cid=0, max_head=0, epochs=(), seq=0, nonce=self._rng.getrandbits(62)
        )
        return self._outstanding

    def _apply_rebind(self, request: Request, reply: Reply) -> None:
        """Follow the server that has replied: pull all its data, and push the dirty changes."""
        if reply.nonce != request.nonce:
            return
        self._outstanding, self._has_wrong_server, state = None, False, self._state
        state.id, state.seq = self._rng.getrandbits(62), 0
        state.push = state.withheld_push = state.own_range = None
        self._forget_base_values()
        state.cid, state.max_head, state.epochs = 0, 0, ()
        state.reset = ResetProgress(common=0)
        state.server = reply.server
        self._commit(durable=True)

    def _apply_ack(self, request: Request, ack: Ack | None, rejected: frozenset[str]) -> None:
        """Drop the dirty changes that were accepted and are still the frozen ones."""
        if ack is None:
            return
        state, dirty = self._state, self._state.dirty
        frozen = state.push.changes if state.push else request.changes
        if state.withheld_push and request.withdraw and ack.before >= state.cid:  # else it was pulled before
            for key, content in state.withheld_push.changes:
                if key in dirty and key not in rejected:
                    self._learn_base_value(key, content)
        for key, content in frozen:
            is_unchanged = dirty.get(key, SWEPT) == content or not self._has("compare_and_clean")
            if key in dirty and key not in rejected:
                if is_unchanged:
                    self._clean(key)
                else:
                    self._learn_base_value(key, content)
        if ack.after > ack.before:
            self._state.own_range = ack

    def _apply_page(self, request: Request, page: Page) -> None:
        state = self._state
        self._apply_ack(request, page.ack, page.rejected)
        self._record_history(page)
        for cid, key, content in page.changes:
            if key in state.dirty:
                if self._keeps_dirty(cid, key, content):
                    self._learn_base_value(key, content)
                    continue
                base = state.base_values.get(key, UNKNOWN)
                if (lost := self._clean(key)) != content:
                    state.journal += (Loss(key, lost, content, cid, base),)
            set_or_delete(state.data, key, content)
        state.cid = page.cid
        if not self._has("max_head"):
            state.max_head = page.cid
        if state.own_range and (state.cid >= state.own_range.after or not page.more):
            state.own_range = None
        if page.ack or page.more:
            state.push = None
        if request.withdraw:
            state.withheld_push = None
        if state.reset and not page.more:
            state.reset = replace(state.reset, cursor="")

    def _keeps_dirty(self, cid: int, key: str, content: Content) -> bool:
        """Return True if a dirty change stays, since it was made with knowledge of a pulled one."""
        state = self._state
        if state.own_range and state.own_range.covers(cid, state.epochs) and self._has("own_range"):
            return True
        if state.reset and cid <= state.reset.common:
            return True
        return self._is_withheld(key, content) and state.dirty[key] != content

    def _clean(self, key: str) -> Content:
        """Return the dirty change of a key, and drop it with its base value."""
        self._state.base_values.pop(key, None)
        return self._state.dirty.pop(key)

    def _learn_base_value(self, key: str, content: Content) -> None:
        """Record the server's value of a key that stays dirty."""
        if self._keeps_base and self._has("base_value_of_server"):
            self._state.base_values[key] = content

    def _forget_base_values(self) -> None:
        """Forget all base values: the server may never have had them in its present history."""
        if self._has("base_values_reset"):
            self._state.base_values.clear()

    def _beginning(self, page: Page) -> Page:
        """Return as much of a page as one batch may hold, as if the server had cut it there.

        The batch holds the local changes that lose, and those may be larger than the page.
        """
        weight = 0
        for index, (_, key, _) in enumerate(page.changes):
            weight += weigh(self._state.dirty[key]) if key in self._state.dirty else 0
            if index and weight > self._options.lost_weight:
                return replace(page, cid=page.changes[index - 1][0], more=True, changes=page.changes[:index])
        return page

    def _is_withheld(self, key: str, content: Content) -> bool:
        """Return True if a pulled change equals one of the withheld push.

        It may be the client's own change, accepted from an earlier copy. The dirty change is newer
        then.
        """
        withheld_push = self._state.withheld_push
        return withheld_push is not None and (key, content) in withheld_push.changes and self._has("withheld_echo")

    def _record_history(self, reply: Page | Keys) -> None:
        """Record the server's epochs, and the CID at which the reply was read."""
        state = self._state
        state.epochs += tuple(epoch for epoch in reply.epochs if epoch not in state.epochs)
        state.max_head = max(state.max_head, reply.head)

    def _sweep(self, reset: ResetProgress, reply: Keys) -> None:
        """Delete local keys, up to the last key of the reply, that are neither dirty nor live."""
        state = self._state
        last = reply.keys[-1] if reply.keys else reply.after
        for key in sorted(state.data):
            is_compared = key > reply.after and (reply.end or key <= last)
            if is_compared and key not in reply.keys and key not in state.dirty and self._has("sweep"):
                state.journal += (Loss(key, state.data.pop(key), SWEPT, state.cid),)
        state.reset = None if reply.end else replace(reset, cursor=last)

    # ------------------------------------------------------------------------------ manual sync

    def pull_all_manually(self, server: ServerUnderTest) -> None:
        state = self._state
        state.data, state.cid, state.max_head = server.live(), server.head, server.head
        self._commit(durable=True)

    def pull_manually(self, server: Any) -> ManualPage | None:
        page: ManualPage | None = server.changes(self._state.cid)
        return page

    def apply_manually(self, page: ManualPage) -> None:
        state = self._state
        if page.cid <= state.cid or not state.is_idle:
            return
        for _, key, content in page.changes:
            if key in state.dirty:
                base = state.base_values.get(key, UNKNOWN)
                if (lost := self._clean(key)) != content:
                    state.journal += (Loss(key, lost, content, page.cid, base),)
            set_or_delete(state.data, key, content)
        self._move_cid_manually(page.cid)

    def push_manually(self, server: Any) -> ManualPage | None:
        state = self._state
        if not state.dirty or not state.is_idle or state.cid != server.head:
            return None
        changes = sorted(state.dirty.items())[: self._options.push]
        for key, content in changes:
            server.write(key, content)
        return ManualPage(server.head, tuple((server.head, *change) for change in changes))

    def clean_manually(self, pushed: ManualPage) -> None:
        dirty = self._state.dirty
        for _, key, content in pushed.changes:
            if dirty.get(key, SWEPT) == content:
                self._clean(key)
            elif key in dirty:
                self._learn_base_value(key, content)
        self._move_cid_manually(pushed.cid)

    def _move_cid_manually(self, cid: int) -> None:
        """Move the CID, and drop the seen epochs: a manual sync does not report new ones."""
        self._state.cid, self._state.max_head, self._state.epochs = cid, cid, ()
        self._commit()

    # -------------------------------------------------------------------------------- schedules

    def stop_faults(self) -> None:
        self._faults_stopped = True

    @property
    def cid(self) -> int:
        return self._state.cid

    @property
    def resetting(self) -> bool:
        return self._state.reset is not None

    @property
    def drained(self) -> bool:
        state = self._state
        return not (state.dirty or state.push or state.withheld_push or state.reset or self._has_wrong_server)

    def write(self, key: str, content: Content) -> None:
        state = self._state
        # During a reset the data may be of a history that the server no longer has.
        is_known = state.reset is None or not self._has("base_values_reset")
        if self._keeps_base and key not in state.dirty and is_known:
            state.base_values[key] = state.data.get(key)
        set_or_delete(state.data, key, content)
        state.dirty[key] = content
        self._commit()

    def restore_loss(self, loss: Loss) -> None:
        self._remove_from_journal(loss)
        self.write(loss.key, loss.local)

    def dismiss_loss(self, loss: Loss) -> None:
        self._remove_from_journal(loss)
        self._commit()

    def _remove_from_journal(self, loss: Loss) -> None:
        journal = [*self._state.journal]
        journal.remove(loss)
        self._state.journal = tuple(journal)

    def send_invalid_input(self) -> None:
        pass  # messages of the model are always well-formed

    def crash(self, *, power: bool) -> None:
        self._outstanding, self._has_wrong_server = None, False
        if power:
            self._at_risk = self._at_risk[: self._rng.randint(0, len(self._at_risk))]
            self._state = (self._at_risk[-1] if self._at_risk else self._durable).copy()
        self._reopen()

    def _reopen(self) -> None:
        """Open the store again: an opening without base values forgets those that it finds."""
        self._keeps_base = self._options.keep_base and self._openings.random() < 0.9
        if not self._keeps_base:
            self._state.base_values.clear()

    def backup(self) -> ClientState:
        return self._state.copy()

    def restore(self, backup: ClientState) -> None:
        self._outstanding = None
        self._state = backup.copy()
        self._reopen()
        self._commit(durable=True)

    def live(self) -> dict[str, Content]:
        return dict(self._state.data)

    def dirty(self) -> dict[str, Content]:
        return self._state.dirty

    def base_values(self) -> dict[str, Content]:
        return self._state.base_values

    def journal(self) -> list[Loss]:
        return list(self._state.journal)

    def epoch(self) -> Hashable:
        return self._state.epochs[-1].id if self._state.epochs else None
