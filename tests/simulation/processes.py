"""The product's server and clients, each a store on a disk that crashes, as schedules see them."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Hashable
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final, NamedTuple

import orjson

from treehub_level import blocking
from treehub_level.backends.base import Backend
from treehub_level.engine import log as log_half
from treehub_level.engine.modes import Server as ServerMode
from treehub_level.errors import (
    CIDMismatchError,
    ForbiddenError,
    LevelError,
    ProtocolError,
    StateError,
    StoreMismatchError,
    TransportError,
)
from treehub_level.replication import client as client_half
from treehub_level.replication.messages import Reply, Request
from treehub_level.replication.session import Ahead, rebind_session, sync_session
from treehub_level.replication.state import State
from treehub_level.replication.wire import Received, reply_pieces
from treehub_level.testing import CrashError
from treehub_level.types import Change, Changes, Conflict, Mode, SyncReport

from .configuration import Configuration
from .engines import Disk, MakeDisk
from .sides import SWEPT, Content, InvariantError, Loss, weigh

#: Bytes of a unit of weight.
UNIT = 100


def _value(content: Content) -> Any:
    assert content is not None
    return [*content, "x" * (UNIT * (weigh(content) - 1))]


def _content(change: Change | list[Any]) -> Content:
    return None if len(change) == 1 else (change[1][0], change[1][1])


def _loss(conflict: Conflict) -> Loss:
    won, local = conflict.remote, _content(conflict.local)
    return (
        Loss(conflict.key, local, SWEPT, 0) if won is None else Loss(conflict.key, local, _content(won), won.cid or 0)
    )


class Refused(NamedTuple):
    """The reply of a server to the request of a client of another."""

    nonce: str


NO_CIDS: Final = ("x", "1", True, 1.5, -1)
NO_CHANGES: Final = ([["!", 99]], [["!1", 99]], "xy", [["k", 1], 2], None)


class Trick(NamedTuple):
    """Something that the original let strangers do, and that must be refused.

    Attributes:
        verb: The verb that it is tried on.
        cid: The CID that is given; ``None`` for the right one.
        changes: The changes that are given with it, if the verb takes some.
    """

    verb: str
    cid: Any
    changes: tuple[Any, ...] = ()

    def play(self, level: blocking.Level) -> None:
        right = level.cid + (self.verb == "apply")
        getattr(level, self.verb)(right if self.cid is None else self.cid, *self.changes)


SERVER_TRICKS: Final = [
    *(Trick("changes", cid) for cid in NO_CIDS),
    *(Trick("change", cid, ([["k", 1]],)) for cid in NO_CIDS),
    *(Trick("change", None, (changes,)) for changes in NO_CHANGES),
]
CLIENT_TRICKS: Final = [
    *(Trick("apply", cid, ([["k", 1]],)) for cid in NO_CIDS),
    *(Trick("apply", None, (changes,)) for changes in NO_CHANGES),
]


class _Process:
    """A store, and the process that has it open."""

    mode: Mode
    tricks: list[Trick]

    disk: Disk

    def __init__(self, name: str, rng: random.Random, configuration: Configuration, make_disk: MakeDisk) -> None:
        self._rng = rng
        self._on = configuration
        self._calm = False
        self._name = name
        self.disk = make_disk(rng.getrandbits(32))
        self.level = self._open()

    def _open(self) -> blocking.Level:
        level = blocking.Level(self._name, backend=self.disk, mode=self.mode)
        level.open()
        return level

    def _boot(self) -> None:
        """Start over what the dead process has left."""
        self.level.close()
        self._start_anew()

    def _start_anew(self) -> None:
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
        except LevelError as error:
            raise InvariantError(f"client and server do not understand each other: {error}") from error
        finally:
            self.disk.crash_at(0)

    def intrude(self) -> None:
        trick = self._rng.choice([*self.tricks, None])
        before = self.backup()
        try:
            if trick is None:
                self._open_as_another()
            else:
                trick.play(self.level)
        except (LevelError, TypeError, ValueError):
            pass
        else:
            raise InvariantError(f"{self._name} let a stranger in: {trick or 'it was opened in another mode'}")
        if self.backup() != before:
            raise InvariantError(f"a stranger was refused by {self._name}, and has left something behind")

    def _open_as_another(self) -> None:
        self.level.close()
        other = Mode.CLIENT if self.mode is Mode.SERVER else Mode.SERVER
        try:
            with blocking.Level(self._name, backend=self.disk, mode=other):
                pass
        finally:
            self._start_anew()

    def calm(self) -> None:
        self._calm = True

    def write(self, key: str, content: Content) -> None:
        if self._rng.random() < 0.3:
            self._write_by_batch(key, content)
        elif content is None:
            self.level.delete(key)
        else:
            self.level.put(key, _value(content))

    def _write_by_batch(self, key: str, content: Content) -> None:
        operation = {"type": "del", "key": key}
        if content is not None:
            operation = {"type": "put", "key": key, "value": _value(content)}
        ops = [operation]
        before = deepcopy(ops)
        self.level.batch(ops)
        if ops != before:
            raise InvariantError(f"the caller's operations {before} were made {ops}")

    def live(self) -> dict[str, Content]:
        return {key: (value[0], value[1]) for key, value in self.level.query()}

    def backup(self) -> Any:
        return self.disk.backup(self._name)

    def restore(self, backup: Any) -> None:
        self.disk.restore(self._name, backup)
        self._boot()


class Server(_Process):
    mode = Mode.SERVER
    tricks = SERVER_TRICKS

    def __init__(self, name: str, rng: random.Random, configuration: Configuration, make_disk: MakeDisk) -> None:
        super().__init__(name, rng, configuration, make_disk)
        # Some mechanisms are removed from the messages, as JSON.
        as_json = configuration.without & {"hi", "keys_hi", "another server"}
        self._road = "JSON" if as_json else rng.choice(["JSON", "NDJSON", "process"])

    @property
    def head(self) -> int:
        return self.level.cid

    def exchange(self, asked: Request) -> Any:
        if self._road != "JSON":
            answer = self._answered(asked, lambda: self.level.exchange_encoded(asked))
            if not isinstance(answer, Reply) or self._road == "process":
                return answer
            return Received(b"".join(reply_pieces(answer, in_lines=True)), in_lines=True)
        request = asked.to_dict()
        if "hi" in self._on.without:
            request["hi"] = request["cid"]
        if "another server" in self._on.without:
            request["server"] = None
        reply = self._answered(asked, lambda: self.level.exchange(orjson.loads(orjson.dumps(request))))
        if not isinstance(reply, dict):
            return reply
        if "hi" in self._on.without and reply["kind"] == "page":
            reply["epochs"] = [epoch for epoch in reply["epochs"] if epoch[1] < reply["cid"]]
        if "keys_hi" in self._on.without and reply["kind"] == "keys":
            reply.update(head=reply["base"], epochs=[])
        if "another server" in self._on.without:
            reply["server"] = asked.server or reply["server"]
        return orjson.loads(orjson.dumps(reply))

    def _answered(self, asked: Request, act: Callable[[], Any]) -> Any:
        def answer() -> Any:
            try:
                return act()
            except StoreMismatchError:
                return Refused(asked.nonce)

        return self._mortal(answer)

    def compact(self) -> None:
        self._mortal(self.level.compact_log)

    def forget_deletes(self, before: int) -> None:
        self._mortal(lambda: self.level.compact_log(drop_deletes_before=before))

    def restart(self, *, power: bool) -> None:
        self._crash(power=power)

    def replace(self) -> None:
        self.restore({})

    def log(self, after: int) -> dict[int, tuple[str, Content]]:
        records = log_half.read_log(self._backend, self.level._store.space, after, 1000, 1 << 30)
        changes = [(cid, orjson.loads(record)) for cid, record in records]
        return {cid: (change[0], _content(change)) for cid, change in changes}

    def epoch(self, cid: int) -> Hashable:
        mode = self.level._store.strategy
        assert isinstance(mode, ServerMode)
        return client_half._epoch_of(mode.epochs(self._backend), cid)


class Client(_Process):
    mode = Mode.CLIENT
    tricks = CLIENT_TRICKS

    def __init__(self, name: str, rng: random.Random, configuration: Configuration, make_disk: MakeDisk) -> None:
        super().__init__(name, rng, configuration, make_disk)
        self._talk: Generator[Any, Any, Any] | None = None
        self._nonce = ""
        self._rebinds = self._is_refused = False
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
        return not (self.dirty() or state.push or state.withheld_push or state.reset or self._is_refused)

    def epoch(self) -> Hashable:
        epochs = self._state.epochs
        return epochs[-1].id if epochs else None

    def dirty(self) -> dict[str, Content]:
        space = self.level._store.space
        rows = self._backend.scan(space.dirty_start, space.dirty_stop).fetch(1000)
        changes = [orjson.loads(record) for _, record in rows]
        return {change[0]: _content(change) for change in changes}

    def journal(self) -> list[Loss]:
        return [_loss(conflict) for conflict in self.level.conflicts()]

    def start(self) -> Any:
        if self._is_refused:
            return self.rebind()
        if "inflight" in self._on.without:
            self._backend.write([(self.level._store.space.own_key("push"), None)])
        self._rebinds = False
        one_way = 0.5 if self._calm else self._rng.random()
        self._talk = sync_session(
            self.level._store.step,
            self.level._store.client("sync"),
            pull=one_way > 0.1,
            push=one_way < 0.9,
            report=SyncReport(),
            look_ahead=self._rng.random() < 0.5,
        )
        return self._carry(self._go_on(lambda talk: next(talk)))

    def rebind(self) -> Any:
        self._rebinds = True
        self._talk = rebind_session(self.level._store.step, self.level._store.client("rebind"))
        return self._go_on(lambda talk: next(talk))

    def receive(self, reply: Any) -> Any:
        if isinstance(reply, Refused):
            if reply.nonce != self._nonce:
                return None  # it is late, and who carries messages does not mistake one error for another
            return self._go_on(lambda talk: talk.throw(StoreMismatchError("another server")))
        return self._carry(self._go_on(lambda talk: talk.send(reply)))

    def _carry(self, request: Any) -> Any:
        """A request on its way, unless its push is too large for it now, or forbidden."""
        if not request or not request.keys or self._calm:
            return request
        if self._rng.random() < self._on.forbidden:
            request = self._go_on(lambda talk: talk.throw(ForbiddenError("read only")))
            if "aside" in self._on.without:
                self._backend.write([(self.level._store.space.own_key("aside"), None)])
        elif request.changes and self._rng.random() < self._on.withdraw:
            request = self._go_on(lambda talk: talk.throw(TransportError("too large", status=413)))
        return request

    def _go_on(self, act: Callable[[Generator[Any, Any, Any]], Any]) -> Any:
        talk = self._talk
        if talk is None:
            return None

        def go_on() -> Any:
            try:
                request = act(talk)
                return next(talk) if isinstance(request, Ahead) else request
            except StopIteration:
                self._is_refused = False
            except StoreMismatchError:
                self._is_refused = True
            except (TransportError, ForbiddenError):
                pass  # all that is left is too large, or forbidden
            except ProtocolError:
                if not self._rebinds:
                    raise
                # It asks once, and got a late reply to something else.

        request = self._mortal(go_on)
        self._nonce = request.nonce if request else ""
        if request is None:
            self._talk = None
        return request

    # ---------------------------------------------------------------------------------------- the seed's verbs

    @property
    def _is_idle(self) -> bool:
        state = self._state
        return not (state.push or state.withheld_push or state.own_range or state.reset)

    def pull_by_seed_verbs(self, server: Server) -> None:
        # A client that has no history to show must be taken at its word: its server loses nothing of what it saw.
        server.disk.flush()
        self.level.apply(server.level.changes(0, limit=None))

    def pull_by_hand(self, server: Server) -> Changes | None:
        try:
            return server.level.changes(self.cid, limit=self._on.limit)
        except CIDMismatchError:
            return None

    def apply_by_hand(self, page: Changes) -> None:
        with suppress(CIDMismatchError, StateError):
            self.level.apply(page)

    def push_by_hand(self, server: Server) -> tuple[int, list[Change]] | None:
        changes = self.level.dirty(limit=self._on.push)
        if not changes or not self._is_idle or self.cid != server.head:
            return None
        return server.level.change(self.cid, changes), changes

    def clean_by_hand(self, pushed: tuple[int, list[Change]]) -> None:
        self.level.clean(*pushed)

    # ------------------------------------------------------------------------------------------ what happens

    def restore_loss(self, loss: Loss) -> None:
        self.level.restore(self._conflict(loss))

    def dismiss_loss(self, loss: Loss) -> None:
        self.level.dismiss(self._conflict(loss))

    def _conflict(self, loss: Loss) -> Conflict:
        return next(conflict for conflict in self.level.conflicts() if _loss(conflict) == loss)

    def _start_anew(self) -> None:
        super()._start_anew()
        self._talk, self._is_refused = None, False

    def crash(self, *, power: bool) -> None:
        self._crash(power=power)
