"""The client's half of the model: see ``model.py``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from .configuration import Configuration
from .model_messages import (
    Ack,
    Fill,
    Forked,
    Group,
    ManualPage,
    Page,
    Piece,
    Push,
    Reply,
    Request,
    Reset,
    WrongServer,
    set_or_delete,
)
from .model_state import CHECKED, COMPLETE, UNCHECKED, ClientState
from .sides import JOURNAL, KEEP_SERVER, SWEPT, UNKNOWN, Content, Loss, Merger, ServerUnderTest, weigh

#: The number of times that a merger may repair a change that the server refuses again.
REPAIRS = 3


class Client:
    """A client of the model. `start` and `receive` are the protocol; schedules call the rest."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._options = configuration
        self.limit = configuration.limit
        self._state = ClientState(rng.getrandbits(62))
        self._outstanding: Request | None = None
        self._has_wrong_server = False
        self._faults_stopped = False
        self._pushed_last = False
        self._rejected_to = 0
        self.merger: Merger | None = None
        self._repairs: Counter[str] = Counter()
        self._unwritten: list[tuple[str, Content, Content]] = []  # without ``merge_in_batch``
        self._durable = self._state.copy()
        self._openings = random.Random(self._state.id)
        self._keeps_base = configuration.keep_base
        self._overtaken: set[str] = set()  # the dirty keys that others have changed in the present page
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
        state.drop_old_refusals()
        state.leaving = {prefix for prefix in state.leaving if any(key.startswith(prefix) for key in state.dirty)}
        self._evict()
        forbidden = not self._faults_stopped and self._rng.random() < self._options.forbidden
        if forbidden and state.push:
            state.withheld_push = state.push if self._has("withheld_push") else None
            state.push = None
            self._commit()

        undecided = state.push or state.withheld_push
        is_drained = state.own_range is None or not self._has("drained_own_range")
        # A request pushes or asks for a piece, not both: the client takes turns.
        takes_turn = state.fill is None or not self._pushed_last
        # Changes that the server has rejected lose to pages that are still to be pulled.
        knows_losses = state.cid >= self._rejected_to
        if is_drained and takes_turn and knows_losses and not (undecided or state.is_resetting or forbidden):
            groups = self._pushable_groups()
            if groups:
                state.seq += 1
                keys = {key for group in groups for key, _ in group}
                batches = frozenset(id for id, batch in state.batches.items() if batch & keys)
                state.push = Push(state.seq, self._rng.getrandbits(62), groups, batches)
                self._commit(durable=self._has("durable_freeze"))

        withheld_push = None if forbidden or state.is_resetting else state.withheld_push
        push = state.push or withheld_push or Push(state.seq, 0, ())
        too_large = bool(push.groups) and not self._faults_stopped and self._rng.random() < self._options.withdraw
        withdraw = push is withheld_push or too_large
        if not self._has("frozen_push"):
            state.push = None
        self._pushed_last = bool(push.groups)
        self._outstanding = Request(
            client=state.id,
            cid=state.cid,
            max_head=state.max_head,
            epochs=state.epochs,
            nonce=self._rng.getrandbits(62),
            seq=push.seq,
            push_nonce=push.nonce,
            groups=() if withdraw else push.groups,
            withdraw=tuple(key for key, _ in push.changes) if withdraw else (),
            server=state.server,
            limit=self.limit,
            complete=state.prefixes(COMPLETE),
            prefixes=(*state.prefixes(COMPLETE, CHECKED), *sorted(state.leaving)),
            fill=state.fill,
            read=tuple(sorted(state.lost)),
        )
        return self._outstanding

    def _pushable_groups(self) -> tuple[Group, ...]:
        """Return the groups for the next push; its first group may be of any size."""
        state, size = self._state, 0
        pushed: list[Group] = []
        for keys in state.groups():
            is_unchecked = any(map(state.is_unchecked, keys)) and self._has("unchecked_freeze")
            if is_unchecked or keys & state.lost.keys():
                continue
            size += len(keys)
            if pushed and size > self._options.push:
                break
            pushed.append(tuple((key, state.dirty[key]) for key in sorted(keys)))
        return tuple(pushed)

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
        is_pulled = all(any(map(prefix.startswith, request.prefixes)) for prefix in state.leaving)
        if not is_pulled and self._has("leaving_in_flight"):
            return  # its page would move the CID beyond changes of keys that were unfollowed since
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
                self._apply_reset(request, reply)
                self._commit()
            case Page():
                self._apply_page(request, reply)
                self._commit()
                self._write_merged_late()

    def _check_progress(self, request: Request, reply: Reply) -> None:
        """Check the progress that every reply must bring: a client refuses any other reply."""
        if isinstance(reply, Page):
            assert reply.cid > request.cid or not reply.more, "a page announces more, and holds nothing"
            is_told = reply.more or request.withdraw or reply.rejected <= reply.values.keys()
            is_told = is_told or bool(reply.values and self._options.pressure)
            assert is_told, "a push was rejected, and nothing tells the present values"
            piece = reply.piece
            assert not piece or piece.end or piece.to > piece.after, "a piece is not the last, and holds nothing"
        if isinstance(reply, (Page, Reset)) and reply.ack is not None:
            accepted = reply.ack.after - reply.ack.before
            assert accepted + len(reply.rejected) >= len(request.keys), "changes are neither accepted nor rejected"

    def rebind(self) -> Request:
        """Return a request for a server's id, with a client id that no server knows."""
        self._outstanding = Request(
            client=self._rng.getrandbits(62), cid=0, max_head=0, epochs=(), nonce=self._rng.getrandbits(62)
        )
        return self._outstanding

    def _apply_rebind(self, request: Request, reply: Reply) -> None:
        """Follow the server that has replied: fill all ranges, and push the dirty changes."""
        if reply.nonce != request.nonce:
            return
        self._outstanding, self._has_wrong_server, self._rejected_to, state = None, False, 0, self._state
        state.id, state.seq = self._rng.getrandbits(62), 0
        state.push = state.withheld_push = state.own_range = None
        self._forget_base_values()
        state.cid, state.max_head, state.epochs = 0, 0, ()
        state.lost, state.refused, state.overtaken = {}, {}, set()
        state.is_resetting = True
        self._fill_again(UNCHECKED)
        state.server = reply.server
        self._commit(durable=True)

    def _fill_again(self, how: str) -> None:
        """Begin to fill all followed ranges, as those that the log is pulled for or not."""
        state = self._state
        if self._has("uncompared"):
            state.uncompared = set(filter(state.is_unchecked, state.dirty))
        state.followed = dict.fromkeys(state.followed, how)
        state.filled = None
        state.bases = {key: base for key, base in state.bases.items() if key in state.uncompared}
        self._forget_base_values()
        state.is_at_head = False

    def _apply_reset(self, request: Request, reply: Reset) -> None:
        """Go back to the last CID that both histories have in common, and fill all ranges again.

        With dirty changes, the log from that CID decides on them. Without any, it is not needed.
        """
        state = self._state
        self._apply_ack(request, reply.ack, reply.rejected)
        self._rejected_to = 0
        state.push = None
        state.withheld_push = None if reply.ack else state.withheld_push
        state.cid = state.max_head = reply.common
        state.epochs = tuple(epoch for epoch in state.epochs if epoch.start < reply.common)
        state.is_resetting = True
        self._fill_again(CHECKED if state.dirty and self._has("reset_checks_dirty") else UNCHECKED)

    def _apply_ack(self, request: Request, ack: Ack | None, rejected: frozenset[str]) -> None:
        """Drop the dirty changes that were accepted and are still the frozen ones."""
        if ack is None:
            return
        state, dirty = self._state, self._state.dirty
        push = state.push or Push(request.seq, request.push_nonce, request.groups)
        if state.withheld_push and request.withdraw and ack.before >= state.cid:  # else it was pulled before
            for key, content in state.withheld_push.changes:
                if key in dirty and key not in rejected:
                    self._learn_base_value(key, content)
        for key, content in push.changes:
            is_unchanged = dirty.get(key, SWEPT) == content or not self._has("compare_and_clean")
            if key in dirty and key not in rejected:
                if is_unchanged:
                    self._clean(key)
                else:
                    self._learn_base_value(key, content)
        accepted = {key for key, _ in push.changes} - rejected
        for id in push.batches:
            if id in state.batches and state.batches[id] <= accepted | (state.batches[id] - dirty.keys()):
                del state.batches[id]
        if ack.after > ack.before:
            state.own_range = ack

    def _clean(self, key: str) -> None:
        """Drop a dirty change. A key that is not followed is removed with it."""
        state = self._state
        del state.dirty[key]
        state.lost.pop(key, None)
        state.refused.pop(key, None)
        state.overtaken.discard(key)
        state.bases.pop(key, None)
        state.uncompared.discard(key)
        state.base_values.pop(key, None)
        if not state.wants(key) and self._has("evict"):
            state.data.pop(key, None)

    def _apply_page(self, request: Request, page: Page) -> None:
        state = self._state
        push = state.push
        self._apply_ack(request, page.ack, page.rejected)
        self._record_history(page)
        self._overtaken.clear()
        for cid, key, content in page.changes:
            self._apply_change(cid, key, content)
        if page.ack and not request.withdraw:
            self._rejected_to = page.head if page.rejected else self._rejected_to
            self._lose_rejected(request, page, dict(push.changes if push else request.changes))
        self._heal_lost(request, page)
        state.cid = page.cid
        state.is_at_head = not page.more
        if page.piece:
            self._apply_piece(request, page.piece)
        if not self._has("max_head"):
            state.max_head = page.cid
        if state.own_range and (state.cid >= state.own_range.after or not page.more):
            state.own_range = None
        if page.ack or page.more:
            state.push = None
        if request.withdraw:
            state.withheld_push = None
        if state.fill is None and not page.more:
            state.is_resetting = False
        if page.refill and not (state.dirty or state.fill or state.is_resetting) and self._rng.random() < 0.5:
            self._fill_again(UNCHECKED)
        self._drop_old_batches()

    def _apply_change(self, cid: int, key: str, content: Content) -> None:
        """Apply a change of the log."""
        state = self._state
        if key in state.dirty:
            is_own = state.own_range is not None and state.own_range.covers(cid, state.epochs)
            is_withheld = self._is_withheld(key, content) and state.dirty[key] != content
            if (is_own and self._has("own_range")) or is_withheld:
                self._learn_base_value(key, content)
                return
            self._overtaken.add(key)
            if self._lose_group(key, "rejected"):
                return
            if state.dirty[key] != content:
                self._lose([self._loss(key, content, cid, "conflict")])
                return
            self._clean(key)
        if state.wants(key):
            set_or_delete(state.data, key, content)

    # ------------------------------------------------------------------------------------- merging

    def _loss(self, key: str, content: Content, cid: int, kind: str) -> Loss:
        """Return the loss of a dirty change to a value of the server."""
        state = self._state
        return Loss(key, state.dirty[key], content, cid, kind, state.base_values.get(key, UNKNOWN))

    def _lose(self, losses: Sequence[Loss], *, is_whole: bool = True, is_filled: bool = False) -> None:
        """Take the server's values of changes that have lost together.

        The merger may settle them; else they are journaled.

        Args:
            losses: The lost changes: all of a group, or a single one.
            is_whole: False if these are a part of a group only. They are journaled.
            is_filled: True if a piece of a fill brings the values.
        """
        state = self._state
        for loss, answer in zip(losses, self._settle(losses) if is_whole else [JOURNAL] * len(losses), strict=True):
            key, remote = loss.key, None if loss.remote == SWEPT else loss.remote
            assert not isinstance(remote, str)
            if answer == JOURNAL:
                state.journal += (loss,)
            if not isinstance(answer, str) and answer != remote:
                if self._has("merge_in_batch"):
                    self._write_merged(key, answer, remote, is_filled=is_filled)
                    continue
                self._unwritten.append((key, answer, remote))
            if state.wants(key):
                set_or_delete(state.data, key, remote)
            self._clean(key)

    def _settle(self, losses: Sequence[Loss]) -> Sequence[Content | str]:
        """Return the merger's answers to changes that have lost together.

        The changes of a group are settled as a whole, or journaled as a whole.
        """
        all_journaled = [JOURNAL] * len(losses)
        if self.merger is None:
            return all_journaled
        refused = [loss.key for loss in losses if loss.kind == "refused"]
        if any(self._repairs[key] >= REPAIRS for key in refused) and self._has("repair_bound"):
            for key in refused:
                del self._repairs[key]
            return all_journaled
        answers: list[Content | str] = []
        for loss in losses:
            answers.append(self._answer(loss, self.merger, is_group=len(losses) > 1))
            if answers[-1] == JOURNAL and self._has("merge_groups"):
                return all_journaled
        if refused and all(answer == loss.local for answer, loss in zip(answers, losses, strict=True)):
            return all_journaled  # the rule has refused just that
        self._repairs.update(refused)
        return answers

    def _answer(self, loss: Loss, merger: Merger, *, is_group: bool) -> Content | str:
        """Return the answer to a loss.

        The merger is not asked about a change of a group that the server has as well, nor about
        one whose value on the server is still the base value: only its group has lost.
        """
        if is_group and loss.kind != "refused":
            if loss.local == loss.remote:
                return KEEP_SERVER
            if loss.base == loss.remote:
                return loss.local
        return merger(loss)

    def _write_merged(self, key: str, content: Content, remote: Content, *, is_filled: bool) -> None:
        """Write a new dirty change that was made with knowledge of the server's value."""
        state = self._state
        base = state.base_values.get(key, UNKNOWN)
        state.dirty[key] = content
        self._clean(key)
        set_or_delete(state.data, key, content)
        state.dirty[key] = content
        if is_filled and self._keeps_base:
            state.base_values[key] = remote
        elif not is_filled and self._has("merge_knows"):
            self._learn_base_value(key, remote)
        if not self._has("merge_base") and base != UNKNOWN:
            assert not isinstance(base, str)
            state.base_values[key] = base

    def _write_merged_late(self) -> None:
        """Write the merged changes of a page in a batch of their own."""
        for key, content, remote in self._unwritten:
            if key not in self._state.dirty:
                self._write_merged(key, content, remote, is_filled=False)
                self._commit()
        self._unwritten.clear()

    def _learn_base_value(self, key: str, content: Content) -> None:
        """Record the server's value of a key that stays dirty."""
        if self._state.is_unchecked(key) and self._has("base_of_accepted"):
            self._state.bases[key] = content
        if self._keeps_base and self._state.is_filled(key) and self._has("base_value_of_server"):
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
                cid, changes = page.changes[index - 1][0], page.changes[:index]
                return replace(page, cid=cid, more=True, changes=changes, values={}, piece=None)
        return page

    def _is_withheld(self, key: str, content: Content) -> bool:
        """Return True if a pulled change equals one of the withheld push.

        It may be the client's own change, accepted from an earlier copy. The dirty change is newer
        then.
        """
        withheld_push = self._state.withheld_push
        return withheld_push is not None and (key, content) in withheld_push.changes and self._has("withheld_echo")

    def _record_history(self, page: Page) -> None:
        """Record the server's epochs, and the CID at which the page was read."""
        state = self._state
        state.epochs += tuple(epoch for epoch in page.epochs if epoch not in state.epochs)
        state.max_head = max(state.max_head, page.head)

    def _lose_group(self, key: str, kind: str) -> bool:
        """Mark the group of a dirty key as lost, if it has other keys.

        Its changes stay until the server's values of all its keys are known.
        """
        state = self._state
        if key in state.refused and self._has("overtaken"):
            state.overtaken.add(key)
        group = next(group for group in state.groups() if key in group)
        if len(group) == 1 or not self._has("groups_lose_whole"):
            return key in state.lost
        state.lost |= {other: state.lost.get(other, kind if other == key else "rejected") for other in group}
        return True

    def _lose_rejected(self, request: Request, page: Page, frozen: dict[str, Content]) -> None:
        """Mark the rejected changes whose loss no pulled change shows.

        Those are: changes that a rule refuses, members of a group, and changes of keys that are not
        followed. A change that was rewritten since the freeze was not judged by the rule.
        """
        state = self._state
        for key in sorted(page.rejected & state.dirty.keys()):
            is_frozen = state.dirty[key] == frozen.get(key, SWEPT)
            if key in page.refused:
                if is_frozen and self._has("refusals_heal"):
                    if key in self._overtaken and self._has("overtaken"):
                        state.overtaken.add(key)
                    state.lost[key] = "refused"
                    state.refused[key] = state.dirty[key]
            elif not request.follows(key):
                self._lose_group(key, "rejected")
                state.lost.setdefault(key, "rejected")
            elif is_frozen:
                self._lose_group(key, "rejected")

    def _heal_lost(self, request: Request, page: Page) -> None:
        """Take the server's values of groups that have lost, each group as a whole.

        A page that has nothing else, and lacks values of the group that was read first, shows that
        these fit into no page.
        """
        state = self._state
        state.drop_old_refusals()
        unfit = {*request.read} - page.values.keys() if page.values and not page.changes else set[str]()
        for group in state.groups():
            if not group & state.lost.keys():
                continue
            if group & state.lost.keys() <= state.refused.keys():
                group &= state.lost.keys()  # the others were written again since
            for key in group:
                state.lost.setdefault(key, "rejected")
            is_whole = group <= page.values.keys()
            if is_whole or (group & unfit and request.read[0] in group):
                values = {key: page.values[key] for key in sorted(group & page.values.keys())}
                losses = [self._loss(key, content, page.cid, state.lost[key]) for key, content in values.items()]
                if len(group) == 1 and losses[0].kind != "refused" and losses[0].local == losses[0].remote:
                    self._clean(losses[0].key)
                else:
                    self._lose(losses, is_whole=is_whole)

    def _apply_piece(self, request: Request, piece: Piece) -> None:
        """Take a part of a range that is being filled, unless the followed ranges have changed."""
        state = self._state
        if (request.fill, request.complete) != (state.fill, state.prefixes(COMPLETE)):
            return
        for key in sorted(state.data.keys() | state.dirty.keys() | piece.entries.keys()):
            is_complete = any(map(key.startswith, request.complete))
            if is_complete or not piece.covers(key):
                continue
            content = piece.entries.get(key)
            if key in state.dirty:
                self._compare_with_piece(key, content)
            elif content is not None:
                state.data[key] = content
            elif self._has("absent_in_piece"):
                lost = state.data.pop(key)
                if state.is_resetting:
                    state.dirty[key] = lost  # until it is settled
                    self._lose([Loss(key, lost, SWEPT, state.cid, "reset")], is_filled=True)
                if key in state.dirty and key not in state.lost:
                    self._learn_base_value(key, content)
            state.bases.pop(key, None)
            state.uncompared.discard(key)
        state.filled = Fill(piece.prefix, piece.to)
        if piece.end:
            complete = [prefix for prefix in state.followed if prefix.startswith(piece.prefix)]
            state.followed |= dict.fromkeys(complete, COMPLETE)
            state.filled = None

    def _compare_with_piece(self, key: str, content: Content) -> None:
        """Compare a dirty change with an entry of a piece, unless the log decides on it."""
        state = self._state
        is_unchecked = state.is_unchecked(key)
        is_decided = not is_unchecked and self._has("log_decides")
        is_base = state.bases.get(key, SWEPT) == content and self._has("base_of_unchecked")
        is_seen = is_base or self._is_withheld(key, content)
        has_no_value = state.bases.get(key, SWEPT) is None
        if is_decided or is_seen or content is None or not self._has("piece_beats_unchecked"):
            return
        kind = "unknown" if has_no_value else "filled" if is_unchecked else "checked"
        if key in state.lost:
            if state.dirty[key] != content:
                self._lose_group(key, kind)
        elif state.dirty[key] == content:
            self._clean(key)
        elif not self._lose_group(key, kind):
            self._lose([self._loss(key, content, state.cid, kind)], is_filled=True)

    def _drop_old_batches(self) -> None:
        """Drop the record of each batch of which fewer than two keys are dirty."""
        state = self._state
        state.batches = {id: keys for id, keys in state.batches.items() if len(keys & state.dirty.keys()) > 1}

    # ----------------------------------------------------------------------------------- ranges

    def follow(self, prefix: str) -> None:
        """Follow the keys that begin with a prefix."""
        state = self._state
        if prefix in state.followed:
            return
        unchecked = set(filter(state.is_unchecked, state.dirty))
        wider = [how for other, how in state.followed.items() if prefix.startswith(other)]
        is_logged = state.cid > 0 or len(state.leaving) > 0
        state.leaving.discard(prefix)
        if COMPLETE in wider:
            state.followed[prefix] = COMPLETE
        else:
            state.followed[prefix] = wider[0] if wider else CHECKED if is_logged else UNCHECKED
        if self._has("unfilled_write"):
            state.uncompared |= {key for key in unchecked if not state.is_unchecked(key)}
        self._commit()

    def unfollow(self, prefix: str) -> None:
        """Stop to follow the keys that begin with a prefix. Clean ones are removed step by step."""
        state = self._state
        if prefix not in state.followed:
            return
        unchecked = set(filter(state.is_unchecked, state.dirty))
        del state.followed[prefix]
        if state.filled and state.filled.prefix == prefix:
            state.filled = None
        if self._has("unfollow_checks_dirty") and any(map(state.is_unchecked, state.dirty.keys() - unchecked)):
            # These lie in another range, too, a wider or a narrower one. Its pieces would be
            # conflicts for them.
            others = state.prefixes(UNCHECKED)
            overlapping = [other for other in others if prefix.startswith(other) or other.startswith(prefix)]
            state.followed |= dict.fromkeys(overlapping, CHECKED)
            state.uncompared |= unchecked
        if self._has("leaving") and any(key.startswith(prefix) and not state.wants(key) for key in state.dirty):
            state.leaving.add(prefix)
        state.base_values = {key: base for key, base in state.base_values.items() if state.is_filled(key)}
        self._commit()

    def followed(self) -> list[str]:
        return sorted(self._state.followed)

    def complete(self) -> list[str]:
        return [*self._state.prefixes(COMPLETE)]

    def _evict(self) -> None:
        """Remove some clean keys that are not followed any more."""
        state = self._state
        unwanted = self._unwanted()
        if unwanted and self._has("evict"):
            for key in unwanted[:2]:
                del state.data[key]
            self._commit()

    def _unwanted(self) -> list[str]:
        state = self._state
        return [key for key in sorted(state.data.keys() - state.dirty.keys()) if not state.wants(key)]

    # ------------------------------------------------------------------------------ manual sync

    def pull_all_manually(self, server: ServerUnderTest) -> None:
        state = self._state
        state.data, state.cid, state.max_head = server.live(), server.head, server.head
        state.followed = {"": COMPLETE}
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
                if state.dirty[key] != content:
                    state.journal += (Loss(key, state.dirty[key], content, page.cid, base=base),)
                self._clean(key)
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
        """Move the CID, and drop the seen epochs: a manual sync does not report new ones.

        A client that begins with a manual sync has all changes, and fills nothing.
        """
        state = self._state
        if not state.cid:
            state.followed = dict.fromkeys(state.followed, COMPLETE)
        state.cid, state.max_head, state.epochs, state.is_at_head = cid, cid, (), False
        self._commit()

    # -------------------------------------------------------------------------------- schedules

    def stop_faults(self) -> None:
        self._faults_stopped = True

    @property
    def cid(self) -> int:
        return self._state.cid

    @property
    def resetting(self) -> bool:
        return self._state.is_resetting

    @property
    def drained(self) -> bool:
        state = self._state
        is_pushed = not (state.dirty or state.push or state.withheld_push or state.lost)
        return is_pushed and not (state.fill or self._unwanted() or self._has_wrong_server)

    def write(self, key: str, content: Content) -> None:
        self._state.write({key: content}, keep_base=self._keeps_base, unfilled=self._has("unfilled_write"))
        self._commit()

    def write_batch(self, changes: dict[str, Content]) -> None:
        """Write changes that belong together."""
        state = self._state
        state.write(changes, keep_base=self._keeps_base, unfilled=self._has("unfilled_write"))
        state.batches[self._rng.getrandbits(62)] = frozenset(changes)
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
        """Open the store again: one that keeps no base values forgets those that it finds."""
        self._rejected_to = 0
        self._repairs.clear()
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
        state = self._state
        lost = {key for group in state.groups() if group & state.lost.keys() for key in group}
        return {key: base for key, base in state.base_values.items() if key not in lost}

    def journal(self) -> list[Loss]:
        return list(self._state.journal)

    @property
    def is_consistent(self) -> bool:
        """True if all data but the dirty changes is that of the server at the client's CID."""
        state = self._state
        return state.is_at_head and state.followed.get("") == COMPLETE and not state.lost

    def epoch(self) -> Hashable:
        return self._state.epochs[-1].id if self._state.epochs else None
