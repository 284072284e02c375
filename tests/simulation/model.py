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
    Group,
    ManualPage,
    Page,
    Piece,
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
        self._refused_keys: frozenset[str] = frozenset()
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
        ack, rejected, refused = None, frozenset[str](), frozenset[str]()
        if request.keys and decision is not None and self._has("decision_record"):
            is_owner = decision.principal == principal
            is_repeat = (request.seq, request.push_nonce) == (decision.seq, decision.nonce)
            if is_repeat and (is_owner or self._has("repeat_by_nonce")):
                ack, rejected = decision.ack, self._unconfirmed(decision.ack, request.keys)
                refused = decision.refused & rejected
            elif request.seq <= decision.seq or not is_owner:
                return Forked(*reply_to)

        # Rule 3: the histories differ, or the client lacks deletes.
        common = self._last_common_cid(request)
        below_floor = request.cid < state.floor and self._has("floor")
        if common != self._max_head(request) or request.cid > state.cid or (below_floor and request.holds_data):
            return Reset(*reply_to, min(common, request.cid, state.cid), ack, rejected)

        # Rule 4: a page of the log.
        log = [(cid, *state.log[cid]) for cid in sorted(state.log) if cid > request.cid]
        page, is_cut = self._cut(request, log)

        # Rule 5: the decision on the push.
        is_undecided = False
        if request.keys and ack is None:
            distance = state.cid - request.cid if self._has("cid_distance") else len(log)
            most = self._options.distance if self._has("fixed_distance") else request.limit
            is_undecided = distance > most or (below_floor and self._has("floor_of_pushes"))
            if request.withdraw and not is_undecided:
                ack, rejected = self._reject_all(request, principal)
            elif not is_undecided:
                seen = log if self._has("whole_log") else page
                ack, rejected, refused = self._decide(request, principal, seen)

        # Rule 6: at the head, the values of rejected and requested keys, and a piece of the range.
        to = page[-1][0] if is_cut else state.cid
        is_at_head = not is_cut or not self._has("values_at_head")
        changes = tuple(record for record in page if self._follows(request, record[1]))
        read = dict.fromkeys([*request.read, *(() if request.withdraw else sorted(rejected))])
        values = self._values([*read], has_changes=bool(changes)) if is_at_head else {}
        is_at_head = not is_cut or not self._has("piece_at_head")
        piece = self._piece(request) if request.fill and is_at_head and not request.keys else None
        return Page(
            *reply_to,
            to,
            state.cid,
            more=is_cut or is_undecided,
            epochs=self._unseen_epochs(request, state.cid if self._has("max_head") else to),
            ack=ack,
            rejected=rejected,
            changes=changes,
            values=values,
            refused=refused,
            piece=piece,
            refill=is_cut and len(log) - len(page) > sum(self._follows(request, key) for key in state.data),
        )

    def _values(self, keys: list[str], *, has_changes: bool) -> dict[str, Content]:
        """Return present values.

        If memory is short, a page has room for one value only, unless it has nothing but values: a
        client takes it that all others fit into no page.
        """
        is_short = self._options.pressure and self._rng.random() < self._options.pressure
        if is_short and (has_changes or not self._has("whole_values")):
            keys = keys[:1]
        return {key: self._state.data.get(key) for key in keys}

    def _follows(self, request: Request, key: str) -> bool:
        return (request if self._has("filled_part") else replace(request, fill=None)).follows(key)

    def _piece(self, request: Request) -> Piece:
        """Return the next part of a range, without the keys that the client has."""
        state, limit, fill = self._state, request.limit, request.fill
        assert fill is not None
        keys = sorted(
            key
            for key in state.data
            if key.startswith(fill.prefix) and key > fill.after and not any(map(key.startswith, request.complete))
        )
        shown = keys[:limit]
        to = shown[-1] if shown else fill.after
        return Piece(fill.prefix, fill.after, to, len(keys) <= limit, {key: state.data[key] for key in shown})

    def _cut(self, request: Request, log: list[LogRecord]) -> tuple[list[LogRecord], bool]:
        """Return the beginning of the log that fits into a page, and whether more follows.

        A page is cut after ``limit`` changes that the client follows, or after ``reads`` records.
        """
        if not request.prefixes and (request.fill is None or not request.fill.after):
            return [], False
        page: list[LogRecord] = []
        weight = followed = 0
        for record in log[: self._options.reads]:
            if self._follows(request, record[1]):
                weight += weigh(record[2])
                followed += 1
            if followed > request.limit or (weight > self._options.page_weight and page):
                break
            page.append(record)
        page = self._end_between_commits(page, log)
        return page, len(page) < len(log)

    def _end_between_commits(self, page: list[LogRecord], log: list[LogRecord]) -> list[LogRecord]:
        """Return a page without the begin of a commit that it holds a part of.

        A commit with which the page begins does not fit a page, and is cut.
        """
        if not page or len(page) == len(log) or not self._has("whole_commits"):
            return page
        last = page[-1][0]
        cut = [first for first, end in self._state.commits if first <= last < end]
        return [record for record in page if cut and record[0] < cut[0]] or page

    def _decide(
        self, request: Request, principal: str, log: list[LogRecord]
    ) -> tuple[Ack, frozenset[str], frozenset[str]]:
        """Accept the groups without a key that the log after the client's CID contains.

        Returns:
            The decision, the rejected keys, and those of them that a rule refuses.
        """
        state = self._state
        changed = {key for _, key, _ in log}
        accepted: list[Group] = []
        rejected: set[str] = set()
        refused: set[str] = set()
        for group in request.groups if self._has("groups") else [(change,) for change in request.changes]:
            keys = {key for key, _ in group}
            if keys & changed:
                rejected |= keys
            elif keys & self._refused_keys:
                rejected |= keys
                refused |= keys
            else:
                accepted.append(group)
        before = state.cid
        for group in accepted:
            self.write_together(group)
        if accepted:
            ack = Ack(before, state.cid, state.epochs[-1].id)
            decision = Decision(request.seq, request.push_nonce, ack, principal, frozenset(refused))
            state.decisions[request.client] = decision
            state.withdrawals.pop(request.client, None)
        else:
            ack = Ack(before, before, None)
            if refused and self._has("refusal_record"):
                self._record_rejection(request, principal, ack, frozenset(refused))
            # Otherwise no record is needed: those keys stay changed since this base, so a repeat is
            # rejected too.
        return ack, frozenset(rejected), frozenset(refused)

    def _reject_all(self, request: Request, principal: str) -> tuple[Ack, frozenset[str]]:
        """Reject a withdrawn push, and record it: a delayed copy of the push may still arrive."""
        ack = Ack(self._state.cid, self._state.cid, None)
        if self._has("withdrawal_record"):
            self._record_rejection(request, principal, ack)
        return ack, frozenset(request.withdraw)

    def _record_rejection(
        self, request: Request, principal: str, ack: Ack, refused: frozenset[str] = frozenset()
    ) -> None:
        """Record a rejection that the log does not show: a copy of the push may still arrive.

        The record of a client without an accepted push is dropped once every copy is too far
        behind: its base is at most the CID of the rejection. The product refuses a withdrawal if
        there are too many such records; to the client that is a lost request.
        """
        state = self._state
        decision = Decision(request.seq, request.push_nonce, ack, principal, refused)
        if request.client in state.decisions:
            state.decisions[request.client] = decision
            return
        lifetime = self._options.distance if self._has("withdrawal_lifetime") else -1
        for client, old in list(state.withdrawals.items()):
            if state.cid - old.ack.before > lifetime:
                del state.withdrawals[client]
        state.withdrawals[request.client] = decision

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

    def refuse_keys(self, keys: frozenset[str]) -> None:
        """Change the rule of the server: it refuses each group with one of these keys."""
        self._refused_keys = keys

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

    def retain(self, to: int, before: int, forgotten: Sequence[int]) -> None:
        state = self._state
        last = {key: cid for cid, (key, _) in sorted(state.log.items()) if cid <= to}
        state.log = {cid: change for cid, change in state.log.items() if cid > to or last[change[0]] == cid}
        for cid, (_, content) in list(state.log.items()):
            if content is None and cid < before and cid != state.cid:
                del state.log[cid]
                state.floor = max(state.floor, cid)
        self._drop_commits()
        self._forget(forgotten)

    def _forget(self, clients: Sequence[int]) -> None:
        """Drop the decisions on the last pushes of some clients, if no late copy could be judged.

        The base of a copy is at most the CID before the decision.
        """
        state = self._state
        for client in state.decisions.keys() & clients:
            before = state.decisions[client].ack.before
            is_past = before < state.floor or state.cid - before > self._options.distance
            if is_past or not self._has("lasting_decisions"):
                del state.decisions[client]

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
