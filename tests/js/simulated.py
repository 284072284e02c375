"""JavaScript clients under the schedules of `simulation`, with the product's server.

    python -m js.simulated --schedules 1000        (in the folder ``tests``)
    python -m js.simulated --schedules 1000 --without uncompared
    python -m js.simulated --seed 42

Every second client is one of Python. JavaScript clients follow all keys, write no groups, withdraw
no push and use no manual sync. A mechanism is removed by altering a line of the package.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
from simulation import product
from simulation.configuration import FOCUS, Configuration, random_configuration
from simulation.processes import MismatchReply, Server, _content, _value
from simulation.runner import Run, first_violation
from simulation.schedule import Schedule, Trace
from simulation.sides import SWEPT, Content, InvariantError, Loss

from js.clients import MODULE, PACKAGE, Node, NodeError
from treehub_level.engine.access import Access
from treehub_level.replication import endpoint
from treehub_level.replication.messages import Reply

#: The abilities that JavaScript clients do not have.
ABSENT: Final[dict[str, Any]] = {
    "batches": 0,
    "follow": 0,
    "rebind": 0,
    "replace": 0,
    "withdraw": 0,
    "forbidden": 0,
    "manual_sync": 0,
    "manual_before": False,
    "change_limit": 0,
    "send_invalid_input": 0,
    "lost_weight": 1000,
    "keep_base": False,
}

#: A line of the package for each mechanism that a run can remove, and the line without it.
LINES: Final = {
    "compare_and_clean": (
        "page.js",
        "const isAsSent = receipt.dirtyOf(change.key) === joinRecord(change)",
        "const isAsSent = receipt.dirtyOf(change.key) !== undefined",
    ),
    "own_range": ("page.js", "    if (isOwn) return\n", ""),
    "drained_own_range": ("client.js", "push === undefined && ownRange === undefined &&", "push === undefined &&"),
    "durable_freeze": ("client.js", "{ ...state, seq: push.seq, push }), DURABLE)", "{ ...state, push }), UTF8)"),
    "epochs": ("client.js", "epochs: epochs.slice(-MAX_EPOCHS),", "epochs: [],"),
    "max_head": ("client.js", "hi: Math.max(maxHead, cid),", "hi: cid,"),
    "absent_in_piece": ("fill.js", "const absent = local.filter(", "const absent = [].filter("),
    "piece_beats_unchecked": ("fill.js", "} else if (isKept.has(key) &&", "} else if (false &&"),
    "base_of_unchecked": ("fill.js", "&& bases.get(key) !== value)", ")"),
    "log_decides": (
        "fill.js",
        "receipt.dirtyOf(key) !== undefined && receipt.isUnchecked(key)",
        "receipt.dirtyOf(key) !== undefined",
    ),
    "reset_checks_dirty": ("client.js", "resetFollowing(dirty.length > 0)", "resetFollowing(false)"),
    "uncompared": ("client.js", "for (const key of uncompared) receipt.markUncompared(key)", ""),
    "unchecked_freeze": (
        "push.js",
        "const filled = following.range === 'unchecked' ?",
        "const filled = following.range === undefined ?",
    ),
    "refusals_heal": ("page.js", "receipt.lose(key, { kind: 'refused',", "void (key, { kind: 'refused',"),
    "overtaken": ("losses.js", "dirty[index] !== undefined && isOvertaken", "false"),
    "a losing change is journaled": ("receipt.js", "|| facts.kind === 'refused') this.journal(", "&& null) void ("),
}


class JavaScriptRequest:
    """A request of a JavaScript client, as JSON."""

    def __init__(self, text: str) -> None:
        self.document = orjson.loads(text)
        self.client: str = self.document["client"]
        self.cid: int = self.document["cid"]
        self.nonce: str = self.document["nonce"]
        self.keys = [change[0] for change in self.document["changes"]]


class ServerOfBoth:
    """The product's server, which answers requests of JavaScript clients as JSON text."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def exchange(self, asked: Any, principal: str) -> Any:
        """See `ServerUnderTest.exchange`."""
        server = self._server
        if not isinstance(asked, JavaScriptRequest):
            return server.exchange(asked, principal)
        answer = server._answered(
            asked,  # type: ignore[arg-type]
            lambda: endpoint.answer(server.level._store, asked.document, Access(principal))[0],
        )
        return orjson.dumps(answer.to_dict()).decode() if isinstance(answer, Reply) else answer


class JavaScriptClient:
    """A client in Node. See `ClientUnderTest`.

    Args:
        node: The process, which runs ``simulated.mjs``.
        name: The name of the client.
        rng: Makes random decisions.
        configuration: The options of the schedule.
    """

    def __init__(self, node: Node, name: str, rng: random.Random, configuration: Configuration) -> None:
        self._node = node
        self._name = name
        self._rng = rng
        self.limit = configuration.limit
        self.merger: Any = None  # it is never asked: the JavaScript client journals all conflicts
        self._is_caught_up = False
        self._rows: dict[str, Any] = {}
        self._call("open", limits=[configuration.limit, configuration.push, 2])

    def _call(self, verb: str, **options: Any) -> dict[str, Any]:
        try:
            view: dict[str, Any] = self._node.call(verb, client=self._name, **options)
        except NodeError as error:
            raise InvariantError(f"the JavaScript client raised an error: {error}") from error
        self._commits, self._at_risk = view["commits"], view["atRisk"]
        self._rows = dict(view["rows"])
        return view

    def _record(self, name: str) -> Any:
        text = self._rows.get(name)
        return None if text is None else orjson.loads(text)

    def _records(self, prefix: str) -> list[Any]:
        return [orjson.loads(text) for key, text in self._rows.items() if key.startswith(prefix)]

    def stop_faults(self) -> None:
        pass

    @property
    def commits(self) -> int:
        return int(self._commits)

    @property
    def cid(self) -> int:
        return int(self._record("!") or 0)

    @property
    def _range(self) -> str:
        follow = self._record("!!follow")
        if follow is not None:
            return str(follow["ranges"][0][1])
        return "complete" if self.cid else "unchecked"

    @property
    def resetting(self) -> bool:
        return bool((self._record("!!follow") or {}).get("resetting"))

    @property
    def drained(self) -> bool:
        waits = self.dirty() or "!!push" in self._rows or self._records("!!lost/")
        return self._range == "complete" and not waits

    @property
    def is_consistent(self) -> bool:
        return self._is_caught_up and self._range == "complete" and not self._records("!!lost/")

    def write(self, key: str, content: Content) -> None:
        self.write_batch({key: content})

    def write_batch(self, changes: dict[str, Content]) -> None:
        self._call("batch", operations=[_operation(*change) for change in changes.items()])

    def follow(self, prefix: str) -> None:
        raise NotImplementedError

    unfollow = rebind = pull_all_manually = pull_manually = apply_manually = push_manually = clean_manually = follow

    def followed(self) -> list[str]:
        return [""]

    def complete(self) -> list[str]:
        return [""] if self._range == "complete" else []

    def start(self) -> Any:
        self._is_caught_up = False
        return self._request(self._call("start"))

    def _request(self, view: dict[str, Any]) -> JavaScriptRequest | None:
        return JavaScriptRequest(view["request"]) if "request" in view else None

    def receive(self, reply: Any) -> Any:
        if isinstance(reply, MismatchReply):
            raise InvariantError("another server took the server's place")
        view = self._call("receive", text=reply)
        self._is_caught_up = view.get("isCaughtUp", self._is_caught_up)
        return self._request(view)

    def restore_loss(self, loss: Loss) -> None:
        self._call("writeAgain", operation=_operation(loss.key, loss.local), id=self._id_of(loss))

    def dismiss_loss(self, loss: Loss) -> None:
        self._call("dismiss", id=self._id_of(loss))

    def _id_of(self, loss: Loss) -> int:
        return next(id for id, found in self._losses() if found == loss)

    def send_invalid_input(self) -> None:
        raise NotImplementedError

    def crash(self, *, power: bool) -> None:
        self._is_caught_up = False
        self._call("crash", kept=self._rng.randint(0, self._at_risk) if power else None)

    def backup(self) -> Any:
        return [[key, text] for key, text in self._rows.items()]

    def restore(self, backup: Any) -> None:
        self._is_caught_up = False
        self._call("restore", rows=backup)

    def live(self) -> dict[str, Content]:
        return {key: _content([key, orjson.loads(text)]) for key, text in self._rows.items() if key >= '"'}

    def dirty(self) -> dict[str, Content]:
        changes = [orjson.loads(text) for key, text in self._rows.items() if '!"' <= key < '"']
        return {change[0]: _content(change) for change in changes}

    def base_values(self) -> dict[str, Content]:
        return {}

    def journal(self) -> list[Loss]:
        return [loss for _, loss in self._losses()]

    def _losses(self) -> list[tuple[int, Loss]]:
        prefix = "!!conflict/"
        rows = [(key, orjson.loads(text)) for key, text in self._rows.items() if key.startswith(prefix)]
        return [(int(key[len(prefix) + 1 :]), _loss(record)) for key, record in rows]

    def epoch(self) -> Hashable:
        epochs = (self._record("!!server") or {}).get("epochs")
        return epochs[-1][0] if epochs else None


def _operation(key: str, content: Content) -> dict[str, Any]:
    if content is None:
        return {"type": "del", "key": key}
    return {"type": "put", "key": key, "value": _value(content)}


def _loss(record: dict[str, Any]) -> Loss:
    local = _content(record["local"])
    if record["remote"] is None:
        return Loss(record["key"], local, SWEPT, 0)
    cid, kind = record["cid"], record["kind"]
    if record.get("read"):
        cid, kind = 0, "filled" if kind == "conflict" else kind
    return Loss(record["key"], local, _content(record["remote"]), cid, kind)


@contextmanager
def simulated_node(executable: str, without: str | None = None) -> Iterator[Node]:
    """Run a process of Node with the package, with limits that can be set, without a mechanism."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE / "src", Path(folder, "src"))
        for file in (MODULE, PACKAGE / "package.json"):
            shutil.copy(file, folder)
        _let_limits_be_set(Path(folder, "src", "limits.js"))
        if without is not None:
            name, line, broken = LINES[without]
            _alter(Path(folder, "src", name), line, broken)
        node = Node(executable, script="simulated.mjs", module=Path(folder, MODULE.name))
        try:
            yield node
        finally:
            node.stop()


def _let_limits_be_set(module: Path) -> None:
    names = ["MAX_CHANGES", "MAX_PUSH", "MAX_EPOCHS"]
    for name in names:
        _alter(module, f"export const {name} =", f"export let {name} =")
    with module.open("a", encoding="utf-8") as file:
        file.write(f"\nexport const setLimits = (limits) => {{ [{', '.join(names)}] = limits }}\n")


def _alter(module: Path, line: str, other: str) -> None:
    text = module.read_text(encoding="utf-8")
    assert text.count(line) == 1, line
    module.write_text(text.replace(line, other), encoding="utf-8")


def run_with(node: Node) -> Run:
    """Return a function that runs schedules with the clients of a process of Node."""

    def run(
        seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None
    ) -> Counter[str]:
        drawn = FOCUS.get(focus or "") or random_configuration(random.Random(f"configuration {seed}"))
        # In a smaller page no value may fit beside the changes that the server writes meanwhile.
        configuration = replace(drawn, **ABSENT, page_weight=max(drawn.page_weight, 8))
        rng = random.Random(seed)
        with product.set_up(rng, configuration) as (server, clients):
            both = {
                name: client if index % 2 else JavaScriptClient(node, f"{seed} {name}", rng, configuration)
                for index, (name, client) in enumerate(clients.items())
            }
            return Schedule(rng, configuration, ServerOfBoth(server), both, trace).run()  # type: ignore[arg-type]

    return run


def _run_all(run: Run, arguments: argparse.Namespace) -> bool:
    """Run schedules, and print the first violation. Return True if there is one."""
    without = arguments.without
    if arguments.seed is not None:
        print(dict(run(arguments.seed, without, without, print)))
        return False
    seeds = range(arguments.start, arguments.start + arguments.schedules)
    violation = first_violation(seeds, run, without, without)
    print(f"without {without or 'nothing'}: {violation or 'no violation'} in {arguments.schedules} schedules")
    return violation is not None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", choices=sorted(LINES), help="remove a mechanism; violations must follow")
    parser.add_argument("--start", type=int, default=0, help="the first seed of several")
    parser.add_argument("--schedules", type=int, default=100, help="the number of schedules")
    parser.add_argument("--seed", type=int, help="run this schedule only, and print its trace")
    arguments = parser.parse_args()
    with simulated_node(shutil.which("node") or "node", arguments.without) as process:
        sys.exit(_run_all(run_with(process), arguments))
