"""The server and the clients of the product, each a store on a disk that crashes."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final, NamedTuple

import orjson

from treehub_level import blocking
from treehub_level.backends.base import Backend
from treehub_level.engine import log as change_log
from treehub_level.engine.access import Access
from treehub_level.engine.base_values import base_bounds
from treehub_level.engine.modes import Server as ServerMode
from treehub_level.engine.records import OwnRecords
from treehub_level.errors import (
    CIDMismatchError,
    ForbiddenError,
    LevelError,
    ProtocolError,
    Refused,
    StateError,
    StoreMismatchError,
    TransportError,
)
from treehub_level.replication import endpoint
from treehub_level.replication.client import read_consistent
from treehub_level.replication.following import unfollow_step
from treehub_level.replication.losses import loss_bounds
from treehub_level.replication.merging import OnConflict
from treehub_level.replication.messages import Reply, Request
from treehub_level.replication.records import read_state
from treehub_level.replication.reply_handler import epoch_at
from treehub_level.replication.retention import forget_step
from treehub_level.replication.session import LookAhead, rebind_session, sync_session
from treehub_level.replication.state import ClientState
from treehub_level.replication.wire import Received, reply_pieces
from treehub_level.testing import CrashError
from treehub_level.types import (
    JOURNAL,
    KEEP_SERVER,
    MISSING,
    Change,
    Changes,
    Conflict,
    Delete,
    Mode,
    Operation,
    Put,
    SyncReport,
)

from . import sides
from .configuration import Configuration
from .engines import Disk, MakeDisk
from .sides import SWEPT, UNKNOWN, Content, InvariantError, Loss, Merger, weigh

#: The number of bytes in a unit of weight.
UNIT = 200


def _value(content: Content) -> Any:
    assert content is not None
    return [*content, "x" * (UNIT * (weigh(content) - 1))]


def _content(change: Change | list[Any]) -> Content:
    return None if len(change) == 1 else (change[1][0], change[1][1])


def _loss(conflict: Conflict) -> Loss:
    won, local = conflict.remote, _content(conflict.local)
    if won is None:
        return Loss(conflict.key, local, SWEPT, 0, "reset")
    base = UNKNOWN if conflict.base is None else _content(conflict.base)
    # A change may lose with its group although the server's value is the one that it replaces.
    is_group = won.cid is None or base == _content(won)
    kind = "rejected" if is_group and conflict.kind != "refused" else conflict.kind
    return Loss(conflict.key, local, _content(won), won.cid or 0, kind, base)


def on_conflict_of(merger: Merger | None) -> OnConflict | None:
    """Return the function of an application that answers as a merger does."""
    if merger is None:
        return None

    def on_conflict(conflict: Conflict) -> Any:
        answer = merger(_loss(conflict))
        match answer:
            case None:
                return MISSING
            case str():
                return KEEP_SERVER if answer == sides.KEEP_SERVER else JOURNAL
        return _value(answer)

    return on_conflict


class MismatchReply(NamedTuple):
    """The refusal of a request that is for another server."""

    nonce: str


INVALID_CIDS: Final = ("x", "1", True, 1.5, -1)
INVALID_CHANGES: Final = ([["!", 99]], [["!1", 99]], "xy", [["k", 1], 2], None)


class InvalidCall(NamedTuple):
    """A call with invalid input that ``@treehub/level`` accepts, and that must be refused here.

    Attributes:
        verb: The name of the method.
        cid: The CID to pass; ``None`` for the right one.
        changes: The changes to pass, if the method takes some.
    """

    verb: str
    cid: Any
    changes: tuple[Any, ...] = ()

    def make(self, level: blocking.Level) -> None:
        right = level.cid + (self.verb == "apply")
        getattr(level, self.verb)(right if self.cid is None else self.cid, *self.changes)


SERVER_INVALID_CALLS: Final = [
    *(InvalidCall("changes", cid) for cid in INVALID_CIDS),
    *(InvalidCall("change", cid, ([["k", 1]],)) for cid in INVALID_CIDS),
    *(InvalidCall("change", None, (changes,)) for changes in INVALID_CHANGES),
]
CLIENT_INVALID_CALLS: Final = [
    *(InvalidCall("apply", cid, ([["k", 1]],)) for cid in INVALID_CIDS),
    *(InvalidCall("apply", None, (changes,)) for changes in INVALID_CHANGES),
]


class _Process:
    """A store, and the process that has it open."""

    mode: Mode
    invalid_calls: list[InvalidCall]

    disk: Disk
    #: True if this opening keeps base values.
    _keeps_base = False

    def __init__(self, name: str, rng: random.Random, configuration: Configuration, make_disk: MakeDisk) -> None:
        self._rng = rng
        self._options = configuration
        self._faults_stopped = False
        self._name = name
        self.disk = make_disk(rng.getrandbits(32))
        self.level = self._open()

    def _open(self) -> blocking.Level:
        level = blocking.Level(self._name, backend=self.disk, mode=self.mode, keep_base=self._keeps_base)
        level.open()
        return level

    def _restart(self) -> None:
        """Start a new process over the stored data."""
        self.level.close()
        self._choose_options()
        self._reopen()

    def _reopen(self) -> None:
        self.level = self._open()

    def _choose_options(self) -> None:
        """Choose the options of the next opening."""

    @property
    def _backend(self) -> Backend:
        return self.level._store.backend

    def _crash(self, *, power: bool) -> None:
        self.disk.crash(power=power)
        self._restart()

    def _maybe_crash(self, act: Callable[[], Any]) -> Any:
        """Run ``act``, with a random crash. Return its result; ``None`` after a crash."""
        if not self._faults_stopped and self._rng.random() < 0.04:
            self.disk.crash_at(self._rng.randint(1, 2), before=self._rng.random() < 0.5)
        try:
            return act()
        except CrashError:
            self._restart()
            return None
        except LevelError as error:
            raise InvariantError(f"the client or the server raised an error: {error}") from error
        finally:
            self.disk.crash_at(0)

    def send_invalid_input(self) -> None:
        call = self._rng.choice([*self.invalid_calls, None])
        before = self.backup()
        try:
            if call is None:
                self._open_in_other_mode()
            else:
                call.make(self.level)
        except (LevelError, TypeError, ValueError):
            pass
        else:
            raise InvariantError(f"{self._name} accepted invalid input: {call or 'it opened in another mode'}")
        if self.backup() != before:
            raise InvariantError(f"{self._name} refused invalid input, but its store has changed")

    def _open_in_other_mode(self) -> None:
        self.level.close()
        other = Mode.CLIENT if self.mode is Mode.SERVER else Mode.SERVER
        try:
            with blocking.Level(self._name, backend=self.disk, mode=other):
                pass
        finally:
            self._reopen()

    def stop_faults(self) -> None:
        self._faults_stopped = True

    def write(self, key: str, content: Content) -> None:
        if self._rng.random() < 0.3:
            self._write_by_batch(key, content)
        elif content is None:
            self.level.delete(key)
        else:
            self.level.put(key, _value(content))

    def _write_by_batch(self, key: str, content: Content) -> None:
        operation: Operation = {"type": "del", "key": key}
        if content is not None:
            operation = {"type": "put", "key": key, "value": _value(content)}
        ops = [operation]
        before = deepcopy(ops)
        self.level.batch(ops)
        if ops != before:
            raise InvariantError(f"batch() changed the caller's operations {before} to {ops}")

    def live(self) -> dict[str, Content]:
        return {key: (value[0], value[1]) for key, value in self.level.query()}

    def backup(self) -> Any:
        return self.disk.backup(self._name)

    def restore(self, backup: Any) -> None:
        self.disk.restore(self._name, backup)
        self._restart()


class Server(_Process):
    mode = Mode.SERVER
    invalid_calls = SERVER_INVALID_CALLS
    _refused_keys: frozenset[str] = frozenset()

    def __init__(self, name: str, rng: random.Random, configuration: Configuration, make_disk: MakeDisk) -> None:
        super().__init__(name, rng, configuration, make_disk)
        # Some mechanisms are removed by changing the messages as JSON.
        self._strategy.check = self._check
        as_json = configuration.without & {"max_head", "another server"}
        self._transport = "JSON" if as_json else rng.choice(["JSON", "NDJSON", "process"])

    @property
    def head(self) -> int:
        return self.level.cid

    def exchange(self, asked: Request, principal: str) -> Any:
        access, pressure = Access(principal), self._options.pressure
        room = UNIT if pressure and self._rng.random() < pressure else None
        if self._transport != "JSON":
            answer = self._answered(asked, lambda: endpoint.answer(self.level._store, asked, access, room)[0])
            if not isinstance(answer, Reply) or self._transport == "process":
                return answer
            return Received(b"".join(reply_pieces(answer, in_lines=True)), in_lines=True)
        request = asked.to_dict()
        if "max_head" in self._options.without:
            request["hi"] = request["cid"]
        if "another server" in self._options.without:
            request["server"] = None
        document = orjson.loads(orjson.dumps(request))
        answer = self._answered(asked, lambda: endpoint.answer(self.level._store, document, access, room)[0])
        if not isinstance(answer, Reply):
            return answer
        reply = answer.to_dict()
        if "max_head" in self._options.without and reply["kind"] == "page":
            reply["epochs"] = [epoch for epoch in reply["epochs"] if epoch[1] < reply["cid"]]
        if "another server" in self._options.without:
            reply["server"] = asked.server or reply["server"]
        return orjson.loads(orjson.dumps(reply))

    def _answered(self, asked: Request, act: Callable[[], Any]) -> Any:
        def answer() -> Any:
            try:
                return act()
            except StoreMismatchError:
                return MismatchReply(asked.nonce)

        return self._maybe_crash(answer)

    def refuse_keys(self, keys: frozenset[str]) -> None:
        self._refused_keys = keys

    def _reopen(self) -> None:
        super()._reopen()
        self._strategy.check = self._check

    def _check(self, call: Any, changes: Any, read: Any) -> None:
        if any(change.key in self._refused_keys for change in changes):
            raise Refused("the rule refuses this key")

    def write_together(self, changes: Sequence[tuple[str, Content]]) -> None:
        if len(changes) == 1:
            self.write(*changes[0])
        else:
            self.level.batch(
                [Delete(key) if content is None else Put(key, _value(content)) for key, content in changes]
            )

    def compact(self) -> None:
        self._maybe_crash(self.level.compact_log)

    def forget_deletes(self, before: int) -> None:
        self._maybe_crash(lambda: self.level.compact_log(drop_deletes_before=before))

    def retain(self, to: int, before: int, forgotten: Sequence[str]) -> None:
        compaction = change_log.Compaction(self._strategy, drop_deletes_before=before, to=to)
        self._maybe_crash(lambda: compaction.run(self.level._store.step))
        self._maybe_crash(lambda: self.level._store.step(forget_step(self._strategy, forgotten)))

    def restart(self, *, power: bool) -> None:
        self._crash(power=power)

    def replace(self) -> None:
        self.restore({})

    def log(self, after: int) -> dict[int, tuple[str, Content]]:
        records = change_log.read_log(self._backend, self._strategy, after, 1000, 1 << 30)
        changes = [(cid, orjson.loads(record)) for cid, record in records]
        return {cid: (change[0], _content(change)) for cid, change in changes}

    def epoch(self, cid: int) -> Hashable:
        return epoch_at(self._strategy.records.epochs(self._backend, self.level.cid), cid)

    @property
    def _strategy(self) -> ServerMode:
        mode = self.level._store.strategy
        assert isinstance(mode, ServerMode)
        return mode


class Client(_Process):
    mode = Mode.CLIENT
    invalid_calls = CLIENT_INVALID_CALLS
    _report = SyncReport()
    merger: Merger | None = None
    #: Openings that turn base values on or off write a record, durably: no crash loses it.
    _commits_of_openings = 0

    def __init__(self, name: str, rng: random.Random, configuration: Configuration, make_disk: MakeDisk) -> None:
        self._openings = random.Random(name)
        self._keeps_base = configuration.keep_base
        super().__init__(name, rng, configuration, make_disk)
        self._session: Generator[Any, Any, Any] | None = None
        self._nonce = ""
        self.limit = configuration.limit
        self._rebinds = self._has_wrong_server = False
        self.disk.honest = "durable_freeze" not in configuration.without

    def _choose_options(self) -> None:
        self._keeps_base = self._options.keep_base and self._openings.random() < 0.9

    def _reopen(self) -> None:
        before = self.disk.commits(self._name)
        super()._reopen()
        self._commits_of_openings += self.disk.commits(self._name) - before
        self._session, self._has_wrong_server = None, False

    @property
    def commits(self) -> int:
        return self.disk.commits(self._name) - self._commits_of_openings

    @property
    def cid(self) -> int:
        return self.level.cid

    @property
    def _state(self) -> ClientState:
        return read_state(self._backend, OwnRecords(self.level._store.space), self.level.cid)

    @property
    def resetting(self) -> bool:
        return self._state.following.is_resetting

    @property
    def drained(self) -> bool:
        state = self._state
        following = state.following
        is_pushed = not (self.dirty() or state.push or state.withheld_push or self._has_losses)
        return is_pushed and following.is_complete and not (following.is_evicting or self._has_wrong_server)

    @property
    def _has_losses(self) -> bool:
        return bool(self._backend.scan(*loss_bounds(self.level._store.space)).fetch(1))

    @property
    def is_consistent(self) -> bool:
        store = self.level._store
        return self.followed() == [""] and read_consistent(self._backend, OwnRecords(store.space), self.cid)

    def write_batch(self, changes: dict[str, Content]) -> None:
        self.level.batch(
            [Delete(key) if content is None else Put(key, _value(content)) for key, content in changes.items()]
        )

    def follow(self, prefix: str) -> None:
        self.level.follow(prefix)

    def unfollow(self, prefix: str) -> None:
        self.level._store.step(unfollow_step(self.level._store.client("unfollow"), prefix))

    def followed(self) -> list[str]:
        return [followed.prefix for followed in self.level.followed()]

    def complete(self) -> list[str]:
        return [followed.prefix for followed in self.level.followed() if followed.complete]

    def epoch(self) -> Hashable:
        epochs = self._state.epochs
        return epochs[-1].id if epochs else None

    def dirty(self) -> dict[str, Content]:
        space = self.level._store.space
        rows = self._backend.scan(space.dirty_start, space.dirty_stop).fetch(1000)
        changes = [orjson.loads(record) for _, record in rows]
        return {change[0]: _content(change) for change in changes}

    def base_values(self) -> dict[str, Content]:
        """See `ClientUnderTest.base_values`."""
        state, space = self._state, self.level._store.space
        bases = state.bases
        if bases is None or not bases.kept:
            return {}
        start, stop = base_bounds(space)
        rows = [(key[len(start) :], orjson.loads(row)) for key, row in self._backend.scan(start, stop).fetch(1000)]
        lost, _ = loss_bounds(space)
        return {
            key.decode(): _content([key.decode(), *row[1:]])
            for key, row in rows
            if row[0] == bases.generation and state.following.is_filled(key) and self._backend.get(lost + key) is None
        }

    def journal(self) -> list[Loss]:
        return [_loss(conflict) for conflict in self.level.conflicts()]

    def start(self) -> Any:
        if self._has_wrong_server:
            return self.rebind()
        if "frozen_push" in self._options.without:
            self._backend.write([(self.level._store.space.own_key("push"), None)])
        self._rebinds = False
        self._report = SyncReport()
        one_way = 0.5 if self._faults_stopped else self._rng.random()
        self._session = sync_session(
            self.level._store.step,
            self.level._store.client("sync"),
            pull=one_way > 0.1,
            push=one_way < 0.9,
            report=self._report,
            look_ahead=self._rng.random() < 0.5,
            on_conflict=on_conflict_of(self.merger),
        )
        return self._send(self._advance(lambda session: next(session)))

    def rebind(self) -> Any:
        self._rebinds = True
        self._report = SyncReport()
        self._session = rebind_session(self.level._store.step, self.level._store.client("rebind"))
        return self._advance(lambda session: next(session))

    def receive(self, reply: Any) -> Any:
        if isinstance(reply, MismatchReply):
            if reply.nonce != self._nonce:
                return None  # the refusal answers an earlier request
            return self._advance(lambda session: session.throw(StoreMismatchError("another server")))
        return self._send(self._advance(lambda session: session.send(reply)))

    def _send(self, request: Any) -> Any:
        """Return the request that is sent: another one if its push is too large or forbidden."""
        if not request or not request.keys or self._faults_stopped:
            return request
        if self._rng.random() < self._options.forbidden:
            request = self._advance(lambda session: session.throw(ForbiddenError("read only")))
            if "withheld_push" in self._options.without:
                self._backend.write([(self.level._store.space.own_key("aside"), None)])
        elif request.changes and self._rng.random() < self._options.withdraw:
            request = self._advance(lambda session: session.throw(TransportError("too large", status=413)))
        return request

    def _advance(self, act: Callable[[Generator[Any, Any, Any]], Any]) -> Any:
        session = self._session
        if session is None:
            return None

        def advance() -> Any:
            try:
                request = act(session)
                return next(session) if isinstance(request, LookAhead) else request
            except StopIteration:
                self._has_wrong_server = False
            except StoreMismatchError:
                self._has_wrong_server = True
            except (TransportError, ForbiddenError):
                pass  # the remaining changes are too large, or forbidden
            except ProtocolError:
                if not self._rebinds:
                    raise
                # A rebind sends one request, and has received a stale reply.

        request = self._maybe_crash(advance)
        self._nonce = request.nonce if request else ""
        if request is None:
            self._session = None
        elif not self._rebinds:
            request.limit = self.limit  # the session compares the reply with the same object
        return request

    # ------------------------------------------------------------------------------- manual sync

    @property
    def _is_idle(self) -> bool:
        state = self._state
        following = state.following
        is_filled = following.is_complete or not (state.cid or following.is_resetting)
        return is_filled and not (state.push or state.withheld_push or state.own_range or self._has_losses)

    def pull_all_manually(self, server: Server) -> None:
        # A client without a history to show is accepted as it is, so its server must not lose these
        # changes.
        server.disk.flush()
        self.level.apply(server.level.changes(0, limit=None))

    def pull_manually(self, server: Server) -> Changes | None:
        try:
            return server.level.changes(self.cid, limit=self._options.limit)
        except CIDMismatchError:
            return None

    def apply_manually(self, page: Changes) -> None:
        with suppress(CIDMismatchError, StateError):
            self.level.apply(page)

    def push_manually(self, server: Server) -> tuple[int, list[Change]] | None:
        changes = self.level.dirty(limit=self._options.push)
        if not changes or not self._is_idle or self.cid != server.head:
            return None
        try:
            return server.level.change(self.cid, changes), changes
        except Refused:  # of a rule: it judges manual pushes, too
            return None

    def clean_manually(self, pushed: tuple[int, list[Change]]) -> None:
        self.level.clean(*pushed)

    # ------------------------------------------------------------------------------------ events

    def restore_loss(self, loss: Loss) -> None:
        self.level.restore(self._conflict(loss))

    def dismiss_loss(self, loss: Loss) -> None:
        self.level.dismiss(self._conflict(loss))

    def _conflict(self, loss: Loss) -> Conflict:
        return next(conflict for conflict in self.level.conflicts() if _loss(conflict) == loss)

    def crash(self, *, power: bool) -> None:
        self._crash(power=power)
