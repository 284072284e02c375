"""`ReplyHandler`: the effects of a server's reply on a client, in one batch."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, islice

from .. import _core
from ..backends.base import Transaction
from ..engine.commits import commit_of
from ..engine.following import UNCHECKED, Following
from ..engine.modes import Client, Plan
from ..engine.records import Commit, Epoch
from ..events import MAX_KEYS
from ..types import Conflict
from .canonical import same_record
from .effects import Effects
from .fields import MAX_READ, Ack, Fill
from .fill import FillPartHandler
from .journal import LostChange
from .limits import is_dirty
from .losses import CONFLICT
from .merging import Merger, Settlements
from .messages import MAX_BYTES, MAX_EPOCHS, FillPart, PulledPage, Request, Reset
from .push import is_as_frozen
from .state import ClientState, Push
from .synced import is_refresh_due, synced_entry

#: The most bytes of local changes that lose to a page in one batch, unless one change is larger.
LOST_BYTES = MAX_BYTES


@dataclass(slots=True)
class ReplyOutcome:
    """The effect of applying a reply.

    Attributes:
        pulled: The number of changes of other clients that were written.
        pushed: The number of pushed changes that the server accepted.
        filled: The number of entries of a fill that were written.
        conflicts: The local changes that lost.
        rejected: The keys of the push that the server rejected, or whose acceptance its log does
            not show.
        refused: Those of the rejected keys that a rule of the server, or the rights of the token,
            refuse.
        caught_up: True if the client's CID is the server's CID at the time of the reply.
        is_cut: True if only the beginning of the page was applied.
        is_consistent: True if the data in the followed ranges, except dirty changes, is that of the
            server at the client's CID.
        pulled_keys: The first stored keys of the changes and entries that were written.
        healed: The number of lost changes that were replaced by the server's values.
        is_refilling: True if the client fills again as the reply advises.
        settlements: The local changes that the application has settled; ``None`` if it settles
            none.
    """

    pulled: int = 0
    pushed: int = 0
    filled: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    caught_up: bool = False
    is_cut: bool = False
    is_consistent: bool = False
    pulled_keys: list[bytes] = field(default_factory=list)
    healed: int = 0
    is_refilling: bool = False
    settlements: Settlements | None = None


class ReplyHandler:
    """Collects the effects of one reply: a batch of entries, and the client's new state.

    Args:
        mode: The client.
        request: The request that the reply answers.
        transaction: The transaction to read from.
        state: The client's state before the reply, with the server's id set.
        merger: Settles the local changes that lose; ``None`` to journal all of them.
    """

    def __init__(
        self,
        mode: Client,
        request: Request,
        transaction: Transaction,
        state: ClientState,
        merger: Merger | None = None,
    ) -> None:
        self._mode = mode
        self._space = mode.space
        self._request = request
        self._transaction = transaction
        self._state = state
        settler = None if merger is None else merger.settlement_of_reply()
        self._effects = Effects(mode, transaction, state, settler)
        #: The push that the reply may decide on.
        self._push: Push | None = state.push or (state.withheld_push if request.withdraw else None)
        self._accepted: frozenset[bytes] = frozenset()
        self._durable = False
        self._outcome = ReplyOutcome(settlements=None if settler is None else settler.settlements)
        #: Keys that a page writes again as the client has pushed them.
        self._own_keys: set[bytes] = set()

    def plan(self, before: ClientState) -> Plan[ReplyOutcome | None]:
        """Return all effects as one batch."""
        effects = self._effects
        state = self._state = self._state.with_bases()
        decided = self._push if self._accepted else None
        effects.end_groups(self._accepted, decided.last_group if decided else 0)
        self._outcome.is_consistent = state.is_at_head and not effects.leaves_losses()
        self._outcome.conflicts = effects.finish()
        batch = effects.batch
        batch += state.replacing(before, self._space)
        batch.append((self._space.prefix, b"%d" % state.cid))
        self._mode.outstanding = None
        after = recording(self._mode, state)
        outcome = self._outcome
        if outcome.pulled or outcome.filled:
            outcome.pulled_keys = [*islice(self._written_keys(), MAX_KEYS)]
        if outcome.caught_up and self._is_synced():
            entry, after = synced_entry(self._mode, after)
            batch.append(entry)
        return Plan(self._outcome, batch, state.cid, durable=self._durable, after_commit=after, is_reply=True)

    def _is_synced(self) -> bool:
        """Return True if nothing is left to pull or to push, and that is to be recorded now."""
        outcome = self._outcome
        brings_something = outcome.pulled or outcome.filled or outcome.pushed
        if not (brings_something or is_refresh_due(self._mode, self._transaction)):
            return False
        return outcome.is_consistent and not self._effects.has_dirty()

    def _written_keys(self) -> Iterator[bytes]:
        """Yield the keys of users in the batch, except those that the client has pushed."""
        start, own = self._space.user_start, self._own_keys
        return (key for key, _ in self._effects.batch if key >= start and key not in own)

    # --------------------------------------------------------------------------------------- pages

    def apply_page(self, page: PulledPage) -> None:
        """Write a page of changes, and drop the push if it was decided."""
        self._record_history(page)
        self._apply_ack(page.ack, page.rejected)
        if page.rejected and not self._request.withdraw:
            self._mode.rejected_to = page.head
        is_dirty_store = is_dirty(self._transaction, self._space)
        if is_dirty_store:
            whole = page
            page = self._merge_page(page)
            self._lose_rejected(page)
            self._heal_losses(whole, page)
            self._state = replace(self._state, bases=self._effects.bases.record)
        else:
            self._write_page(page)
        request, state = self._request, self._state
        passed = state.own_range is not None and (page.cid >= state.own_range.after or not page.more)
        self._state = replace(
            state,
            cid=page.cid,
            epochs=_without_old(state.epochs, page.cid),
            push=None,
            withheld_push=None if request.withdraw else state.withheld_push,
            own_range=None if passed else state.own_range,
        )
        if page.fill is not None:
            self._apply_part(page.fill)
        self._finish_page(page, is_dirty_store=is_dirty_store)

    def _write_page(self, page: PulledPage) -> None:
        """Write a page to a store without dirty changes."""
        following = self._state.following
        cids, entries = page.cids, page.entries
        if not following.follows_all:
            wanted = [following.wants(key) for key, _ in entries]
            cids, entries = [*compress(cids, wanted)], [*compress(entries, wanted)]
        self._effects.batch += entries
        if self._state.own_range is not None:
            own = [*map(self._is_own_change, cids)]
            self._own_keys = {key for key, _ in compress(entries, own)}
            self._outcome.pulled = len(entries) - sum(own)
        else:
            self._outcome.pulled = len(entries)

    def _finish_page(self, page: PulledPage, *, is_dirty_store: bool) -> None:
        """Record that the client has caught up, or begin to fill as the page advises."""
        following = self._state.following
        if following.is_complete and not page.more and following.is_resetting:
            following = replace(following, is_resetting=False)
            self._state = replace(self._state, following=following)
        if page.refill and following.is_complete and not (is_dirty_store or following.is_resetting):
            self._state = self._state.filling_again(UNCHECKED)
            self._effects.bases.void(self._state.bases)
            self._outcome.is_refilling = True
        self._outcome.caught_up = not page.more

    def _record_history(self, reply: PulledPage) -> None:
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
        effects = self._effects
        rejected_keys = {key.encode() for key in rejected}
        pushed = self._push.entries(self._space) if self._push else []
        is_sent = self._push is self._state.push
        for (key, value), record in zip(pushed, effects.records([key for key, _ in pushed]), strict=True):
            if record is None or key in rejected_keys:
                continue
            if is_sent and is_as_frozen(record, key, value):
                effects.clean(key)
            elif ack.before >= self._request.cid:  # else pulled before, as another client's change
                effects.bases.learn_accepted(key, value)
        self._state = replace(self._state, bases=effects.bases.record)
        if is_sent:
            self._accepted = frozenset(key for key, _ in pushed if key not in rejected_keys)
        self._outcome.pushed = ack.after - ack.before
        if self._outcome.pushed:
            self._state = replace(self._state, own_range=ack)

    def _merge_page(self, page: PulledPage) -> PulledPage:
        """Write a page to a store with dirty changes, and return the part that was written.

        The server wins, except over a dirty change that was made with knowledge of the pulled one.
        The part ends early if the local changes are large, as if the server had cut the page there.
        """
        effects, withheld, following = self._effects, self._withheld_records(), self._state.following
        size = 0
        records = effects.records([key for key, _ in page.entries])
        for index, (cid, (key, value), record) in enumerate(zip(page.cids, page.entries, records, strict=True)):
            is_own = self._is_own_change(cid)
            if record is not None:
                size += len(record)
                if size > LOST_BYTES and index:
                    self._outcome.is_cut = True
                    cids, entries = page.cids[:index], page.entries[:index]
                    return replace(page, cid=cids[-1], more=True, cids=cids, entries=entries, values=[], fill=None)
                if is_own:
                    effects.bases.learn(key, value)
                    continue
                remote = _core.join_record(key, value)
                is_same = same_record(record, remote)
                if not is_same and key in withheld and same_record(withheld[key], remote):
                    effects.bases.learn(key, value)
                    continue
                if effects.lose_group(key):
                    continue
                commit = commit_of(page.commits, cid)
                if not is_same or (effects.asks_if_equal(key) and self._is_of_others(commit, key in withheld)):
                    by, at = (None, None) if commit is None else (commit.by, commit.ms)
                    lost = LostChange(key, record, remote, cid, effects.bases.change_of(key), by=by, at=at)
                    size += effects.replace([lost], [value])
                else:
                    effects.clean(key)
                    effects.take(key, value)
            else:
                effects.take(key, value)
            self._outcome.pulled += not is_own and following.wants(key)
        return page

    def _is_of_others(self, commit: Commit | None, may_be_withheld: bool) -> bool:
        """Return True if a pulled change that equals a dirty one is certainly another client's."""
        return not may_be_withheld and (commit is None or commit.client != self._state.id)

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

    # -------------------------------------------------------------------------------------- losses

    def _lose_rejected(self, page: PulledPage) -> None:
        """Mark the rejected changes whose loss no pulled change shows.

        Those are: changes that the server refuses, members of a group, and changes of keys whose
        log is not pulled. A change that was rewritten since the freeze was not judged by a rule.
        """
        push = self._state.push
        if page.ack is None or not page.rejected or push is None or self._request.withdraw:
            return
        effects, frozen = self._effects, push.records(self._space)
        reasons = {key: refusal.reason for refusal in page.refused for key in refusal.keys}
        self._outcome.refused = [key for key in page.rejected if key in reasons]
        self._outcome.rejected = [key for key in page.rejected if key not in reasons]
        keys = sorted({key.encode() for key in page.rejected})
        for key, record in zip(keys, effects.records(keys), strict=True):
            if record is None:
                continue
            is_frozen = same_record(record, frozen[key])
            name = key.decode()
            if name in reasons:
                if is_frozen:
                    effects.refuse(key, reasons[name], record)
            elif not self._request.follows(name):
                if not effects.lose_group(key):
                    effects.lose(key, CONFLICT)
            elif is_frozen:
                effects.lose_group(key)

    def _heal_losses(self, whole: PulledPage, page: PulledPage) -> None:
        """Take the server's values of lost changes: of each group as a whole, if they fit.

        Args:
            whole: The page as the server sent it.
            page: The part of it that is applied.
        """
        effects, values = self._effects, dict(page.values)
        if not values:
            return
        asked = [key.encode() for key in self._request.read]
        # The server sends as many values as fit. If it has sent nothing else, and not all values of
        # the group that was read first, these fit into no page.
        unfit = frozenset(asked) - values.keys() if not whole.entries else frozenset()
        changes = zip(page.cids, page.entries, strict=True)
        pulled = {key: cid for cid, (key, _) in changes if not self._is_own_change(cid)}
        seen: set[bytes] = set()
        size = 0
        for key in values:
            if key in seen or not effects.is_dirty(key) or effects.loss(key) is None:
                continue
            group = self._lost_group(key)
            seen.update(group)
            if not all(other in values for other in group):
                is_too_large = len(group) > MAX_READ or not unfit.isdisjoint(group)
                if not (is_too_large and asked and asked[0] in group):
                    continue
            known = [other for other in group if other in values]
            group_size = sum(len(effects.record(other) or b"") for other in known)
            if self._outcome.healed and size + group_size > MAX_BYTES:
                return
            size = self._heal_group(
                known, values, page, pulled, size, is_group=len(group) > 1, is_whole=len(known) == len(group)
            )

    def _lost_group(self, key: bytes) -> list[bytes]:
        """Return the keys that are healed with a lost one, and mark all of them as lost."""
        effects = self._effects
        group = effects.group(key)
        lost = [other for other in group if (loss := effects.loss(other)) is not None]
        if all((loss := effects.loss(other)) is not None and loss.kind == "refused" for other in lost):
            return lost  # the others were written again since
        for other in group:
            if effects.loss(other) is None:
                effects.lose(other, CONFLICT)
        return group

    def _heal_group(
        self,
        keys: list[bytes],
        values: dict[bytes, bytes | None],
        page: PulledPage,
        pulled: dict[bytes, int],
        size: int,
        *,
        is_group: bool,
        is_whole: bool,
    ) -> int:
        """Settle or journal lost changes, and take the server's values.

        Returns:
            The bytes of all lost and merged changes so far.
        """
        effects = self._effects
        losses: list[LostChange] = []
        for key, record in zip(keys, effects.records(keys), strict=True):
            loss = effects.loss(key)
            if record is None or loss is None:
                continue
            size += len(record)
            if size > MAX_BYTES and (self._outcome.healed or losses):
                is_whole = False  # a larger group than a push can hold
                break
            remote = _core.join_record(key, values[key])
            if is_group or loss.kind == "refused" or not same_record(record, remote):
                commit = commit_of(page.commits, pulled[key]) if key in pulled else None
                by, at = (None, None) if commit is None else (commit.by, commit.ms)
                cid, base = pulled.get(key, page.cid), effects.bases.change_of(key)
                lost = LostChange(key, record, remote, cid, base, loss.kind, loss.reason, by, at, key not in pulled)
                losses.append(lost)
            else:
                effects.clean(key)
                effects.take(key, values[key])
                self._outcome.healed += 1
        self._outcome.healed += len(losses)
        return size + effects.replace(losses, [values[lost.key] for lost in losses], is_whole=is_whole)

    # --------------------------------------------------------------------------------- other parts

    def _apply_part(self, part: FillPart) -> None:
        """Take a part of a range that is being filled, unless the followed ranges have changed."""
        state, request = self._state, self._request
        following = state.following
        if request.fill != fill_of(following) or tuple(request.complete) != following.complete:
            return
        withheld = self._withheld_records()
        handler = FillPartHandler(self._effects, self._transaction, self._space, following, state.cid, withheld)
        effect = handler.apply(part)
        self._state = replace(state, following=effect.following)
        self._outcome.filled = effect.entries

    def apply_reset(self, reply: Reset) -> None:
        """Go back to the last CID that both histories have in common, and fill all ranges again."""
        effects = self._effects
        self._apply_ack(reply.ack, reply.rejected)
        self._mode.rejected_to = 0
        withheld_push = self._state.withheld_push if reply.ack is None else None
        state = replace(self._state, withheld_push=withheld_push)
        is_dirty_after = effects.has_dirty()
        if is_dirty_after:
            effects.record_uncompared()
        self._state = state.resetting(reply.common, is_dirty=is_dirty_after)
        effects.bases.void(self._state.bases)

    def apply_fork(self) -> None:
        """Take a new client id, and drop the push. The dirty changes stay."""
        self._durable = True
        self._state = replace(self._state, id=uuid.uuid4().hex, seq=0, push=None, withheld_push=None)


def recording(mode: Client, state: ClientState) -> Callable[[], None]:
    """Return a function after which local writes record base values as a stored state demands."""
    return partial(setattr, mode, "recording", state.recording)


def fill_of(following: Following) -> Fill | None:
    """Return the range that is filled next, as a request names it."""
    return None if following.fill is None else Fill(*following.fill)


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
