"""The databases that one process serves, in a reference-counted cache of open levels."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ...aio.level import Level, internals
from ...aio.wait import set_within
from ...engine.retention import Retention
from ...errors import LevelError, ModeMismatchError, NotOpenError, StateError, StorageError
from ...replication.rules import Check, require_check
from ...types import BackupReport, Change, KeyRange, Mode
from .administration import Administrator, check_database_name, create_store
from .backups import KEEP, Backups, back_up
from .catalog import DATABASE_NAME, create_catalog
from .dropped import DroppedDatabase
from .hub_watch import DatabaseWatch
from .periodic import PeriodicTask, PeriodicTasks
from .quotas import Quota
from .refusals import RETRY_LATER, RefusedError, database_not_found, retry_later, server_closing
from .retention import HubRetention
from .stop_signals import on_stop_signals
from .subscriptions import Subscription, Subscriptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Seconds for which the result of a reachability check is reused, since any client may ask for one.
_PROBE_SECONDS: Final = 1.0
#: Seconds for which opening a database waits until another one is no longer in use.
_ROOM_SECONDS: Final = 1.0
#: Seconds after which a watched database that was closed to make room is looked at again.
_RECHECK_SECONDS: Final = 15.0
#: Seconds between two removals of dropped databases whose time is over.
_REMOVE_SECONDS: Final = 3600.0

logger = logging.getLogger("treehub_level.http")


@dataclass(slots=True, eq=False)
class _OpenDatabase:
    """An open database in the cache.

    Attributes:
        level: The level.
        is_external: True if the program passed the level to the hub. The program closes it.
        references: The number of requests that use the level.
        is_lost: True if the store was deleted or moved while it was open.
        idle_timer: Closes the level after the idle time; ``None`` while the level is in use. A
            watched level stays open, unless the hub needs room.
    """

    level: Level
    is_external: bool = False
    references: int = 0
    is_lost: bool = False
    idle_timer: asyncio.TimerHandle | None = None


class Hub:
    """Databases by name: server stores that are opened on demand and closed when idle.

    A name has 1 to 64 characters of ``a`` to ``z``, ``0`` to ``9``, ``-`` and ``_``, and begins
    with a letter or digit. Use a hub in an ``async with`` block, or let the lifespan of
    `create_app` open and close it.

    Args:
        root: The location of the stores, looked up at each request, so new stores are served, too.
            By default a directory, whose sub-directories are LevelDB stores. With
            ``backend="sqlite"`` a directory with files ``NAME.sqlite``. Either may also be a single
            store. With ``backend="postgres"`` the URL of a database, with all stores in its table.
        levels: Further levels in SERVER mode, of any backend, by name. The program opens and closes
            them.
        create: Names of stores to create in ``root`` unless they exist. Clients cannot create
            stores over HTTP.
        backend: The registered name of the backend for ``root``.
        prefix: The prefix of metadata keys in the stores of ``root``.
        max_open: The most databases of ``root`` that are open at a time. Watches and long polls do
            not keep a database open: to make room, the hub closes the one that was used least
            recently, watched or not.
        idle_seconds: Seconds after which an unused database of ``root`` is closed.
        create_on_demand: True to create a database when a caller first uses it whose rights name
            that very database, and let it write: see `Identity`. ``"*"`` names none.
        check: The ``check`` of the stores in ``root`` (see `Level`): a function for all of them, or
            a function for each name. A level in ``levels`` has its own.
        retain: How long the stores in ``root`` keep their logs. The hub compacts them in turn, also
            those that no client uses. ``None`` keeps everything.
        backup_to: The folder for backups that operators ask for over HTTP: see `Backups`. ``None``
            for none. It must not be in ``root``.
        keep_backups: The number of backups to keep there of each database.
        quota: The `Quota` of each database, or one for each name, for the writes of clients.
        **options: Further arguments of the backend for ``root``.

    Raises:
        ValueError: A name is invalid, a level is not in SERVER mode, there is a check for one of
            ``levels``, or databases cannot be created on demand for lack of a root.
        TypeError: A check is no function, or an async one.
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
        create_on_demand: bool = False,
        check: Check | Mapping[str, Check] | None = None,
        retain: Retention | None = None,
        backup_to: str | os.PathLike[str] | None = None,
        keep_backups: int = KEEP,
        quota: Quota | Mapping[str, Quota] | None = None,
        **options: Any,
    ) -> None:
        self._catalog = (
            None if root is None else create_catalog(root, {"backend": backend, "prefix": prefix, **options})
        )
        self._create = [*create]
        self._external_levels = dict(levels or {})
        for name in (*self._create, *self._external_levels):
            if not DATABASE_NAME.fullmatch(name):
                raise ValueError(f"{name!r:.80} is not a valid database name: use {DATABASE_NAME.pattern}")
        for name, level in self._external_levels.items():
            if level.mode is not Mode.SERVER:
                raise ValueError(f"the level {name!r} is in {level.mode.name} mode: open it in SERVER mode to serve it")
        self._checks = {name: require_check(fn) for name, fn in check.items()} if isinstance(check, Mapping) else {}
        self._check = None if isinstance(check, Mapping) else require_check(check)
        for name in self._checks:
            if name in self._external_levels or not DATABASE_NAME.fullmatch(name):
                raise ValueError(f"check names {name!r:.80}, which is not the name of a store in root")
        if create_on_demand and root is None:
            raise ValueError("create_on_demand creates databases in a root, and this hub has none: give it a root")
        self.quotas: Mapping[str, Quota] | Quota | None = dict(quota) if isinstance(quota, Mapping) else quota
        self._creates_on_demand = create_on_demand
        #: The folder for backups; ``None`` without one.
        self.backups = None if backup_to is None else Backups(backup_to, keep_backups)
        if self.backups is not None and root is not None:
            self.backups.check_outside(os.fspath(root))
        #: The databases that are being deleted or renamed. No request may use them.
        self._withdrawn: set[str] = set()
        self._max_open = max_open
        self._idle_seconds = idle_seconds
        #: The cache. Idle databases are in the order of their last use, least recently used first.
        self._databases: dict[str, _OpenDatabase] = {}
        #: Held while a database is opened or closed.
        self._lock = asyncio.Lock()
        self._released = asyncio.Event()
        #: The number of requests that may still use databases.
        self._admitted = 0
        self._subscriptions = Subscriptions(self._start_task)
        self._rechecks: dict[str, asyncio.TimerHandle] = {}
        #: The tasks that open a database, and those that may create it, too.
        self._opening: dict[tuple[str, bool], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe: asyncio.Future[bool] | None = None
        self._probed_at = 0.0
        #: The work that is repeated for each database while the hub is open.
        self.tasks = PeriodicTasks(self.names)
        #: The retention of the stores in the root, at work; ``None`` without one.
        self.retention = None if retain is None else HubRetention(self, retain)
        if self.retention is not None:
            self.tasks.add(self.retention.task)
        #: The number of databases that wait for room to be opened.
        self._waiting_for_room = 0
        self.is_open = False
        #: Set once the hub refuses new requests. Long polls and watches end then.
        self.stopping = asyncio.Event()

    # ---------------------------------------------------------------------------------- life cycle

    async def __aenter__(self) -> Hub:
        if self.is_open:
            raise StateError("this hub is open already")
        await asyncio.to_thread(self.prepare)
        # Locks and events belong to one event loop, and a hub may be reopened in another one.
        self._lock, self._released, self.stopping = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._probe = None
        self._databases = {}
        self._subscriptions = Subscriptions(self._start_task)
        for name, level in self._external_levels.items():
            self._add(name, _OpenDatabase(level, is_external=True))
        self.is_open = True
        self.tasks.start()
        self._start_task(self._remove_dropped())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.stop()
        await self.tasks.wait_closed()
        while self._admitted or any(database.references for database in self._databases.values()):
            self._released.clear()
            await self._released.wait()
        self.is_open = False
        for recheck in self._rechecks.values():
            recheck.cancel()
        self._rechecks.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)
        async with self._lock:
            for name in list(self._databases):
                await self._close(name)

    def stop(self) -> None:
        """Refuse new requests, and end long polls and watches. Further calls have no effect.

        The watches include those by which a program follows a database of ``root`` (`use`,
        `Level.watch`). Call this on the event loop of the hub.
        """
        self.stopping.set()
        self.tasks.cancel()
        for database in self._databases.values():
            if not database.is_external:
                internals(database.level)[0].store.end_watches()

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Call `stop` as soon as SIGTERM or SIGINT arrives, for the length of the block.

        ASGI servers tell an application that they stop only once all requests have ended, and a
        long poll or a watch ends only once the hub stops. Use it in the lifespan of an application,
        around its ``yield``. The handlers that were set before are called, too, and are set again
        at the end of the block. Outside of the main thread, where Python permits no handlers, it
        does nothing.
        """
        with on_stop_signals(self.stop):
            yield

    def prepare(self) -> None:
        """Create the stores named by ``create``, and check the root. Opening the hub calls this.

        Raises:
            StorageError: The root is missing or cannot be reached, or a store cannot be created.
            LevelError: A store named by ``create`` exists and cannot be opened.
            ValueError: The root is a store whose name is not a valid database name, or ``create``
                names stores and there is no root.
        """
        if self._catalog is None:
            if self._create:
                raise ValueError("create= names stores in a root, and this hub has none: give it a root")
            return
        self._catalog.prepare(creating=bool(self._create))
        for name in self._create:
            create_store(self._catalog, name)

    def check_root(self) -> None:
        """Check the root as `prepare` does, without creating a directory or a store.

        Raises:
            StorageError: The root is missing or cannot be reached.
            ValueError: The root is a store whose name is not a valid database name.
        """
        if self._catalog is not None:
            self._catalog.prepare(creating=bool(self._create), dry_run=True)

    # ------------------------------------------------------------------------------ administration

    async def create(self, name: str) -> None:
        """Create a database beside the running ones.

        Raises:
            ValueError: The name is invalid, or the hub has no root.
            StateError: There is a store of that name, or the hub is not open.
            StorageError: It cannot be created.
        """
        administrator = self._administrator_of(name)
        async with self._lock:
            await asyncio.to_thread(administrator.create, name)

    async def delete(self, name: str) -> None:
        """Delete a database with its data, beside the running ones. Only `drop` can be undone.

        Requests in progress end first: writes are completed, long polls and watches get
        ``LEVEL_DATABASE_NOT_FOUND``, as all later requests do. Other processes that serve the same
        store must have closed it.

        Raises:
            ValueError: The name is invalid, that of one of ``levels``, or the hub has no root.
            StateError: The hub is not open, or is deleting or renaming the database.
            RefusedError: There is no such database (404).
            LockedError: Another process has it open.
            StorageError: It cannot be deleted.
        """
        administrator = self._administrator_of(name)
        async with self._withdraw(name):
            await asyncio.to_thread(administrator.delete, name)

    async def drop(self, name: str) -> DroppedDatabase:
        """Drop a database, beside the running ones: `undrop` restores it within a day.

        To clients it is gone at once, as after `delete`. Callers that may create it on demand get
        404 until it is removed, too. The hub removes it a day later.

        Raises:
            ValueError, StateError, RefusedError, LockedError, StorageError: As `delete`.
        """
        administrator = self._administrator_of(name)
        async with self._withdraw(name):
            return await asyncio.to_thread(administrator.drop, name)

    async def undrop(self, name: str, *, to: str | None = None) -> str:
        """Restore the database that was dropped last under a name. It is the same store as before.

        Args:
            name: The name that it had.
            to: Its new name; ``None`` for the old one.

        Returns:
            Its name.

        Raises:
            ValueError: A name is invalid, that of one of ``levels``, or the hub has no root.
            StateError: There is a store of the new name, or the hub is not open.
            RefusedError: There is no such dropped database (404).
            StorageError: It cannot be restored.
        """
        administrator = self._administrator_of(name if to is None else to)
        async with self._lock:
            return await asyncio.to_thread(administrator.undrop, name, to)

    def dropped(self) -> list[DroppedDatabase]:
        """Return the databases that can be restored, those dropped first at first. It blocks."""
        return [] if self._catalog is None else Administrator(self._catalog).dropped()

    async def _remove_dropped(self) -> None:
        """Remove the databases that were dropped a day ago, now and every hour."""
        while self._catalog is not None and not self.stopping.is_set():
            try:
                for dropped in await asyncio.to_thread(Administrator(self._catalog).remove_expired):
                    logger.info("removed the database %s, which was dropped a day ago", dropped.name)
            except LevelError as error:
                logger.error("dropped databases could not be removed: %s", error.code)
            await set_within(self.stopping, _REMOVE_SECONDS)

    async def rename(self, old: str, new: str) -> None:
        """Give a database another name, beside the running ones.

        Requests in progress end first, as in `delete`. The store stays the same one: clients go on
        under the new URL.

        Raises:
            ValueError: A name is invalid, that of one of ``levels``, or the hub has no root.
            StateError: There is a store of the new name; the hub is not open, or is deleting or
                renaming one of the two.
            RefusedError: There is no such database (404).
            LockedError: Another process has it open.
            StorageError: It cannot be renamed.
        """
        administrator = self._administrator_of(old)
        self._administrator_of(new)
        async with self._withdraw(old, new):
            await asyncio.to_thread(administrator.rename, old, new)

    async def backup(self, name: str, path: str | os.PathLike[str], *, keep: int | None = None) -> BackupReport:
        """Back up a database beside the requests: see `Level.backup`.

        If the hub stops meanwhile, the backup ends unfinished, and another call continues it.

        Args:
            name: The name of the database.
            path: The new backup; with ``keep`` a folder of backups.
            keep: See `Level.backup`.

        Raises:
            RefusedError: There is no such database, or the hub stops.
            StateError, LockedError, CorruptionError, StorageError: See `Level.backup`.
        """
        return await back_up(self, name, path, keep)

    def back_up_every(self, seconds: float) -> None:
        """Back up each database to the folder ``backup_to`` in turn, as long as the hub is open.

        Args:
            seconds: The seconds between two backups of a database.

        Raises:
            ValueError: ``backup_to`` was not given, or the seconds are not positive.
        """
        if self.backups is None:
            raise ValueError("the backups have no folder: give backup_to")
        self.tasks.add(PeriodicTask("backup", partial(self.backups.back_up, self), seconds))

    def _administrator_of(self, name: str) -> Administrator:
        """Return the administrator of the root, for a change of a store.

        Raises:
            ValueError: The name is invalid, that of one of ``levels``, or there is no root.
            StateError: The hub is not open, or another change of the store is in progress.
        """
        check_database_name(name)
        if self._catalog is None or name in self._external_levels:
            raise ValueError(
                f"the database {name!r} is not one in a root of this hub: the program administers it itself"
            )
        if not self.is_open or self.stopping.is_set():
            raise StateError("this hub is not open: use it in an `async with` block")
        if name in self._withdrawn:
            raise StateError(f"the database {name!r} is being deleted or renamed")
        return Administrator(self._catalog)

    @asynccontextmanager
    async def _withdraw(self, *names: str) -> AsyncIterator[None]:
        """Keep requests from some databases, and have them closed, for the length of the block."""
        self._withdrawn.update(names)
        try:
            for name in names:
                if name in self._subscriptions:
                    self._subscriptions.wake(name)  # long polls and watches find out, and end
                while (database := self._databases.get(name)) is not None and database.references:
                    self._released.clear()
                    await self._released.wait()
            async with self._lock:
                for name in names:
                    if name in self._databases:
                        await self._close(name)
                yield
        finally:
            self._withdrawn.difference_update(names)

    # -------------------------------------------------------------------------------------- lookup

    def names(self) -> list[str]:
        """Return the sorted names of all stores. Stores in other modes than SERVER are included."""
        return sorted({*self._external_levels, *(() if self._catalog is None else self._catalog.names())})

    async def is_ready(self) -> bool:
        """Return True if the hub takes requests and can reach its root and its open databases.

        They are checked at most once a second, however often this is called.
        """
        if self.stopping.is_set() or not self.is_open:
            return False
        now = asyncio.get_running_loop().time()
        if self._probe is None or (self._probe.done() and now - self._probed_at > _PROBE_SECONDS):
            self._probe, self._probed_at = asyncio.ensure_future(asyncio.to_thread(self._is_reachable)), now
        ready = await asyncio.shield(self._probe)
        for name, database in list(self._databases.items()):
            if database.is_lost and not database.is_external:
                self._start_task(self._close_if_idle(name, database))
        return ready

    def _is_reachable(self) -> bool:
        try:
            if self._catalog is not None:
                self._catalog.check()
        except LevelError as error:
            logger.error("the stores cannot be reached: %s", error.code)
            return False
        return all([*map(self._is_in_place, list(self._databases))])

    def _is_in_place(self, name: str) -> bool:
        """Return False if an open database was deleted or moved.

        It is looked up anew by the next request.
        """
        database = self._databases.get(name)
        if database is None:
            return True
        try:
            internals(database.level)[0].store.check_in_place()
        except NotOpenError:
            return True  # it is closing
        except StorageError as error:
            logger.error("database %s is not where it was opened: %s", name, error.code)
            database.is_lost = True
            return False
        return True

    def is_external(self, name: str) -> bool:
        """Return True if the program has passed the database to the hub, open."""
        return name in self._external_levels

    def wants_closed(self, name: str) -> bool:
        """Return True if work that can wait should end its use of a database. Any thread asks."""
        return self._waiting_for_room > 0 or name in self._withdrawn or self.stopping.is_set()

    @property
    def open_count(self) -> int:
        """The number of open databases."""
        return len(self._databases)

    def open_levels(self) -> dict[str, Level]:
        """Return the levels of the open databases. Each may be closed at any time."""
        return {name: database.level for name, database in self._databases.items()}

    def stored_sizes(self) -> dict[str, int | None]:
        """Return the bytes on disk of each store in the root: see `Catalog.sizes`."""
        return {} if self._catalog is None else self._catalog.sizes()

    def _find(self, name: str) -> dict[str, Any]:
        """Return the arguments that open an existing server store as a level.

        Raises:
            RefusedError: There is no server store of that name.
        """
        found = self._catalog.find(name) if self._catalog is not None and DATABASE_NAME.fullmatch(name) else None
        if found is None:
            raise database_not_found()
        return found

    # ----------------------------------------------------------------------------- cache of levels

    @asynccontextmanager
    async def use(self, name: str, *, create: bool = False) -> AsyncIterator[Level]:
        """Yield a database's level, open for the length of the block.

        A route that watches a database for long should use `watch`: see there.

        Args:
            name: The name of the database.
            create: True to create it in the root, unless there is one.

        Raises:
            RefusedError: There is no such database, too many databases are in use, or the hub is
                closed or about to close.
            ValueError: ``create`` is true, and the name is invalid, or the hub has no root.
            LevelError: The store cannot be opened, or cannot be created.
        """
        self._check_accepting()
        if create and name not in self._databases and name not in self._withdrawn:
            self._administrator_of(name)
            await self.ensure_open(name, creating=True)
        async with self.borrow(name) as level:
            yield level

    def watch(
        self,
        name: str,
        *,
        since: int | None = None,
        initial: bool = False,
        prefixes: Iterable[str] | None = None,
        **bounds: Unpack[KeyRange],
    ) -> AsyncGenerator[Change, None]:
        """Iterate over the changes of a database, which the hub may close meanwhile.

        In the block of `use`, a database stays open as long as a watch waits for changes, and
        counts towards ``max_open``. This iterator has it in use only while it reads: the present
        state, or changes of the log. It ends when the hub stops.

        Args:
            name: The name of the database.
            since: See `Level.watch`; ``None`` for the present CID at the first step.
            initial: See `Level.watch`.
            prefixes: See `Level.watch`.
            **bounds: See `Level.watch`.

        Returns:
            The changes, each with its ``cid``: use it in an ``async for`` loop.

        Raises:
            RefusedError: There is no such database, or the hub is closed or about to close. The
                iterator raises it, also when the database is deleted.
            TypeError, ValueError, CIDMismatchError, StorageError: See `Level.watch`. The iterator
                raises them.
        """
        self._check_accepting()
        return DatabaseWatch(self, name, since, initial, prefixes, bounds).changes()

    @asynccontextmanager
    async def admit(self, name: str, *, creating: bool = False) -> AsyncIterator[None]:
        """Admit a request for a database: `borrow` works for the length of the block.

        The hub closes no earlier than at the end of the block, but may close the database.

        Args:
            name: The name of the database.
            creating: True if the caller may create it, if the hub creates databases on demand.

        Raises:
            RefusedError, LevelError: As `use`.
        """
        self._check_accepting()
        self._admitted += 1
        try:
            await self.ensure_open(name, creating=creating and self._creates_on_demand)
            yield
        finally:
            self._admitted -= 1
            if not self._admitted:
                self._released.set()

    @asynccontextmanager
    async def borrow(self, name: str) -> AsyncIterator[Level]:
        """Yield a database's level for an admitted request, also while the hub is about to close.

        Raises:
            RefusedError, LevelError: As `use`.
        """
        while (database := self._databases.get(name)) is None or name in self._withdrawn:
            await self.ensure_open(name)
        self._acquire(database)
        try:
            yield database.level
        finally:
            self._release(name, database)

    @contextmanager
    def subscribe(self, name: str) -> Iterator[Subscription]:
        """Provide a subscription to the commits to a database: see `Subscriptions`.

        It does not keep the database open. Without a use in between, the subscriptions to a closed
        database that other processes may write to are woken every 15 seconds.
        """
        try:
            with self._subscriptions.subscribe(name) as subscription:
                yield subscription
        finally:
            database = self._databases.get(name)
            if database is not None and not database.references and not database.is_external:
                self._mark_idle(name, database)

    def _check_accepting(self) -> None:
        if self.stopping.is_set():
            raise server_closing()
        if not self.is_open:
            logger.error(
                "the hub is not open: put `async with hub:` into the lifespan of the application that mounts it"
            )
            raise retry_later(
                503, NotOpenError.code, "this server is not ready: its hub is not open", seconds=RETRY_LATER
            )

    async def ensure_open(self, name: str, *, creating: bool = False) -> None:
        """Return once a database is open. It may be closed again to make room.

        Concurrent callers share one task that opens it. The task goes on if a caller is cancelled.

        Args:
            name: The name of the database.
            creating: True to create it if there is none.

        Raises:
            RefusedError, LevelError: As `use`.
        """
        if name in self._withdrawn:
            raise database_not_found()
        if name in self._databases:
            return
        opening = self._opening.get((name, creating))
        if opening is None:
            opening = self._opening[name, creating] = self._start_task(self._open(name, creating))
            opening.add_done_callback(lambda _: self._opening.pop((name, creating)))
        await asyncio.shield(opening)

    async def _open(self, name: str, creating: bool = False) -> None:
        async with self._lock:
            if not self.is_open:
                raise server_closing()
            if name in self._withdrawn:
                raise database_not_found()
            if name in self._databases:  # opened by the other kind of caller
                return
            try:
                arguments = await asyncio.to_thread(self._find, name)
            except RefusedError:
                if not creating or self._catalog is None or not DATABASE_NAME.fullmatch(name):
                    raise
                if any(dropped.name == name for dropped in await asyncio.to_thread(self.dropped)):
                    raise  # its clients would go on as if it had not been dropped
                try:
                    await asyncio.to_thread(create_store, self._catalog, name)
                except ModeMismatchError:  # a store of another mode counts as absent
                    raise database_not_found() from None
                arguments = await asyncio.to_thread(self._find, name)
            await self._make_room()
            level = Level(mode=Mode.SERVER, check=self._checks.get(name, self._check), **arguments)
            if self.retention is not None:
                internals(level)[0].store.on_close = self.retention.flush
            await level.open()
            database = _OpenDatabase(level)
            self._mark_idle(name, database)
            self._add(name, database)

    def _add(self, name: str, database: _OpenDatabase) -> None:
        self._databases[name] = database
        self._subscriptions.attach(name, database.level)

    def _has_room(self) -> bool:
        own = sum(not database.is_external for database in self._databases.values())
        return own < self._max_open

    def _may_close(self, name: str, database: _OpenDatabase) -> bool:
        """Return True if a database may be closed to make room. Its watches go on without it."""
        return not (database.is_external or database.references)

    async def _make_room(self) -> None:
        """Close the least recently used database if ``max_open`` databases are open.

        Raises:
            RefusedError: All of them are in use, and remained so for `_ROOM_SECONDS`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _ROOM_SECONDS
        while not self._has_room():
            # Least recently used first: see `_mark_idle`.
            idle = (name for name, found in self._databases.items() if self._may_close(name, found))
            name = next(idle, None)
            if name is not None:
                await self._close(name)
                continue
            self._released.clear()
            self._waiting_for_room += 1
            try:
                is_released = await set_within(self._released, deadline - loop.time())
            finally:
                self._waiting_for_room -= 1
            if not is_released:
                raise retry_later(
                    503, "LEVEL_BUSY", "too many databases are in use: try again later", seconds=RETRY_LATER
                )

    def _acquire(self, database: _OpenDatabase) -> None:
        database.references += 1
        if database.idle_timer is not None:
            database.idle_timer.cancel()
            database.idle_timer = None

    def _release(self, name: str, database: _OpenDatabase) -> None:
        database.references -= 1
        if not database.references:
            self._released.set()
            if not database.is_external:
                self._mark_idle(name, database)
                if internals(database.level)[0].store.is_fenced:
                    # Reopening verifies the store, or finds that it is gone.
                    self._start_task(self._close_if_idle(name, database))

    def _mark_idle(self, name: str, database: _OpenDatabase) -> None:
        """Move a database to the end of the eviction order, and start its idle timer."""
        self._databases.pop(name, None)
        self._databases[name] = database
        if database.idle_timer is not None:
            database.idle_timer.cancel()
        loop = asyncio.get_running_loop()
        database.idle_timer = loop.call_later(
            self._idle_seconds, lambda: self._start_task(self._close_if_idle(name, database))
        )

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Retrieve the exception: asyncio logs it otherwise, if all waiting requests were cancelled.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _close_if_idle(self, name: str, database: _OpenDatabase) -> None:
        async with self._lock:
            in_use = database.references or name in self._subscriptions
            if self._databases.get(name) is database and not in_use:
                await self._close(name)

    async def _close(self, name: str) -> None:
        database = self._databases.pop(name)
        if database.idle_timer is not None:
            database.idle_timer.cancel()
        self._subscriptions.detach(name)
        if database.is_external:
            return
        if self.is_open and name in self._subscriptions:
            self._recheck_later(name, internals(database.level)[0].store.backend.supports.shared)
        try:
            await database.level.close()
        except LevelError as error:
            logger.error("database %s could not be closed: %s", name, error.code)

    def _recheck_later(self, name: str, shared: bool) -> None:
        """Wake the subscribers of a database that was closed to make room, after some seconds.

        If other processes may write to it while it is closed (``shared``), the subscribers look at
        it then, as the only way to notice. Another database is opened again once there is room.
        """
        loop = asyncio.get_running_loop()
        if name in self._rechecks:
            self._rechecks.pop(name).cancel()
        self._rechecks[name] = loop.call_later(_RECHECK_SECONDS, self._recheck, name, shared)

    def _recheck(self, name: str, shared: bool) -> None:
        del self._rechecks[name]
        if name in self._databases or name not in self._subscriptions:
            return
        if shared or self._has_room():
            self._subscriptions.wake(name)
        else:
            self._recheck_later(name, shared)
