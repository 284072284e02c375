"""The databases that one process serves: found by name, opened when asked for, closed when nobody does any more."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from ... import blocking
from ...aio.level import Level
from ...errors import LevelError, NotOpenError, StateError
from ...types import Mode
from .catalog import NAME, root_at
from .refusals import LATER, closing, no_database, too_many

#: Seconds for which it is remembered whether the root can be reached: anybody may ask.
_READY_SECONDS: Final = 1.0

logger = logging.getLogger("treehub_level.http")


@dataclass(slots=True, eq=False)
class _Served:
    """An open database.

    Attributes:
        level: The level.
        lent: Whether somebody else opened it, and will close it.
        users: Requests that use it at the moment.
        idle: Closes it, unless somebody comes.
    """

    level: Level
    lent: bool = False
    users: int = 0
    idle: asyncio.TimerHandle | None = None


class Hub:
    """Server stores, each under a name: 1 to 64 of ``a`` to ``z``, digits and, but not first, ``-`` and ``_``.

    Use it in an ``async with`` block; `create_app`'s own lifespan does, where the application runs alone.

    Args:
        root: Where server stores are found: those that are there, and those that appear there later. A directory, whose
            LevelDB stores are its sub-directories; with ``backend="sqlite"`` its files ``NAME.sqlite``. If it is a
            store itself, that one is served. With ``backend="postgres"`` a URL: the stores of its table.
        levels: Levels in SERVER mode that the program has opened, and closes, itself. They may be of any backend.
        create: Stores in ``root`` to make, if they are not there. Nobody can make one over HTTP.
        backend: The registered name of the backend that opens what is in ``root``.
        prefix: The prefix of those stores' metadata.
        max_open: The most databases of ``root`` to have open at a time.
        idle_seconds: How long a database of ``root`` stays open once nobody uses it.
        **options: What the backend's constructor takes besides, for the stores in ``root``.

    Raises:
        ValueError: A name that cannot be one, or a level of another mode.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        levels: Mapping[str, Level] | None = None,
        create: Iterable[str] = (),
        backend: str = "leveldb",
        prefix: str = "!",
        max_open: int = 32,
        idle_seconds: float = 300,
        **options: Any,
    ) -> None:
        self._root = None if root is None else root_at(root, {"backend": backend, "prefix": prefix, **options})
        self._create = [*create]
        self._lent = dict(levels or {})
        for name in (*self._create, *self._lent):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r:.80} cannot name a database: {NAME.pattern} is needed")
        for name, level in self._lent.items():
            if level.mode is not Mode.SERVER:
                raise ValueError(f"the level {name!r} is in {level.mode.name} mode, and only SERVER mode is served")
        self._max_open = max_open
        self._idle_seconds = idle_seconds
        self._served: dict[str, _Served] = {}
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reached: asyncio.Future[bool] | None = None
        self._reached_at = 0.0
        self.is_open = False
        #: Set once no new request is taken. Those that wait for something stop waiting then.
        self.stopping = asyncio.Event()

    # ------------------------------------------------------------------------------------------ life cycle

    async def __aenter__(self) -> Hub:
        if self.is_open:
            raise StateError("this hub is open already")
        await asyncio.to_thread(self.prepare)
        # Locks and events belong to one event loop, and this may be another one than last time.
        self._turn, self._released, self.stopping = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._reached = None
        self._served = {name: _Served(level, lent=True) for name, level in self._lent.items()}
        self.is_open = True
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.stop()
        self.is_open = False
        while any(served.users for served in self._served.values()):
            self._released.clear()
            await self._released.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)
        async with self._turn:
            for name in list(self._served):
                await self._close(name)

    def stop(self) -> None:
        """Refuse new requests, and let those that wait for something stop waiting. Stopping twice is harmless."""
        self.stopping.set()

    def prepare(self) -> None:
        """Make the stores that are to be made, and see whether all can be served. Opening the hub does it, too.

        Raises:
            StorageError: There is no such root, it cannot be reached, or a store cannot be made in it.
            LevelError: A store that is to be made is there already, and cannot be opened.
            ValueError: The root is a store whose own name cannot name a database.
        """
        if self._root is None:
            if self._create:
                raise ValueError("create= names stores in a root, and this hub has none")
            return
        self._root.prepare(making=bool(self._create))
        for name in self._create:
            with blocking.Level(mode=Mode.SERVER, **self._root.arguments(name)):
                pass

    # ---------------------------------------------------------------------------------------------- finding

    def names(self) -> list[str]:
        """The names of all stores that there are, sorted. Those that are no server stores are among them."""
        return sorted({*self._lent, *(() if self._root is None else self._root.names())})

    async def is_ready(self) -> bool:
        """Whether requests are taken, and the root can be reached: looked at once a second, however many ask."""
        if self.stopping.is_set() or not self.is_open:
            return False
        now = asyncio.get_running_loop().time()
        if self._reached is None or (self._reached.done() and now - self._reached_at > _READY_SECONDS):
            self._reached, self._reached_at = asyncio.ensure_future(asyncio.to_thread(self._reach)), now
        return await asyncio.shield(self._reached)

    def _reach(self) -> bool:
        try:
            if self._root is not None:
                self._root.check()
        except LevelError as error:
            logger.error("the stores cannot be reached: %s", error.code)
            return False
        return True

    @property
    def open_count(self) -> int:
        """How many databases are open."""
        return len(self._served)

    def _find(self, name: str) -> dict[str, Any]:
        """What makes a level of a server store that is there.

        Raises:
            RefusedError: There is none of that name.
        """
        found = self._root.find(name) if self._root is not None and NAME.fullmatch(name) else None
        if found is None:
            raise no_database()
        return found

    # ----------------------------------------------------------------------------------------------- using

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Level]:
        """An open database, which stays open for the length of the block.

        Raises:
            RefusedError: No database of that name, too many are open, or the hub is about to close, or not open.
            LevelError: The store cannot be opened.
        """
        if self.stopping.is_set():
            raise closing()
        if not self.is_open:
            logger.error(
                "the hub is not open: put `async with hub:` into the lifespan of the application that mounts it"
            )
            raise too_many(503, NotOpenError.code, "this server is not ready: its hub is not open", seconds=LATER)
        while (served := self._served.get(name)) is None:
            await self._opened(name)
        self._take(served)
        try:
            yield served.level
        finally:
            self._give_back(name, served)

    async def _opened(self, name: str) -> None:
        """Return once a database is open. It is opened once for all who wait, also if one of them leaves."""
        opening = self._opening.get(name)
        if opening is None:
            opening = self._opening[name] = self._begin(self._open(name))
            opening.add_done_callback(lambda _: self._opening.pop(name))
        await asyncio.shield(opening)

    async def _open(self, name: str) -> None:
        async with self._turn:
            if not self.is_open:
                raise closing()
            arguments = await asyncio.to_thread(self._find, name)
            await self._make_room()
            level = Level(mode=Mode.SERVER, **arguments)
            await level.open()
            self._rest(name, _Served(level))

    async def _make_room(self) -> None:
        ours = {name: served for name, served in self._served.items() if not served.lent}
        if len(ours) < self._max_open:
            return
        # The first one is the one that was used the longest time ago: see `_rest`.
        for name, served in ours.items():
            if not served.users:
                await self._close(name)
                return
        raise too_many(503, "LEVEL_BUSY", "too many databases are in use: try again later", seconds=LATER)

    def _take(self, served: _Served) -> None:
        served.users += 1
        if served.idle is not None:
            served.idle.cancel()
            served.idle = None

    def _give_back(self, name: str, served: _Served) -> None:
        served.users -= 1
        if not served.users:
            self._released.set()
            if not served.lent:
                self._rest(name, served)

    def _rest(self, name: str, served: _Served) -> None:
        """Nobody uses a database any more: it is the last one now to make room for another."""
        self._served.pop(name, None)
        self._served[name] = served
        loop = asyncio.get_running_loop()
        served.idle = loop.call_later(self._idle_seconds, lambda: self._begin(self._close_idle(name, served)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody waits for it
        return task

    async def _close_idle(self, name: str, served: _Served) -> None:
        async with self._turn:
            if self._served.get(name) is served and not served.users:
                await self._close(name)

    async def _close(self, name: str) -> None:
        served = self._served.pop(name)
        if served.idle is not None:
            served.idle.cancel()
        if served.lent:
            return
        try:
            await served.level.close()
        except LevelError as error:
            logger.error("database %s could not be closed: %s", name, error.code)
