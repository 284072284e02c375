"""Schedules: one seed decides everything that happens to a server, its clients and the messages between them.

The same schedules run the model (`model.py`: the protocol in a few plain objects) and the product (`product.py`: the
real client and server over stores that crash). What must hold is checked here, after each step and at the end, from
what both show of themselves: data, dirty changes, log, journal.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

#: What was written: by whom, and the how-manyth of its writes; ``None`` for a delete.
Content = tuple[str, int] | None
#: The other side of a journaled change that a reset removed: nothing won over it, its key was gone.
SWEPT: Final = "swept"


class InvariantError(AssertionError):
    """Something that must hold did not."""


class Loss(NamedTuple):
    """One record of a client's conflict journal."""

    key: str
    local: Content
    remote: Content | str
    cid: int


class Calmable(Protocol):
    def calm(self) -> None:
        """Nothing of its own happens any more: it does not die over a step, and synchronises both ways."""


class ServerUnderTest(Calmable, Protocol):
    """What a schedule does to a server, and sees of it."""

    @property
    def head(self) -> int: ...
    def write(self, key: str, content: Content) -> None: ...
    def exchange(self, request: Any) -> Any:
        """Answer; ``None`` if the server dies over it."""

    def compact(self) -> None: ...
    def forget_deletes(self, before: int) -> None: ...
    def restart(self, *, power: bool) -> None: ...
    def backup(self) -> Any: ...
    def restore(self, backup: Any) -> None: ...
    def live(self) -> dict[str, Content]: ...
    def log(self, after: int) -> dict[int, tuple[str, Content]]: ...
    def epoch(self, cid: int) -> Hashable: ...


class ClientUnderTest(Calmable, Protocol):
    """What a schedule does to a client, and sees of it."""

    @property
    def commits(self) -> int:
        """How many batches it has committed; lower after a power cut that took some of them."""

    @property
    def cid(self) -> int: ...
    @property
    def resetting(self) -> bool: ...
    @property
    def drained(self) -> bool: ...
    def write(self, key: str, content: Content) -> None: ...
    def pull_by_seed_verbs(self, server: Any) -> None: ...
    def start(self) -> Any:
        """Give up the outstanding request, if any, and make a new one; ``None`` if it comes to nothing."""

    def receive(self, reply: Any) -> Any:
        """Take a reply. Returns the next request if the client sends one at once, else ``None``."""

    def crash(self, *, power: bool) -> None: ...
    def backup(self) -> Any: ...
    def restore(self, backup: Any) -> None: ...
    def live(self) -> dict[str, Content]: ...
    def dirty(self) -> dict[str, Content]: ...
    def journal(self) -> list[Loss]: ...
    def epoch(self) -> Hashable:
        """The last epoch that it knows of; ``None`` if it knows of none."""


@dataclass(frozen=True)
class Configuration:
    """What a schedule may do, and how often. Sizes are tiny, so that edges are met often."""

    clients: int = 3
    keys: int = 3
    steps: int = 120
    limit: int = 6  # changes, and keys, in a page
    push: int = 2  # changes in a push
    page_weight: int = 1000  # what a page may weigh: stands for its limit in bytes
    drop: float = 0.15
    duplicate: float = 0.15
    reorder: bool = True
    power: bool = True
    compact: float = 2  # how often, as are the next three: a local write weighs 22
    forget_deletes: float = 1.5
    restore: float = 0.7
    rollback: float = 0
    withdraw: float = 0.05  # the share of pushes that are too large for what carries them, and are taken back
    forbidden: float = 0.05  # the share of requests whose push is forbidden, so that they go without it
    seed_verbs: bool = False  # server and clients have synchronised by the seed's verbs before
    without: frozenset[str] = frozenset()  # mechanisms removed, see MECHANISMS


BASE: Final = Configuration()

#: What can be removed. Each removal must lead to violations, or the mechanism (or the oracle) is idle.
MECHANISMS: Final = {
    "casclean": "an acknowledged change is cleaned only if it still equals what was sent",
    "inflight": "a push is frozen, and resent as it was until it is decided",
    "dedupe": "the server records its decision on each client's last push",
    "skip": "a client recognises its own range of the log",
    "respcas": "a reply counts only for the outstanding request, at the CID it was made for",
    "durable_freeze": "a push is on disk before it is sent",
    "epoch": "histories are compared by epochs",
    "drain": "nothing is frozen while the own range is open",
    "floor": "a client below the floor resets",
    "sweep": "phase B of a reset deletes what the server no longer has",
    "hi": "histories are compared up to the highest CID that a page was read at",
    "keys_hi": "and up to the highest CID that a list of keys was read at",
    "rejected": "the server says which changes of a push it cannot prove to have taken, in repeats and resets too",
    "distance": "a push is refused by distance in CIDs, which compaction cannot shrink",
    "withdraw": "the server records that a push was taken back, and refuses a late copy of it",
    "aside": "a push that is forbidden is set aside, and taken back before anything else is frozen",
    "echo": "a change that says the same as the push set aside does not beat what was written since",
    "whole": "a push is judged by all of the log behind its base, even if the page is cut before its end",
}


#: Configurations that stress one mechanism, where random ones would need too many schedules to miss it.
FOCUS: Final = {
    "distance": replace(
        BASE, limit=2, keys=4, clients=2, drop=0, duplicate=0.4, compact=20, restore=0, forget_deletes=0, steps=200
    ),
    "drain": replace(BASE, limit=1, keys=2, restore=0),
    "hi": replace(
        BASE,
        limit=1,
        push=5,
        keys=5,
        clients=2,
        drop=0,
        duplicate=0,
        compact=20,
        restore=10,
        forget_deletes=0,
        steps=200,
    ),
    "keys_hi": replace(
        BASE,
        limit=50,
        push=5,
        keys=8,
        clients=2,
        drop=0.05,
        duplicate=0,
        power=False,
        compact=0,
        forget_deletes=0,
        restore=10,
    ),
    "withdraw": replace(BASE, withdraw=0.4, drop=0.1, duplicate=0.3, restore=0),
    "aside": replace(BASE, forbidden=0.4, drop=0.1, duplicate=0.3, restore=0),
    "echo": replace(BASE, forbidden=0.4, drop=0.3, restore=0),
    "sweep": replace(BASE, keys=8, drop=0.1, duplicate=0.1, compact=5, restore=5, forget_deletes=5, steps=200),
}


def weigh(content: Content) -> int:
    """A weight for each content: the same in the model and, in units of padding, in the product."""
    return 1 if content is None else 1 + content[1] % 3


def random_configuration(rng: random.Random) -> Configuration:
    """A point anywhere in the space of configurations."""
    return replace(
        BASE,
        clients=rng.choice([2, 3, 4, 6]),
        keys=rng.choice([1, 2, 3, 5, 8]),
        steps=rng.choice([40, 80, 120, 200]),
        limit=rng.choice([1, 2, 3, 6, 50]),
        push=rng.choice([1, 2, 5]),
        page_weight=rng.choice([1, 4, 8, 1000, 1000, 1000]),
        drop=rng.choice([0, 0.1, 0.3]),
        duplicate=rng.choice([0, 0.1, 0.3]),
        reorder=rng.random() < 0.8,
        power=rng.random() < 0.7,
        compact=rng.choice([0, 2, 8, 20]),
        forget_deletes=rng.choice([0, 0, 2, 6]),
        restore=rng.choice([0, 0, 0.7, 3, 10]),
        rollback=rng.choice([0, 0, 0, 2]),
        seed_verbs=rng.random() < 0.3,
        withdraw=rng.choice([0, 0.05, 0.3]),
        forbidden=rng.choice([0, 0.05, 0.3]),
    )


class _Ghost:
    """What is remembered of a client beside it: its last write of each key, at each commit it could fall back to."""

    def __init__(self, client: ClientUnderTest) -> None:
        self.latest: dict[str, Content] = {}
        self.count = 0
        self.cid = 0
        self.past: list[tuple[int, dict[str, Content]]] = [(client.commits, {})]
        self.saved: tuple[Any, dict[str, Content], list[tuple[int, dict[str, Content]]]] | None = None
        self.rolled_back = False

    def wrote(self, client: ClientUnderTest, key: str, content: Content) -> None:
        self.latest = {**self.latest, key: content}
        self.past.append((client.commits, self.latest))

    def fell_back(self, client: ClientUnderTest) -> None:
        while self.past[-1][0] > client.commits:
            self.past.pop()
        self.latest = self.past[-1][1]


class Schedule:
    """One run.

    Args:
        rng: Decides everything.
        configuration: What may happen.
        server: The server that it happens to.
        clients: The clients, by name.
    """

    def __init__(
        self,
        rng: random.Random,
        configuration: Configuration,
        server: ServerUnderTest,
        clients: Mapping[str, ClientUnderTest],
    ) -> None:
        self.rng = rng
        self.configuration = configuration
        self.counts: Counter[str] = Counter()
        self._server = server
        self._clients = clients
        self._keys = [f"k{i}" for i in range(configuration.keys)]
        self._ghosts = {name: _Ghost(client) for name, client in self._clients.items()}
        self._network: list[tuple[str, str, Any]] = []  # ("request" | "reply", client, message)
        self._backups: list[tuple[Any, dict[int, tuple[str, str]]]] = []
        self._history: dict[int, tuple[str, str]] = {}  # author and key of each CID, compacted ones too
        self._logged: set[tuple[str, Content]] = set()  # whatever stood in a log, abandoned histories included
        self._restored = False
        self._server_writes = 0
        if configuration.seed_verbs:
            self._synchronise_by_seed_verbs()

    def _synchronise_by_seed_verbs(self) -> None:
        for _ in range(self.rng.randint(1, 8)):
            self._write_on_server()
        for client in self._clients.values():
            if self.rng.random() < 0.7:
                client.pull_by_seed_verbs(self._server)
        for _ in range(self.rng.randint(0, 3)):
            self._write_on_server()

    # ------------------------------------------------------------------------------------------- what happens

    def run(self) -> Counter[str]:
        """Let everything happen, then let everybody converge, then compare.

        Raises:
            InvariantError: Something that must hold did not.
        """
        actions, weights = self._actions()
        for _ in range(self.configuration.steps):
            self.rng.choices(actions, cum_weights=weights)[0]()
        self._late_duplicates()
        self._converge()
        self._compare()
        return self.counts

    def _actions(self) -> tuple[list[Callable[[], None]], list[float]]:
        on = self.configuration
        actions: list[tuple[Callable[[], None], float]] = [
            (self._write_on_client, 22),
            (self._write_on_server, 4),
            (self._start, 18),
            (self._deliver, 44),
            (self._crash_client, 3),
            (self._compact, on.compact),
            (self._forget_deletes, on.forget_deletes),
            (self._restart_server, 1.5),
            (self._back_up_server, 1.5),
            (self._restore_server, on.restore),
            (self._roll_client_back, on.rollback),
        ]
        total, weights = 0.0, []
        for _, weight in actions:
            total += weight
            weights.append(total)
        return [action for action, _ in actions], weights

    def _any_client(self) -> tuple[str, ClientUnderTest, _Ghost]:
        name = self.rng.choice(list(self._clients))
        return name, self._clients[name], self._ghosts[name]

    def _write_on_client(self) -> None:
        name, client, ghost = self._any_client()
        ghost.count += 1
        key, content = self.rng.choice(self._keys), None if self.rng.random() < 0.25 else (name, ghost.count)
        client.write(key, content)
        ghost.wrote(client, key, content)
        self._check(name)

    def _write_on_server(self) -> None:
        self._server_writes += 1
        content = None if self.rng.random() < 0.25 else ("server", self._server_writes)
        self._server.write(self.rng.choice(self._keys), content)
        self._note_log("server")

    def _start(self) -> None:
        name, client, _ = self._any_client()
        self._send(name, client.start())
        self._check(name)

    def _deliver(self) -> None:
        if not self._network:
            return
        on = self.configuration
        index = self.rng.randrange(len(self._network)) if on.reorder else 0
        kind, name, message = self._network[index]
        fate = self.rng.random()
        if fate < on.drop:
            del self._network[index]
            self.counts["dropped"] += 1
            return
        if fate > 1 - on.duplicate:
            self.counts["duplicated"] += 1
        else:
            del self._network[index]
        if kind == "reply":
            self._send(name, self._clients[name].receive(message))
            self._check(name)
            return
        reply = self._exchange(name, message)
        if reply is not None:
            self._network.append(("reply", name, reply))

    def _send(self, name: str, request: Any) -> None:
        if request is not None:
            self._network.append(("request", name, request))

    def _exchange(self, name: str, request: Any) -> Any:
        before = self._server.head
        reply = self._server.exchange(request)
        self._note_log(name)
        self._check_server_wins(name, request.cid, before)
        self.counts["exchanged"] += 1
        return reply

    def _crash_client(self) -> None:
        name, client, ghost = self._any_client()
        client.crash(power=self.configuration.power and self.rng.random() < 0.5)
        ghost.fell_back(client)
        ghost.cid = client.cid
        self._check(name)
        self.counts["crashed"] += 1

    def _compact(self) -> None:
        self._server.compact()

    def _forget_deletes(self) -> None:
        deletes = [cid for cid, (_, content) in self._server.log(0).items() if content is None]
        if deletes:
            self._server.forget_deletes(self.rng.choice(deletes) + 1)
            self.counts["deletes forgotten"] += 1

    def _restart_server(self) -> None:
        self._server.restart(power=self.configuration.power and self.rng.random() < 0.5)
        for cid in [cid for cid in self._history if cid > self._server.head]:
            del self._history[cid]
            self._restored = True

    def _back_up_server(self) -> None:
        self._backups.append((self._server.backup(), dict(self._history)))

    def _restore_server(self) -> None:
        if self._backups:
            backup, history = self.rng.choice(self._backups)
            self._server.restore(backup)
            self._history = dict(history)
            self._restored = True
            self.counts["restored"] += 1

    def _roll_client_back(self) -> None:
        _, client, ghost = self._any_client()
        if ghost.saved is None or self.rng.random() < 0.5:
            ghost.saved = client.backup(), ghost.latest, list(ghost.past)
            return
        backup, ghost.latest, past = ghost.saved
        client.restore(backup)
        ghost.past = list(past)
        ghost.past.append((client.commits, ghost.latest))
        ghost.cid = client.cid
        ghost.rolled_back = True
        self.counts["rolled back"] += 1

    def _late_duplicates(self) -> None:
        for kind, name, message in self._network:
            if kind == "request" and self.rng.random() < 0.5:
                self._exchange(name, message)
        self._network.clear()

    def _converge(self) -> None:
        for process in (self._server, *self._clients.values()):
            process.calm()
        for _ in range(200):
            for name, client in self._clients.items():
                request = client.start()
                for _ in range(200):
                    if request is None:
                        break
                    reply = self._exchange(name, request)
                    request = None if reply is None else client.receive(reply)
                    self._check(name)
                else:
                    raise InvariantError(f"{name} goes on for ever")
            if all(client.drained and client.cid == self._server.head for client in self._clients.values()):
                return
        raise InvariantError("no convergence in 200 rounds")

    # ---------------------------------------------------------------------------------------- what must hold

    def _note_log(self, author: str) -> None:
        for cid, change in self._server.log(max(self._history, default=0)).items():
            self._history[cid] = author, change[0]
            self._logged.add(change)

    def _check_server_wins(self, name: str, base: int, before: int) -> None:
        unseen = {self._history[cid][1] for cid in range(base + 1, before + 1)}
        for cid in range(before + 1, self._server.head + 1):
            if self._history[cid][1] in unseen:
                raise InvariantError(
                    f"the server did not win: {name} at CID {base} overwrote what it had not seen in {cid}"
                )

    def _check(self, name: str) -> None:
        """What must hold of a client after whatever it did."""
        client, ghost = self._clients[name], self._ghosts[name]
        if client.cid < ghost.cid and not client.resetting:
            raise InvariantError(
                f"time ran backwards: {name} went from CID {ghost.cid} to {client.cid} without a reset"
            )
        ghost.cid = client.cid
        dirty, journal = client.dirty(), client.journal()
        kept = {(loss.key, loss.local) for loss in journal}
        for key, content in ghost.latest.items():
            pushed = (key, content) in self._logged
            if not pushed and (key, content) not in kept and dirty.get(key, SWEPT) != content:
                raise InvariantError(f"lost: {name} wrote {content} to {key}, and it is nowhere")
        if not self._restored and not ghost.rolled_back:
            self._check_journal(name, journal)

    def _check_journal(self, name: str, journal: list[Loss]) -> None:
        told = Counter((loss.key, loss.local) for loss in journal if loss.remote != SWEPT and loss.local is not None)
        twice = [change for change, times in told.items() if times > 1]
        if twice:
            raise InvariantError(f"told twice: {name} journaled {twice}")
        for loss in journal:
            if loss.remote != SWEPT and loss.local != loss.remote and self._history.get(loss.cid, ("", ""))[0] == name:
                raise InvariantError(f"self-conflict: {name} lost {loss.local} on {loss.key} to its own {loss.remote}")

    def _compare(self) -> None:
        expected = self._server.live()
        for name, client in self._clients.items():
            if client.live() != expected:
                raise InvariantError(f"divergence: {name} has {client.live()}, the server {expected}")
            epoch = client.epoch()
            if epoch is not None and epoch != self._server.epoch(self._server.head):
                raise InvariantError(f"epoch: {name} takes the server's last epoch to be {epoch}")
