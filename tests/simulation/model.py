"""A model of the protocol (``docs/protocol.md``) in plain objects, run under random schedules (T1).

    python -m tests.simulation.model --schedules 20000
    python -m tests.simulation.model --schedules 2000 --without compare_and_clean
    python -m tests.simulation.model --seed 5000042

The model says what `treehub_level.replication` must do, without bytes, stores or errors. This
module is the server's half, ``model_client.py`` the client's. Every change to the protocol is made
here first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .configuration import Configuration
from .model_client import Client
from .model_messages import (
    Ack,
    Change,
    Decision,
    Epoch,
    Forked,
    Keys,
    ManualPage,
    Page,
    Reply,
    Request,
    Reset,
    WrongServer,
    epoch_at,
    epoch_ends,
    set_or_delete,
)
from .runner import main, run_seed
from .schedule import Trace
from .sides import ClientUnderTest, Content, ServerUnderTest, weigh

#: A change in the log, with its CID.
LogRecord = tuple[int, str, Content]


@dataclass
class ServerState:
    """The stored state of a server."""

    id: int
    data: dict[str, Content] = field(default_factory=dict)
    log: dict[int, Change] = field(default_factory=dict)
    cid: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)
    withdrawals: dict[int, Decision] = field(default_factory=dict)
    commits: list[tuple[int, int]] = field(default_factory=list)  # the first and the last CID of each
    floor: int = 0

    def copy(self) -> ServerState:
        return replace(
            self,
            data=dict(self.data),
            log=dict(self.log),
            epochs=list(self.epochs),
            decisions=dict(self.decisions),
            withdrawals=dict(self.withdrawals),
            commits=list(self.commits),
        )


class Server:
    """A server of the model. `exchange` is the protocol; the rest serves the schedules."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._options = configuration
        self._epoch_begun = False
        self.replace()

    def _has(self, mechanism: str) -> bool:
        """Return True unless this run removes the mechanism."""
        return mechanism not in self._options.without

    # --------------------------------------------------------------------------------- protocol

    def exchange(self, request: Request, principal: str) -> Reply:
        """Reply to a request, under the write lock. The first rule that matches decides."""
        state = self._state
        reply_to = state.id, request.nonce, request.cid

        # Rule 1: the request is for another server.
        if request.server not in (None, state.id):
            return WrongServer(*reply_to)

        # Rule 2: the push is a repeat, or the client id is that of another client.
        decision = state.decisions.get(request.client) or state.withdrawals.get(request.client)
        ack, rejected = None, frozenset[str]()
        if request.keys and decision is not None and self._has("decision_record"):
            is_owner = decision.principal == principal
            is_repeat = (request.seq, request.nonce) == (decision.seq, decision.nonce)
            if is_repeat and (is_owner or self._has("repeat_by_nonce")):
                ack, rejected = decision.ack, self._unconfirmed(decision.ack, request.keys)
            elif request.seq <= decision.seq or not is_owner:
                return Forked(*reply_to)

        # Rule 3: the histories differ, or the client is below the floor.
        common = self._last_common_cid(request)
        below_floor = request.cid < state.floor and not request.reset and self._has("floor")
        if common != self._max_head(request) or request.cid > state.cid or below_floor:
            return Reset(*reply_to, min(common, request.cid, state.cid), ack, rejected)

        # Rule 4: phase B of a reset.
        if request.keys_after is not None:
            return self._list_keys(request, request.keys_after)

        # Rule 5: a page of the log.
        log = [(cid, *state.log[cid]) for cid in sorted(state.log) if cid > request.cid]
        page = self._cut(log, request.limit)
        is_cut = len(page) < len(log)

        # Rule 6: the decision on the push.
        is_too_far_behind = False
        if request.keys and ack is None:
            distance = state.cid - request.cid if self._has("cid_distance") else len(log)
            most = self._options.distance if self._has("fixed_distance") else request.limit
            is_too_far_behind = distance > most
            if request.withdraw and not is_too_far_behind:
                ack, rejected = self._reject_all(request, principal)
            elif not is_too_far_behind:
                ack, rejected = self._decide(request, principal, log if self._has("whole_log") else page)

        to = page[-1][0] if is_cut else state.cid
        return Page(
            *reply_to,
            to,
            state.cid,
            more=is_cut or is_too_far_behind,
            epochs=self._unseen_epochs(request, state.cid if self._has("max_head") else to),
            ack=ack,
            rejected=rejected,
            changes=tuple(page),
        )

    def _list_keys(self, request: Request, after: str) -> Keys:
        state, limit = self._state, request.limit
        keys = sorted(key for key in state.data if key > after)
        return Keys(
            state.id,
            request.nonce,
            request.cid,
            head=state.cid,
            epochs=self._unseen_epochs(request, state.cid),
            after=after,
            keys=tuple(keys[:limit]),
            end=len(keys) <= limit,
        )

    def _cut(self, log: list[LogRecord], limit: int) -> list[LogRecord]:
        """Return the beginning of the log that fits into a page."""
        page: list[LogRecord] = []
        weight = 0
        for record in log[:limit]:
            weight += weigh(record[2])
            if weight > self._options.page_weight and page:
                break
            page.append(record)
        return self._end_between_commits(page, log)

    def _end_between_commits(self, page: list[LogRecord], log: list[LogRecord]) -> list[LogRecord]:
        """Return a page without the begin of a commit that it holds a part of.

        A commit with which the page begins does not fit a page, and is cut.
        """
        if not page or len(page) == len(log) or not self._has("whole_commits"):
            return page
        last = page[-1][0]
        cut = [first for first, end in self._state.commits if first <= last < end]
        return [record for record in page if cut and record[0] < cut[0]] or page

    def _decide(self, request: Request, principal: str, log: list[LogRecord]) -> tuple[Ack, frozenset[str]]:
        """Accept the changes of keys that the log after the client's CID does not contain."""
        state = self._state
        changed = {key for _, key, _ in log}
        accepted = [change for change in request.changes if change[0] not in changed]
        rejected = frozenset(key for key, _ in request.changes if key in changed)
        if not accepted:
            # No record is needed: those keys stay changed since this base, so a repeat is rejected
            # too.
            return Ack(state.cid, state.cid, None), rejected
        before = state.cid
        for key, content in accepted:
            self.write(key, content)
        ack = Ack(before, state.cid, state.epochs[-1].id)
        state.decisions[request.client] = Decision(request.seq, request.nonce, ack, principal)
        state.withdrawals.pop(request.client, None)
        return ack, rejected

    def _reject_all(self, request: Request, principal: str) -> tuple[Ack, frozenset[str]]:
        """Reject a withdrawn push, and record it: a delayed copy of the push may still arrive.

        The record of a client without an accepted push is dropped once every copy is too far
        behind: its base is at most the CID of the withdrawal. The product refuses a withdrawal if
        there are too many such records; to the client that is a lost request.
        """
        state = self._state
        ack = Ack(state.cid, state.cid, None)
        decision = Decision(request.seq, request.nonce, ack, principal)
        if not self._has("withdrawal_record"):
            pass
        elif request.client in state.decisions:
            state.decisions[request.client] = decision
        else:
            lifetime = self._options.distance if self._has("withdrawal_lifetime") else -1
            for client, old in list(state.withdrawals.items()):
                if state.cid - old.ack.before > lifetime:
                    del state.withdrawals[client]
            state.withdrawals[request.client] = decision
        return ack, frozenset(request.withdraw)

    def _unconfirmed(self, ack: Ack, keys: tuple[str, ...]) -> frozenset[str]:
        """Return the keys of a push decided earlier that the log does not show as accepted.

        Their changes were rejected, or they were accepted, then superseded and compacted away. In
        either case the key has a later change after the client's CID.
        """
        if ack.after - ack.before == len(keys) or not self._has("rejected_in_repeats"):
            return frozenset()
        logged = {self._state.log[cid][0] for cid in range(ack.before + 1, ack.after + 1) if cid in self._state.log}
        return frozenset(key for key in keys if key not in logged)

    def _max_head(self, request: Request) -> int:
        return request.max_head if self._has("max_head") else request.cid

    def _last_common_cid(self, request: Request) -> int:
        """Return the last CID that both histories have in common, at most ``max_head``."""
        max_head = self._max_head(request)
        if max_head == 0 or not self._has("epochs"):
            return max_head
        if not request.epochs:  # a client that has only used manual sync: its CID is accepted as it is
            return max_head if max_head <= self._state.cid else 0
        here, there = epoch_ends(self._state.epochs, self._state.cid), epoch_ends(request.epochs, max_head)
        return max((min(end, here[epoch]) for epoch, end in there.items() if epoch in here), default=0)

    def _unseen_epochs(self, request: Request, stop: int) -> tuple[Epoch, ...]:
        """Return the epochs from the client's CID to ``stop``; all if the request lists none."""
        first = request.cid if request.epochs else 0
        return tuple(epoch for epoch in self._state.epochs if first <= epoch.start < stop)

    # -------------------------------------------------------------------------------- schedules

    def stop_faults(self) -> None:
        pass

    @property
    def head(self) -> int:
        return self._state.cid

    def write_together(self, changes: Sequence[Change]) -> None:
        state = self._state
        before = state.cid
        for key, content in changes:
            self.write(key, content)
        if state.cid > before + 1:
            state.commits.append((before + 1, state.cid))

    def write(self, key: str, content: Content) -> None:
        state = self._state
        if not self._epoch_begun:
            state.epochs.append(Epoch(self._rng.getrandbits(62), state.cid))
            self._epoch_begun = True
        state.cid += 1
        state.log[state.cid] = (key, content)
        set_or_delete(state.data, key, content)

    def compact(self) -> None:
        last = {key: cid for cid, (key, _) in sorted(self._state.log.items())}
        self._state.log = {cid: change for cid, change in self._state.log.items() if last[change[0]] == cid}
        self._drop_commits()

    def _drop_commits(self) -> None:
        """Drop the records of the commits of which the log has no change left."""
        state = self._state
        state.commits = [
            (first, last) for first, last in state.commits if any(first <= cid <= last for cid in state.log)
        ]

    def forget_deletes(self, before: int) -> None:
        self.compact()
        state = self._state
        for cid, (_, content) in list(state.log.items()):
            if content is None and cid < before and cid != state.cid:
                del state.log[cid]
                state.floor = max(state.floor, cid)
        self._drop_commits()

    def restart(self, *, power: bool) -> None:
        self._epoch_begun = False

    def backup(self) -> ServerState:
        return self._state.copy()

    def restore(self, backup: ServerState) -> None:
        self._state = backup.copy()
        self._epoch_begun = False

    def replace(self) -> None:
        self._state = ServerState(self._rng.getrandbits(62))
        self._epoch_begun = False

    def send_invalid_input(self) -> None:
        pass  # messages of the model are always well-formed

    def changes(self, cid: int) -> ManualPage | None:
        """Return a page for a manual sync; ``None`` if the server must refuse."""
        state = self._state
        if not state.floor <= cid <= state.cid:
            return None
        log = [(at, *state.log[at]) for at in sorted(state.log) if at > cid]
        page = self._end_between_commits(log[: self._options.limit], log)
        return ManualPage(page[-1][0] if page else cid, tuple(page))

    def live(self) -> dict[str, Content]:
        return dict(self._state.data)

    def log(self, after: int) -> dict[int, Change]:
        return {cid: change for cid, change in self._state.log.items() if cid > after}

    def epoch(self, cid: int) -> Hashable:
        return epoch_at(cid, self._state.epochs)


@contextmanager
def set_up(
    rng: random.Random, configuration: Configuration
) -> Iterator[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]:
    """Create a server and its clients."""
    clients = {f"c{i}": Client(rng, configuration) for i in range(configuration.clients)}
    yield Server(rng, configuration), clients


def run(seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None) -> Counter[str]:
    """Run the schedule of a seed on the model: see `run_seed`."""
    return run_seed(seed, set_up, without, focus, trace)


if __name__ == "__main__":
    main(run, __doc__ or "")
