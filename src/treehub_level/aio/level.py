"""``Level``: the asyncio façade. Its methods forward to ``blocking.Level``, the engine, and decide nothing."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Protocol

from .. import blocking
from ..backends.base import Backend
from ..blocking.server import carries_bytes, check_wait
from ..errors import ForbiddenError, NotOpenError, TransportError
from ..replication.driver import Finished, advance, exchange_of, transport_errors
from ..replication.messages import Reply, Request
from ..replication.session import LookAhead
from ..types import JSON, Change, Changes, Conflict, Mode, SyncReport
from .live import LiveSession
from .reads_writes import AsyncReadVerbs, AsyncWriteVerbs, Snapshot, documented_by
from .wait import commit_event, wait_for_commit
from .worker import Worker


class Exchanger(Protocol):
    """What `Level.sync` needs of a server: this one verb."""

    def exchange(self, request: dict[str, Any], /) -> Awaitable[dict[str, Any]] | dict[str, Any]:
        """See `Level.exchange`."""


@documented_by(blocking.level.ReadWriteVerbs)
class AsyncReadWriteVerbs(AsyncReadVerbs, AsyncWriteVerbs):
    """Reads and writes of the present, of a level or one of its sublevels."""

    _blocking: blocking.level.ReadWriteVerbs

    def snapshot(self) -> Snapshot:
        return Snapshot(self._blocking.snapshot(), self._worker)

    def sublevel(self, name: str, *, separator: str = "/") -> Sublevel:
        return Sublevel(self._blocking.sublevel(name, separator=separator), self._worker)


class Sublevel(AsyncReadWriteVerbs):
    """A namespace within a level. Made by `Level.sublevel`; open and closed with its level."""

    def __init__(self, twin: blocking.Sublevel, worker: Worker) -> None:
        self._blocking = twin
        self._worker = worker


@documented_by(blocking.Level)
class Level(AsyncReadWriteVerbs):
    """An ordered key-value store that synchronises. ``blocking.Level`` has the same verbs without ``await``.

    Args:
        name: A path for stores on disk, a label for memory, a URL for a server.
        backend: A registered name (``"leveldb"``, ``"plyvel"``, ``"memory"``, …), a `Backend` subclass, or any
            callable that
            takes the name and returns a `Backend`.
        mode: ``Level.NORMAL``, ``Level.SERVER`` or ``Level.CLIENT``.
        prefix: Where metadata lies: one or more characters from ``!`` to ``/``.
        key_encoding: ``"utf8"``: keys are ``str``. ``"bytes"``, in NORMAL mode: keys are ``bytes``.
        value_encoding: ``"json"``, or ``"bytes"`` in NORMAL mode: values are stored as they are.
        durable: Whether each write waits for the disk (fsync) unless it says otherwise.
        **backend_options: What the backend's constructor takes besides.

    Filters of ``query``, ``keys``, ``values``, ``count`` and ``scan`` run in a thread beside the event loop. Reads of
    single keys, and small writes that nothing holds up, take microseconds and run on the loop itself; a loop of them
    lets other tasks have their turns.

    Raises:
        ValueError: An unknown mode or encoding, or an illegal prefix.
        TypeError: An argument of a wrong type, or an option that the backend does not know.
        BackendNotFoundError: No backend of that name.
    """

    NORMAL: ClassVar[Mode] = Mode.NORMAL
    SERVER: ClassVar[Mode] = Mode.SERVER
    CLIENT: ClassVar[Mode] = Mode.CLIENT

    _blocking: blocking.Level
    _sync_lock: asyncio.Lock

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
        mode: Mode = Mode.NORMAL,
        prefix: str = "!",
        key_encoding: str = "utf8",
        value_encoding: str = "json",
        durable: bool = False,
        **backend_options: Any,
    ) -> None:
        self._forward_to(
            blocking.Level(
                name,
                backend=backend,
                mode=mode,
                prefix=prefix,
                key_encoding=key_encoding,
                value_encoding=value_encoding,
                durable=durable,
                **backend_options,
            )
        )

    def _forward_to(self, twin: blocking.Level) -> None:
        self._blocking = twin
        self._worker = Worker(twin._store)

    async def open(self) -> None:
        await self._worker.start(self._blocking.open, self._blocking.close)
        self._sync_lock = asyncio.Lock()  # a lock is one event loop's, and this may be another one than last time

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
        level._forward_to(await asyncio.to_thread(blocking.Level.adopt, name, mode=mode, progress=progress, **options))
        return level

    # ---------------------------------------------------------------------------------------------- facts

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
    def CID(self) -> int:  # noqa: N802  # the seed's name
        return self._blocking.cid

    async def info(self) -> dict[str, JSON]:
        return await self._worker.read(self._blocking.info)

    async def compact_range(self) -> None:
        await self._worker.read(self._blocking.compact_range)

    def __repr__(self) -> str:
        return repr(self._blocking).replace("blocking.", "")

    # --------------------------------------------------------------------------------------- SERVER mode

    async def changes(self, cid: int, limit: int | None = 100, *, wait: float = 0) -> Changes:
        return await wait_for_commit(
            self._blocking._store, lambda: self._worker.read(self._blocking._changes, cid, limit), check_wait(wait)
        )

    async def change(self, cid: int, changes: Any) -> int:
        return await self._worker.write(self._blocking.change, cid, changes)

    @carries_bytes("_reply")
    async def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        return await wait_for_commit(
            self._blocking._store, lambda: self._worker.write(self._blocking._exchange, request), check_wait(wait)
        )

    async def _reply(self, request: Request, *, wait: float = 0) -> Reply:
        return await wait_for_commit(
            self._blocking._store, lambda: self._worker.write(self._blocking._answer, request), check_wait(wait)
        )

    def watch(self, *, since: int | None = None) -> AsyncIterator[Change]:
        return self._watch(self._blocking._watch_start(since))

    async def _watch(self, since: int) -> AsyncIterator[Change]:
        with commit_event(self._blocking._store) as news:
            while True:
                news.clear()
                try:
                    page = await self._worker.read(self._blocking._watch_page, since)
                except NotOpenError:
                    return
                for change in page:
                    assert change.cid is not None
                    since = change.cid
                    yield change
                if not page:
                    await news.wait()

    async def compact_log(self, *, drop_deletes_before: int | None = None) -> int:
        return await self._worker.read(self._blocking.compact_log, drop_deletes_before=drop_deletes_before)

    # --------------------------------------------------------------------------------------- CLIENT mode

    async def apply(self, cid: int | Changes, changes: Any = None) -> int:
        return await self._worker.write(self._blocking.apply, cid, changes)

    async def dirty(self, limit: int | None = 100) -> list[Change]:
        return await self._worker.read(self._blocking.dirty, limit)

    async def clean(self, cid: int, keys: Iterable[Any]) -> int:
        return await self._worker.write(self._blocking.clean, cid, keys)

    async def pending(self) -> int:
        return await self._worker.read(self._blocking.pending)

    async def sync(
        self,
        server: Exchanger,
        *,
        pull: bool = True,
        push: bool = True,
        on_reset: str = "reset",
        progress: Callable[[SyncReport], object] | None = None,
    ) -> SyncReport:
        session, on_progress = self._blocking._session(pull, push, on_reset, progress, look_ahead=True)
        exchange = _exchange_of(server)
        async with self._sync_lock:
            report: SyncReport = await self._drive(session, exchange, on_progress)
        return report

    def live(self, server: Exchanger, *, interval: float = 10.0, on_reset: str = "reset") -> LiveSession:
        return LiveSession(self, _exchange_of(server), interval=interval, on_reset=on_reset)

    async def rebind(self, server: Exchanger) -> None:
        session = self._blocking._rebind_session()
        exchange = _exchange_of(server)
        async with self._sync_lock:
            await self._drive(session, exchange, lambda: None)

    async def _drive(self, session: Any, exchange: Callable[[Any], Any], on_progress: Callable[[], object]) -> Any:
        """The twin of ``blocking``'s ``converse``: steps run in the thread that writes, messages are awaited.

        A request that is known before the last reply is taken is under way meanwhile: then both sides work at a time.
        """

        async def carry(request: Request) -> Any:
            reply = exchange(request)
            return await reply if inspect.isawaitable(reply) else reply

        early: tuple[Request, asyncio.Task[Any]] | None = None
        try:
            request = await self._worker.write(advance, session)
            while not isinstance(request, Finished):
                try:
                    with transport_errors():
                        reply = await (early[1] if early is not None and early[0] is request else carry(request))
                except (TransportError, ForbiddenError) as error:
                    reply = error
                request = await self._worker.write(advance, session, reply)
                if isinstance(request, LookAhead):
                    early = request.request, asyncio.create_task(carry(request.request))
                    request = await self._worker.write(advance, session)
                on_progress()
            return request.result
        finally:
            if early is not None:
                early[1].cancel()
                await asyncio.gather(early[1], return_exceptions=True)
            with suppress(ValueError):  # cancelled while a thread runs it: that step ends, and the session with it
                session.close()

    async def conflicts(self) -> list[Conflict]:
        return await self._worker.read(self._blocking.conflicts)

    async def restore(self, conflict: Conflict) -> None:
        await self._worker.write(self._blocking.restore, conflict)

    async def dismiss(self, conflict: Conflict) -> None:
        await self._worker.write(self._blocking.dismiss, conflict)


def _exchange_of(server: Exchanger) -> Callable[..., Any]:
    exchange = exchange_of(server)
    if hasattr(server.exchange, "carrier") and not inspect.iscoroutinefunction(server.exchange):
        # A blocking twin: what it waits for would hold up the event loop.
        return lambda request: asyncio.to_thread(exchange, request)
    return exchange
