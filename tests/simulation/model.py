"""The exchange as a model: the protocol in a few plain objects, run under random schedules (T1).

    python -m tests.simulation.model --schedules 20000
    python -m tests.simulation.model --schedules 2000 --without casclean
    python -m tests.simulation.model --seed 5000042

It states what `treehub_level.replication` must do, without bytes, stores or errors. A change to the protocol is made
here first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
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
    Page,
    Reply,
    Request,
    Reset,
    SeedPage,
    Stranger,
    ends_of,
    epoch_of,
    store,
)
from .runner import main, run_seed
from .schedule import Say
from .sides import ClientUnderTest, Content, ServerUnderTest, weigh


@dataclass
class ServerState:
    id: int
    data: dict[str, Content] = field(default_factory=dict)
    log: dict[int, Change] = field(default_factory=dict)
    cid: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)
    floor: int = 0

    def copy(self) -> ServerState:
        return replace(
            self, data=dict(self.data), log=dict(self.log), epochs=list(self.epochs), decisions=dict(self.decisions)
        )


class Server:
    """The server's half. `exchange` is the protocol; the rest is what happens to servers."""

    def __init__(self, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._on = configuration
        self._epoch_begun = False
        self.replace()

    # ---------------------------------------------------------------------------------------------- protocol

    def exchange(self, request: Request) -> Reply:
        """Answer one request, under the write lock. The first rule that matches decides."""
        state, without = self._state, self._on.without
        address = state.id, request.nonce, request.cid
        if request.server not in (None, state.id):
            return Stranger(*address)
        decision = state.decisions.get(request.client)
        ack, rejected = None, frozenset[str]()
        if request.keys and decision is not None and "dedupe" not in without:
            if (request.seq, request.nonce) == (decision.seq, decision.nonce):
                ack, rejected = decision.ack, self._unproven(decision.ack, request.keys)
            elif request.seq <= decision.seq:
                return Forked(*address)

        agreed = self._agreed(request)
        below_floor = request.cid < state.floor and not request.reset and "floor" not in without
        if agreed != self._hi(request) or request.cid > state.cid or below_floor:
            return Reset(*address, min(agreed, request.cid, state.cid), ack, rejected)

        if request.keys_after is not None:
            keys = sorted(key for key in state.data if key > request.keys_after)
            limit = self._on.limit
            return Keys(
                *address,
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
            *address,
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
        store(state.data, key, content)

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

    def replace(self) -> None:
        self._state = ServerState(self._rng.getrandbits(62))
        self._epoch_begun = False

    def intrude(self) -> None:
        pass  # messages are well-formed here

    def changes(self, cid: int) -> SeedPage | None:
        """The seed's pull, first half; ``None`` if it must be refused."""
        state = self._state
        if not state.floor <= cid <= state.cid:
            return None
        page = [(at, *state.log[at]) for at in sorted(state.log) if at > cid][: self._on.limit]
        return SeedPage(page[-1][0] if page else cid, tuple(page))

    def live(self) -> dict[str, Content]:
        return dict(self._state.data)

    def log(self, after: int) -> dict[int, Change]:
        return {cid: change for cid, change in self._state.log.items() if cid > after}

    def epoch(self, cid: int) -> Hashable:
        return epoch_of(cid, self._state.epochs)


@contextmanager
def world(
    rng: random.Random, configuration: Configuration
) -> Iterator[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]:
    """A server and its clients."""
    clients = {f"c{i}": Client(rng, configuration) for i in range(configuration.clients)}
    yield Server(rng, configuration), clients


def run(seed: int, without: str | None = None, focus: str | None = None, say: Say | None = None) -> Counter[str]:
    """See `run_seed`."""
    return run_seed(seed, world, without, focus, say)


if __name__ == "__main__":
    main(run, __doc__ or "")
