"""`Level`: the asyncio façade.

It forwards to its blocking counterpart, in threads where a call may block.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, overload

from .. import blocking
from ..backends.base import Backend
from ..blocking.level import NamespaceVerbs, ReadWriteVerbs, namespace_of
from ..blocking.watch import Unsubscribe, open_watch
from ..engine.namespace import Namespace
from ..engine.retention import Retention
from ..maintenance.copy import Progress
from ..replication.endpoint import answer, changes_after, check_wait
from ..replication.merging import OnConflict, require_on_conflict
from ..replication.messages import Reply, Request
from ..replication.rules import Check
from ..replication.session import rebind_session, sync_session
from ..replication.sync_locks import PATIENCE, sync_lock
from ..tracing import sync_span
from ..types import (
    JSON,
    BackupReport,
    Change,
    Changes,
    ClientInfo,
    Conflict,
    Followed,
    Found,
    Key,
    KeyRange,
    Mode,
    OnReset,
    SyncReport,
    Value,
    ViewKey,
    Written,
)
from .driver import AsyncExchanger, acquire, async_exchange_of, drive
from .live import LiveSession
from .reads_writes import AsyncReadVerbs, AsyncWriteVerbs, PastSnapshot, Snapshot, documented_by
from .transact import AsyncDecisionVerbs
from .wait import wait_for_commit
from .watch import AsyncChangeIterator, AsyncSubscription
from .worker import Worker

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    from ..ordered import Tuple

    Elements = TypeVarTuple("Elements")


@documented_by(ReadWriteVerbs)
class AsyncReadWriteVerbs(
    AsyncReadVerbs[Key, Value, Found],
    AsyncWriteVerbs[Key, Written],
    AsyncDecisionVerbs[Key, Value, Found, Written],
    Generic[Key, Value, Found, Written],
):
    """The verbs that a level, its sublevels and typed views share."""

    _blocking: ReadWriteVerbs[Key, Value, Found, Written]

    def snapshot(self, *, at: int | None = None) -> Snapshot[Key, Value, Found]:
        kind = Snapshot if at is None else PastSnapshot
        return kind(self._blocking.snapshot(at=at), self._worker)

    def watch(
        self,
        *,
        since: int | None = None,
        initial: bool = False,
        prefixes: Iterable[str] | None = None,
        timeout: float | None = None,
        **bounds: Unpack[KeyRange],
    ) -> AsyncChangeIterator:
        watch = open_watch(self._namespace, bounds, since=since, initial=initial, prefixes=prefixes)
        return AsyncChangeIterator(watch, self._worker, timeout)

    def on_change(
        self, callback: Callable[[Change], Any], *, prefix: str | None = None, prefixes: Iterable[str] | None = None
    ) -> Unsubscribe:
        if not callable(callback):
            raise TypeError(f"callback is a function or a coroutine function, not {callback!r:.80}")
        watch = open_watch(self._namespace, {"prefix": prefix}, prefixes=prefixes)
        return AsyncSubscription(AsyncChangeIterator(watch, self._worker), callback).unsubscribe


@documented_by(blocking.Typed)
class Typed(AsyncReadWriteVerbs[ViewKey, Value, Value | None, Value], Generic[Value, ViewKey]):
    """A view of a level whose values are instances of a type, or whose keys are tuples.

    Made by `Level.typed` and `Level.sublevel`. It has the verbs of a sublevel, and each of them,
    with its filter, takes and returns such values and keys. The store holds plain JSON.

    A value that is not an instance of the type raises `InvalidValueError`, and a stored one that
    does not fit raises `DecodeError`; both have ``key`` and ``path``.

    For annotations: ``Typed[Note]``, or ``Typed[Note, tuple[str, int]]`` with keys that are tuples.
    """

    def __init__(self, namespace: Namespace, worker: Worker) -> None:
        self._namespace = namespace
        self._blocking = blocking.Typed(namespace)
        self._worker = worker

    if not TYPE_CHECKING:

        def __class_getitem__(cls, types: Any) -> GenericAlias:
            return GenericAlias(cls, types)  # the second parameter has a default


@documented_by(NamespaceVerbs)
class AsyncNamespaceVerbs(AsyncReadWriteVerbs[str, Any, Any, JSON]):
    """The verbs that a level and its sublevels share: those for values and for namespaces."""

    @overload
    def sublevel(self, name: str, *, separator: str = "/", type: None = None, key: None = None) -> Sublevel: ...

    @overload
    def sublevel(self, name: str, *, separator: str = "/", type: type[Value], key: None = None) -> Typed[Value]: ...

    @overload
    def sublevel(
        self, name: str, *, separator: str = "/", type: None = None, key: type[Tuple[Unpack[Elements]]]
    ) -> Typed[Any, tuple[Unpack[Elements]]]: ...

    @overload
    def sublevel(
        self, name: str, *, separator: str = "/", type: type[Value], key: type[Tuple[Unpack[Elements]]]
    ) -> Typed[Value, tuple[Unpack[Elements]]]: ...

    def sublevel(self, name: str, *, separator: str = "/", type: Any = None, key: Any = None) -> Any:
        namespace = self._namespace.sublevel(name, separator)
        if type is None and key is None:
            return Sublevel(namespace, self._worker)
        return Typed(namespace.view("", type, key), self._worker)

    @overload
    def typed(self, model: type[Value], *, prefix: str = "", key: None = None) -> Typed[Value]: ...

    @overload
    def typed(
        self, model: type[Value], *, prefix: str = "", key: type[Tuple[Unpack[Elements]]]
    ) -> Typed[Value, tuple[Unpack[Elements]]]: ...

    def typed(self, model: Any, *, prefix: str = "", key: Any = None) -> Any:
        return Typed(self._namespace.typed(prefix, model, key), self._worker)


class Sublevel(AsyncNamespaceVerbs):
    """A namespace within a level.

    Made by `Level.sublevel`; open and closed together with its level.
    """

    def __init__(self, namespace: Namespace, worker: Worker) -> None:
        self._namespace = namespace
        self._blocking = blocking.Sublevel(namespace)
        self._worker = worker


@documented_by(blocking.Level)
class Level(AsyncNamespaceVerbs):
    """An ordered key-value store that synchronises.

    ``blocking.Level`` has the same verbs without ``await``.

    Args:
        name: A path for stores on disk, a label for memory, a URL for a database server.
        backend: A registered name (``"leveldb"``, ``"plyvel"``, ``"memory"``, …), a `Backend`
            subclass, or a callable that takes the name and returns a `Backend`.
        mode: ``Level.NORMAL``, ``Level.SERVER`` or ``Level.CLIENT``.
        prefix: The beginning of metadata keys: one or more characters from ``!`` to ``/``.
        key_encoding: ``"utf8"`` for ``str`` keys. In NORMAL mode also ``"bytes"``, for ``bytes``
            keys.
        value_encoding: ``"json"``. In NORMAL mode also ``"bytes"``: values are stored as they are.
        durable: True if each write waits for the fsync unless it says otherwise.
        read_only: True to open an existing store for reading only, also beside a process that has
            it open, and on a read-only medium. A LevelDB store is read as it was when it was
            opened. No file of the store is changed, and every verb that writes raises `StateError`.
        keep_base: True to remember, for each dirty key, the value that the server had when the key
            became dirty: see `Conflict.base`. CLIENT mode only. A write then reads the previous
            values of its keys. False remembers none, and voids those of earlier openings; ``None``
            does as the last opening did.
        audit: True to record the time, and the name of the caller if it is known, of every local
            write, not only of batches: see `Change.at`. Each write costs a record more. In SERVER
            mode only.
        check: A function that may refuse the changes of clients: ``check(call, changes, read)``. It
            runs inside the write transaction, once for changes that belong together, and raises
            `Refused` to refuse them. SERVER mode only.
        follow: The prefixes of the keys that a new client follows; ``None`` for all keys. For an
            existing store they must be those that it follows: leave the argument out, and call
            `follow` and `unfollow`. CLIENT mode only.
        retain: How long the log keeps changes that new clients do not need: see `Retention`. A
            thread compacts it while the level is open. ``None`` keeps everything. SERVER mode only.
        **backend_options: Further arguments of the backend's constructor.

    The filters of ``query``, ``keys``, ``values``, ``count`` and ``scan`` run in a thread beside
    the event loop. Reads of single keys, and small writes without other writers, take microseconds
    and run on the loop itself; a task that makes many of them yields to other tasks.

    Raises:
        ValueError: The mode, an encoding or the prefix is invalid, or ``keep_base`` is True or
            ``follow`` given in another mode than CLIENT; or ``follow`` has more than 256 prefixes,
            or more than 16 KiB of them.
        InvalidKeyError: No key can begin with a prefix in ``follow``.
        TypeError: An argument is of a wrong type, or the backend does not have such an option.
        BackendNotFoundError: There is no backend of that name.
    """

    NORMAL: ClassVar[Mode] = Mode.NORMAL
    SERVER: ClassVar[Mode] = Mode.SERVER
    CLIENT: ClassVar[Mode] = Mode.CLIENT

    _blocking: blocking.Level

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
        mode: Mode = Mode.NORMAL,
        prefix: str = "!",
        key_encoding: Literal["utf8", "bytes"] = "utf8",
        value_encoding: Literal["json", "bytes"] = "json",
        durable: bool = False,
        read_only: bool = False,
        keep_base: bool | None = False,
        audit: bool = False,
        check: Check | None = None,
        follow: Iterable[str] | None = None,
        retain: Retention | None = None,
        **backend_options: Any,
    ) -> None:
        self._use(
            blocking.Level(
                name,
                backend=backend,
                mode=mode,
                prefix=prefix,
                key_encoding=key_encoding,
                value_encoding=value_encoding,
                durable=durable,
                read_only=read_only,
                keep_base=keep_base,
                audit=audit,
                check=check,
                follow=follow,
                retain=retain,
                **backend_options,
            )
        )

    def _use(self, counterpart: blocking.Level) -> None:
        self._blocking = counterpart
        self._namespace = namespace_of(counterpart)
        self._store = self._namespace.store
        self._worker = Worker(self._store)

    async def open(self) -> None:
        await self._worker.start(self._blocking.open, self._blocking.close)

    async def close(self) -> None:
        await self._worker.stop(self._blocking.close)

    async def __aenter__(self) -> Level:
        await self.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self.is_open:
            await self.close()

    @classmethod
    async def adopt(
        cls,
        name: str | os.PathLike[str],
        *,
        mode: Mode,
        progress: Callable[[int], object] | None = None,
        **options: Any,
    ) -> Level:
        level = cls.__new__(cls)
        level._use(await asyncio.to_thread(blocking.Level.adopt, name, mode=mode, progress=progress, **options))
        return level

    # ---------------------------------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        return self._blocking.name

    @property
    def mode(self) -> Mode:
        return self._blocking.mode

    @property
    def is_open(self) -> bool:
        return self._worker.accepts and self._blocking.is_open

    @property
    def cid(self) -> int:
        return self._blocking.cid

    @property
    def CID(self) -> int:  # noqa: N802  # the name in `@treehub/level`
        return self._blocking.cid

    async def info(self) -> dict[str, Any]:
        return await self._worker.read(self._blocking.info)

    async def compact_range(self) -> None:
        await self._worker.read(self._blocking.compact_range)

    async def backup(
        self, path: str | os.PathLike[str], *, keep: int | None = None, progress: Progress | None = None
    ) -> BackupReport:
        is_cancelled = False

        def tell(step: str, done: int) -> None:
            # The thread goes on when this task is cancelled, and closing waits for it.
            if is_cancelled or not self._worker.accepts:
                raise self._store.not_open()
            if progress is not None:
                progress(step, done)

        try:
            return await self._worker.read(self._blocking.backup, path, keep=keep, progress=tell)
        finally:
            is_cancelled = True

    def __repr__(self) -> str:
        return repr(self._blocking).replace("blocking.", "")

    # ---------------------------------------------------------------------------------- SERVER mode

    async def changes(self, cid: int, limit: int | None = 100, *, wait: float = 0) -> Changes:
        return await wait_for_commit(
            self._store, lambda: self._worker.read(changes_after, self._store, cid, limit), check_wait(wait)
        )

    async def change(self, cid: int, changes: Any) -> int:
        return await self._worker.write(self._blocking.change, cid, changes)

    async def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        return (await self._answer(request, wait)).to_dict()

    async def exchange_encoded(self, request: Request, *, wait: float = 0) -> Reply:
        return await self._answer(request, wait)

    async def _answer(self, request: object, wait: float) -> Reply:
        self._store.server("exchange")  # the state and the mode come before the argument
        parsed = request if isinstance(request, Request) else Request.from_dict(request)
        run = self._worker.write if parsed.is_push else self._worker.read
        return await wait_for_commit(self._store, lambda: run(answer, self._store, parsed), check_wait(wait))

    async def history(self, key: str) -> list[Change]:
        return await self._worker.read(self._blocking.history, key)

    async def clients(self) -> list[ClientInfo]:
        return await self._worker.read(self._blocking.clients)

    async def forget_client(self, id: str) -> bool:
        return await self._worker.write(self._blocking.forget_client, id)

    async def compact_log(self, *, drop_deletes_before: int | None = None) -> int:
        return await self._worker.read(self._blocking.compact_log, drop_deletes_before=drop_deletes_before)

    # ---------------------------------------------------------------------------------- CLIENT mode

    async def apply(self, cid: int | Changes, changes: Any = None) -> int:
        return await self._worker.write(self._blocking.apply, cid, changes)

    async def dirty(self, limit: int | None = 100) -> list[Change]:
        return await self._worker.read(self._blocking.dirty, limit)

    async def clean(self, cid: int, keys: Iterable[Any]) -> int:
        return await self._worker.write(self._blocking.clean, cid, keys)

    @property
    def last_synced(self) -> datetime | None:
        return self._blocking.last_synced

    async def pending(self) -> int:
        return await self._worker.read(self._blocking.pending)

    async def sync(
        self,
        server: AsyncExchanger,
        *,
        pull: bool = True,
        push: bool = True,
        on_reset: OnReset = "reset",
        on_conflict: OnConflict | None = None,
        progress: Callable[[SyncReport], object] | None = None,
    ) -> SyncReport:
        report = SyncReport()
        session = sync_session(
            self._store.step,
            self._store.client("sync"),
            pull=pull,
            push=push,
            on_reset=on_reset,
            report=report,
            look_ahead=True,
            on_conflict=require_on_conflict(on_conflict),
        )
        exchange = async_exchange_of(server)
        async with self._worker.sync_lock:
            with sync_lock(self._store, "sync") as lock, sync_span(exchange, report):
                await acquire(lock, timeout=PATIENCE)
                return await drive(self._worker, session, exchange, lambda: progress and progress(report))

    def live(
        self,
        server: AsyncExchanger,
        *,
        interval: float = 10.0,
        on_reset: OnReset = "reset",
        on_conflict: OnConflict | None = None,
    ) -> LiveSession:
        exchange = async_exchange_of(server)
        return LiveSession(
            self._store, self._worker, exchange, interval=interval, on_reset=on_reset, on_conflict=on_conflict
        )

    async def rebind(self, server: AsyncExchanger) -> None:
        session = rebind_session(self._store.step, self._store.client("rebind"))
        exchange = async_exchange_of(server)
        async with self._worker.sync_lock:
            with sync_lock(self._store, "sync") as lock:
                await acquire(lock, timeout=PATIENCE)
                await drive(self._worker, session, exchange, lambda: None)

    async def follow(self, prefix: str, *prefixes: str) -> None:
        await self._worker.write(self._blocking.follow, prefix, *prefixes)

    async def unfollow(self, prefix: str, *prefixes: str) -> None:
        await self._worker.read(self._blocking.unfollow, prefix, *prefixes)

    async def followed(self) -> list[Followed]:
        return await self._worker.read(self._blocking.followed)

    async def conflicts(self, *, prefix: str | None = None) -> list[Conflict]:
        return await self._worker.read(self._blocking.conflicts, prefix=prefix)

    async def restore(self, conflict: Conflict) -> None:
        await self._worker.write(self._blocking.restore, conflict)

    async def dismiss(self, conflict: Conflict) -> None:
        await self._worker.write(self._blocking.dismiss, conflict)

    async def dismiss_all(self, *, prefix: str | None = None) -> int:
        return await self._worker.read(self._blocking.dismiss_all, prefix=prefix)


def internals(level: Level) -> tuple[Namespace, Worker]:
    """Return the namespace and the worker of a level, for the HTTP server."""
    return level._namespace, level._worker


def blocking_counterpart(level: Level) -> blocking.Level:
    """Return the blocking level that an asyncio level forwards to."""
    return level._blocking
