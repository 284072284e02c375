"""The product under schedules: the real client and server code, over stores that crash (T2).

    python -m tests.simulation.product --schedules 5000
    python -m tests.simulation.product --schedules 1000 --without casclean
    python -m tests.simulation.product --seed 42

Sizes are patched down, so that pages, pushes, sweeps and compactions end early. Messages cross as JSON in some
worlds, as NDJSON in others, and as they are within a process in the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from unittest import mock

import orjson

from treehub_level import blocking
from treehub_level.backends.base import Backend
from treehub_level.errors import SyncError, TransportError
from treehub_level.modes import Server as ServerMode
from treehub_level.replication import allowance as allowance_half
from treehub_level.replication import client as client_half
from treehub_level.replication import log as log_half
from treehub_level.replication import server as server_half
from treehub_level.replication import session as session_half
from treehub_level.replication.messages import Keys, Request
from treehub_level.replication.state import Resetting, State
from treehub_level.replication.wire import Received, reply_pieces
from treehub_level.testing import CrashError, CrashingDisk
from treehub_level.types import Change, Mode, SyncReport

from .runner import main
from .schedule import SWEPT, ClientUnderTest, Configuration, Content, InvariantError, Loss, ServerUnderTest, weigh

#: Bytes of a unit of weight.
_UNIT = 100


def _value(content: Content) -> Any:
    assert content is not None
    return [*content, "x" * (_UNIT * (weigh(content) - 1))]


def _content(change: Change | list[Any]) -> Content:
    return None if len(change) == 1 else (change[1][0], change[1][1])


class _Process:
    """A store, and the process that has it open."""

    mode: Mode

    def __init__(self, name: str, rng: random.Random, configuration: Configuration) -> None:
        self._rng = rng
        self._on = configuration
        self._calm = False
        self._name = name
        self.disk = CrashingDisk(seed=rng.getrandbits(32))
        self.level = self._open()

    def _open(self) -> blocking.Level:
        level = blocking.Level(self._name, backend=self.disk, mode=self.mode)
        level.open()
        return level

    def _boot(self) -> None:
        """Start over what the dead process has left."""
        self.level.close()
        self.level = self._open()

    @property
    def _backend(self) -> Backend:
        return self.level._store.backend

    def _crash(self, *, power: bool) -> None:
        self.disk.crash(power=power)
        self._boot()

    def _mortal(self, act: Callable[[], Any]) -> Any:
        """Do something, and perhaps die over it; ``None`` then."""
        if not self._calm and self._rng.random() < 0.04:
            self.disk.crash_at(self._rng.randint(1, 2), before=self._rng.random() < 0.5)
        try:
            return act()
        except CrashError:
            self._boot()
            return None
        except SyncError as error:
            raise InvariantError(f"client and server do not understand each other: {error}") from error
        finally:
            self.disk.crash_at(0)

    def calm(self) -> None:
        self._calm = True

    def write(self, key: str, content: Content) -> None:
        if content is None:
            self.level.delete(key)
        else:
            self.level.put(key, _value(content))

    def live(self) -> dict[str, Content]:
        return {key: (value[0], value[1]) for key, value in self.level.query()}

    def backup(self) -> Any:
        return self.disk.backup(self._name)

    def restore(self, backup: Any) -> None:
        self.disk.restore(self._name, backup)
        self._boot()


class Server(_Process):
    mode = Mode.SERVER

    def __init__(self, name: str, rng: random.Random, configuration: Configuration) -> None:
        super().__init__(name, rng, configuration)
        # Two mechanisms are removed from the messages, as JSON.
        self._road = "JSON" if configuration.without & {"hi", "keys_hi"} else rng.choice(["JSON", "NDJSON", "process"])

    @property
    def head(self) -> int:
        return self.level.cid

    def exchange(self, asked: Request) -> Any:
        if self._road != "JSON":
            answer = self._mortal(lambda: self.level._answer(asked)[0])
            if not answer or self._road == "process":
                return answer
            return Received(b"".join(reply_pieces(answer, in_lines=True)), in_lines=True)
        request = asked.to_dict()
        if "hi" in self._on.without:
            request = {**request, "hi": request["cid"]}
        reply = self._mortal(lambda: self.level.exchange(orjson.loads(orjson.dumps(request))))
        if "hi" in self._on.without and reply is not None and reply["kind"] == "page":
            reply["epochs"] = [epoch for epoch in reply["epochs"] if epoch[1] < reply["cid"]]
        if "keys_hi" in self._on.without and reply is not None and reply["kind"] == "keys":
            reply.update(head=reply["base"], epochs=[])
        return None if reply is None else orjson.loads(orjson.dumps(reply))

    def compact(self) -> None:
        self._mortal(self.level.compact_log)

    def forget_deletes(self, before: int) -> None:
        self._mortal(lambda: self.level.compact_log(drop_deletes_before=before))

    def restart(self, *, power: bool) -> None:
        self._crash(power=power)

    def log(self, after: int) -> dict[int, tuple[str, Content]]:
        records = log_half.read_log(self._backend, self.level._store.space, after, 1000, 1 << 30)
        changes = [(cid, orjson.loads(record)) for cid, record in records]
        return {cid: (change[0], _content(change)) for cid, change in changes}

    def epoch(self, cid: int) -> Hashable:
        mode = self.level._store.mode
        assert isinstance(mode, ServerMode)
        return client_half._epoch_of(mode.epochs(self._backend), cid)


class Client(_Process):
    mode = Mode.CLIENT

    def __init__(self, name: str, rng: random.Random, configuration: Configuration) -> None:
        super().__init__(name, rng, configuration)
        self._talk: Generator[Any, Any, Any] | None = None
        self.disk.honest = "durable_freeze" not in configuration.without

    @property
    def commits(self) -> int:
        return self.disk.commits(self._name)

    @property
    def cid(self) -> int:
        return self.level.cid

    @property
    def _state(self) -> State:
        return State.read(self._backend, self.level._store.space)

    @property
    def resetting(self) -> bool:
        return self._state.reset is not None

    @property
    def drained(self) -> bool:
        state = self._state
        return not (self.dirty() or state.push or state.reset)

    def epoch(self) -> Hashable:
        epochs = self._state.epochs
        return epochs[-1].id if epochs else None

    def dirty(self) -> dict[str, Content]:
        space = self.level._store.space
        rows = self._backend.scan(space.dirty_start, space.dirty_stop).fetch(1000)
        changes = [orjson.loads(record) for _, record in rows]
        return {change[0]: _content(change) for change in changes}

    def journal(self) -> list[Loss]:
        return [
            Loss(lost.key, _content(lost.local), SWEPT, 0)
            if lost.remote is None
            else Loss(lost.key, _content(lost.local), _content(lost.remote), lost.remote.cid or 0)
            for lost in self.level.conflicts()
        ]

    def pull_by_seed_verbs(self, server: Server) -> None:
        # A client that has no history to show must be taken at its word: its server loses nothing of what it saw.
        server.disk.sync()
        self.level.apply(server.level.changes(0, limit=None))

    def start(self) -> Any:
        if "inflight" in self._on.without:
            self._backend.write([(self.level._store.space.own_key("push"), None)])
        one_way = 0.5 if self._calm else self._rng.random()
        self._talk = session_half.session(
            self.level._store.step,
            self.level._client("sync"),
            pull=one_way > 0.1,
            push=one_way < 0.9,
            report=SyncReport(),
        )
        return self._carry(self._go_on(lambda talk: next(talk)))

    def receive(self, reply: Any) -> Any:
        return self._carry(self._go_on(lambda talk: talk.send(reply)))

    def _carry(self, request: Any) -> Any:
        """A request on its way, unless its push is too large for it now."""
        if not request or not request.changes or self._calm or self._rng.random() >= self._on.withdraw:
            return request
        return self._go_on(lambda talk: talk.throw(TransportError("too large", status=413)))

    def _go_on(self, act: Callable[[Generator[Any, Any, Any]], Any]) -> Any:
        talk = self._talk
        if talk is None:
            return None

        def go_on() -> Any:
            try:
                return act(talk)
            except (StopIteration, TransportError):  # the latter when all that is left is too large
                return None

        request = self._mortal(go_on)
        if request is None:
            self._talk = None
        return request

    def crash(self, *, power: bool) -> None:
        self._talk = None
        self._crash(power=power)

    def restore(self, backup: Any) -> None:
        self._talk = None
        super().restore(backup)


def _keys_without_sweep(receipt: Any, reply: Keys) -> None:
    reset = None if reply.end else Resetting(receipt._state.reset.common, "B", reply.keys[-1].decode())
    receipt._state = replace(receipt._state, reset=reset)


def _is_far_in_records(exchange: Any) -> bool:
    records = log_half.read_log(exchange._transaction, exchange._mode.space, exchange._request.cid, 1000, 1 << 30)
    return bool(len(records) > exchange._request.limit)


#: How a decision is recorded, before that is replaced here.
_RECORD: Final = server_half._Exchange._decision


def _forgetting_what_was_taken_back(exchange: Any, ack: Any) -> Any:
    key, record = _RECORD(exchange, ack)
    return (key, record) if ack.epoch else (key + b"/nowhere", record)


#: How each mechanism is removed from the real code. (The others are removed around it: `Server.exchange`, `Client`.)
REMOVALS: Final[dict[str, tuple[Any, str, Any]]] = {
    "casclean": (client_half, "_is_as_sent", lambda *_: True),
    "dedupe": (server_half, "read_decision", lambda *_: None),
    "skip": (client_half._Receipt, "_is_own", lambda *_: False),
    "respcas": (session_half, "answers", lambda *_: True),
    "epoch": (server_half, "last_agreed", lambda request, *_: request.hi),
    "drain": (client_half, "_may_freeze", lambda state: state.push is None and state.reset is None),
    "floor": (server_half, "read_floor", lambda *_: (0, 0)),
    "sweep": (client_half._Receipt, "keys", _keys_without_sweep),
    "rejected": (server_half._Exchange, "_unproven", lambda *_: []),
    "distance": (server_half._Exchange, "_is_far", _is_far_in_records),
    "withdraw": (server_half._Exchange, "_decision", _forgetting_what_was_taken_back),
    "whole": (server_half._Exchange, "_behind", lambda *_: iter(())),
}


@contextmanager
def world(
    rng: random.Random, configuration: Configuration
) -> Iterator[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]:
    """A server and its clients, all sizes patched down, mechanisms removed."""
    patches = [
        (client_half, "PAGE_CHANGES", configuration.limit),
        (client_half, "PUSH_CHANGES", configuration.push),
        (client_half, "SWEEP_KEYS", 3),
        (allowance_half, "_FETCH", 2),
        (session_half, "PATIENCE", 1000),  # messages are repeated at will here
        (server_half, "MAX_BYTES", _UNIT * configuration.page_weight),
        (server_half, "_READ", 2),
        (log_half, "COMPACTION_STEP", 3),
        *(REMOVALS[name] for name in configuration.without if name in REMOVALS),
    ]
    with ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value))
        clients = {name: Client(name, rng, configuration) for name in (f"c{i}" for i in range(configuration.clients))}
        yield Server("server", rng, configuration), clients


if __name__ == "__main__":
    main(world, __doc__ or "")
