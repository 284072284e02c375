"""JavaScript and Python clients with one server over a faulty network, in random schedules.

At the end of a schedule all clients hold equal data, and no change is lost. Each schedule is drawn
from a random seed. A ledger records every edit that a client has acknowledged. Each must be in the
server's change log or in its author's journal, unless its author has written that key again. Each
control breaks one rule of the client: some schedule must fail.
"""

from __future__ import annotations

import itertools
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from js.clients import MODULE, PACKAGE, Database, Node, NodeClient, NodeError, delete, items_of, put, python_client
from js.conftest import Server
from treehub_level import TransportError
from treehub_level.types import Operation

pytestmark = pytest.mark.once

KEYS = ["a", "b", "日", "\uff5e", "\U0001f600", "\U0001f600\uff5e"]
STEPS = 40
#: The faults of one request; the first is none.
FAULTS: list[dict[str, Any]] = [
    {},
    {"lost": "request"},
    {"lost": "reply"},
    {"twice": True},
    {"late": True},
    {"old": True},
]


class ViolationError(AssertionError):
    """A guarantee of the protocol that was violated."""


class PythonPeer:
    """A Python client with the interface and the faults of a `NodePeer`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.level = python_client(name)
        self.level.open()

    def batch(self, operation: Operation) -> None:
        self.level.batch([operation])

    def sync(self, database: Database, faults: list[dict[str, Any]]) -> None:
        exchange = database.exchange
        pending = iter(faults)

        class FaultyNetwork:
            def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
                fault = next(pending, {})
                if fault.get("lost") == "request":
                    raise ConnectionError("the request was lost")
                reply = exchange(request)
                if fault.get("lost") == "reply":
                    raise ConnectionError("the reply was lost")
                return exchange(request) if fault.get("twice") else reply

        self.level.sync(FaultyNetwork())

    def items(self) -> list[tuple[str, Any]]:
        return items_of(self.level)

    def journal(self) -> list[tuple[Any, Any]]:
        return [
            ([*conflict.local], None if conflict.remote is None else [*conflict.remote])
            for conflict in self.level.conflicts()
        ]

    def pending(self) -> int:
        return self.level.pending()


class NodePeer:
    """A JavaScript client in Node, which may also crash."""

    def __init__(self, client: NodeClient) -> None:
        self.name = client.name
        self.client = client

    def batch(self, operation: dict[str, Any]) -> None:
        self.client.batch(operation)

    def sync(self, database: Database, faults: list[dict[str, Any]]) -> None:
        self.client.sync(database, faults)

    def items(self) -> list[tuple[str, Any]]:
        return self.client.items()

    def journal(self) -> list[tuple[Any, Any]]:
        return [(conflict["local"], conflict["remote"]) for conflict in self.client.call("conflicts")]

    def pending(self) -> int:
        pending: int = self.client.call("pending")
        return pending


class Schedule:
    """A run in which clients edit and synchronise, in a random order and with random faults.

    Args:
        seed: A number that determines the run.
        node: The process of the JavaScript clients.
        database: An empty database.
    """

    def __init__(self, seed: int, node: Node, database: Database) -> None:
        self._random = random.Random(seed)
        self._database = database
        nodes = [NodePeer(node.client()) for _ in range(3)]
        self._peers: list[NodePeer | PythonPeer] = [*nodes, PythonPeer("python")]
        self._ledger: list[tuple[str, list[Any]]] = []
        self._edits = itertools.count()

    def run(self) -> None:
        """Run the schedule.

        Raises:
            ViolationError: A guarantee was violated.
        """
        for _ in range(STEPS):
            peer = self._random.choice(self._peers)
            if self._random.random() < 0.5:
                edit = self._edit(peer)
                peer.batch(edit)
                self._acknowledge(peer, edit)
            else:
                self._sync_with_faults(peer)
        for _ in range(3):
            for peer in self._peers:
                peer.sync(self._database, [])
        self._check()

    def _edit(self, peer: NodePeer | PythonPeer) -> Any:
        key = self._random.choice(KEYS)
        if self._random.random() < 0.2:
            return delete(key)
        return put(key, {"by": peer.name, "edit": next(self._edits)})

    def _acknowledge(self, peer: NodePeer | PythonPeer, edit: dict[str, Any]) -> None:
        change = [edit["key"], edit["value"]] if edit["type"] == "put" else [edit["key"]]
        self._ledger.append((peer.name, change))

    def _sync_with_faults(self, peer: NodePeer | PythonPeer) -> None:
        faults = [self._fault() for _ in range(3)]
        if isinstance(peer, NodePeer):
            if self._random.random() < 0.2:
                peer.client.call("crash", batch=self._random.randrange(3), written=self._random.random() < 0.5)
            elif self._random.random() < 0.3:
                faults[self._random.randrange(2)] |= {"edit": self._edit(peer)}
        with suppress(NodeError, TransportError):
            peer.sync(self._database, faults)
        if isinstance(peer, NodePeer):
            peer.client.reopen()
            for edit in peer.client.call("edits"):
                self._acknowledge(peer, edit)

    def _fault(self) -> dict[str, Any]:
        return dict(self._random.choices(FAULTS, [6, 1, 3, 1, 2, 1])[0])

    def _check(self) -> None:
        log = self._database.log()
        expected = self._database.items()
        for peer in self._peers:
            if peer.pending():
                raise ViolationError(f"{peer.name} has not drained")
            if peer.items() != expected:
                raise ViolationError(f"{peer.name} differs from the server: {peer.items()} is not {expected}")
        journals = {peer.name: peer.journal() for peer in self._peers}
        for name, journal in journals.items():
            for local, remote in journal:
                author = remote[1]["by"] if remote is not None and len(remote) == 2 else None
                if author == name:
                    raise ViolationError(f"{name} has lost {local} to its own older change {remote}")
        latest = {(name, change[0]): change for name, change in self._ledger}
        for (name, _), change in latest.items():
            if change not in log and change not in [local for local, _ in journals[name]]:
                raise ViolationError(f"{change} of {name} is lost")


SEEDS = range(6)
#: The seeds among which a control must fail.
CONTROL_SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_clients_end_equal_and_no_change_is_lost(node: Node, database: Database, seed: int) -> None:
    Schedule(seed, node, database).run()


@pytest.mark.parametrize(
    ("name", "rule", "broken"),
    [
        pytest.param(
            "page.js",
            "const isAsSent = receipt.dirtyOf(change.key) === joinRecord(change)",
            "const isAsSent = true",
            id="a change rewritten after the freeze stays dirty",
        ),
        pytest.param(
            "page.js",
            "    if (isOwn) return\n",
            "",
            id="its own change returning is no conflict",
        ),
        pytest.param(
            "receipt.js",
            "this.journal({ key, local, remote, ...facts })",
            "null",
            id="a losing change is journaled",
        ),
        pytest.param(
            "client.js", "push: push?.nonce ?? null", "push: push ? newId() : null", id="a push keeps its nonce"
        ),
    ],
)
def test_the_schedules_find_a_client_that_breaks_the_rule_that(
    name: str, rule: str, broken: str, node_executable: str, server: Server, tmp_path: Path
) -> None:
    copy = tmp_path / "package"
    copy.mkdir()
    for file in (MODULE.name, "package.json"):
        shutil.copy(PACKAGE / file, copy)
    shutil.copytree(PACKAGE / "src", copy / "src")
    module = copy / "src" / name
    text = module.read_text(encoding="utf-8")
    assert text.count(rule) == 1
    module.write_text(text.replace(rule, broken), encoding="utf-8")
    node = Node(node_executable, module=copy / MODULE.name)
    try:
        with pytest.raises(ViolationError):
            for seed in CONTROL_SEEDS:
                Schedule(seed, node, server.database(f"{tmp_path.name.replace('_', '-')[-40:]}-{seed}")).run()
    finally:
        node.stop()
