"""`Level`: the blocking façade, composed of its verbs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from inspect import iscoroutinefunction
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, overload

from .. import _core
from ..backends.base import Backend, Reader
from ..backends.registry import create
from ..engine.codec import Codec
from ..engine.namespace import Namespace, check_audit, check_durable, check_keep_base, check_retain
from ..engine.records import FORMAT
from ..engine.retention import Retention
from ..engine.store import Store
from ..errors import ModeError
from ..maintenance.backup import backup
from ..maintenance.convert import adopt
from ..maintenance.copy import Progress
from ..replication.following import check_follow
from ..replication.merging import OnConflict
from ..replication.retention import flush_sightings
from ..replication.rules import Check, require_check
from ..types import JSON, BackupReport, Found, Key, KeyRange, Mode, OnReset, Value, ViewKey, Written
from .client import ClientVerbs, Exchanger
from .live import LiveSession
from .mapping import MappingVerbs
from .reads import Snapshot
from .retention import RetentionThread
from .server import ServerVerbs
from .watch import ChangeCallback, ChangeIterator, ChangeSubscription, Unsubscribe, open_watch

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    from ..ordered import Tuple

    Elements = TypeVarTuple("Elements")


class ReadWriteVerbs(MappingVerbs[Key, Value, Found, Written]):
    """The verbs that a level, its sublevels and typed views share."""

    _namespace: Namespace

    def _use(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._store = self._key_reader = namespace.store
        self._guard = namespace.store.guard
        self._codec = namespace.codec
        self._durable = namespace.durable

    def _reader(self) -> Reader:
        return self._store.reader()

    def snapshot(self, *, at: int | None = None) -> Snapshot[Key, Value, Found]:
        """Take a snapshot for reading. Close it, or use it in a ``with`` block.

        A snapshot as of a CID reads the log once, at its first read: the part after that CID, and
        the part before until the last change of each key that has changed since is found. It keeps
        those keys in memory, and not their values.

        Args:
            at: The CID as of which to read a server; ``None`` for the present state. The log covers
                the CIDs from that of the newest change at the last `compact_log` up to the present
                one.

        Raises:
            NotOpenError: The level is not open.
            TypeError, ValueError: ``at`` is not a CID.
            ModeError: ``at`` is given, and the level is open in another mode than SERVER.
            HistoryError: The log does not cover ``at``.
        """
        return Snapshot(self._namespace, at)

    def watch(
        self,
        *,
        since: int | None = None,
        initial: bool = False,
        prefixes: Iterable[str] | None = None,
        timeout: float | None = None,
        **bounds: Unpack[KeyRange],
    ) -> ChangeIterator:
        """Iterate over the changes of a range as they happen.

        The changes after the call are yielded in order, and those of other processes too. The
        iterator waits for the next one, and ends when the level is closed. A consumer that lags
        gets the latest change of each key, deletions included. A server has a log, and yields every
        change that `compact_log` leaves in it.

        A watch takes about 2 MiB at most. Beyond that, the keys that have changed go to a temporary
        file. For a store in SQLite or PostgreSQL that is no server, the range is read once at the
        start and once after commits of other processes, and a digest of each pair is kept.

        Args:
            since: The CID after which to start; ``None`` for the present state. It needs a log, and
                so SERVER mode.
            initial: True to yield the present state of the range first: each pair as a change whose
                ``origin`` is ``"initial"``. The changes after that state follow without a gap.
            prefixes: Up to 256 prefixes instead of one range. A change is yielded once.
            timeout: Seconds without a change after which the loop ends; ``None`` for never. The
                watch goes on: another loop over the same iterator yields the changes since. With 0
                it yields those that are there.
            **bounds: See `KeyRange`; without bounds, all keys.

        Returns:
            An iterator of `Change`, each with its ``origin``, and in SERVER mode its ``cid``, and
            ``by`` and ``at`` if they are known. Leaving the loop ends the watch. So does
            ``close()`` of the iterator (asyncio: ``aclose()``). Its ``has_ended`` tells the end of
            the watch from a timeout, and its ``cid`` is the ``since`` to go on from later.

        Raises:
            StateError: ``since`` is given in another mode than SERVER.
            ValueError: ``since`` is negative or above 2^53 - 1, or given together with ``initial``.
            CIDMismatchError: The server has not reached ``since``, or has dropped deletes above it.
                The iterator raises it if that happens while it lags.
            StorageError: The store, or the temporary file, fails. The iterator raises it.
        """
        watch = open_watch(self._namespace, bounds, since=since, initial=initial, prefixes=prefixes)
        return ChangeIterator(watch, timeout)

    def on_change(
        self, callback: ChangeCallback, *, prefix: str | None = None, prefixes: Iterable[str] | None = None
    ) -> Unsubscribe:
        """Call a function with each later `Change`, until the level closes.

        Calls are made one at a time and in order. While one runs, later changes wait for it: the
        latest of each key is passed next.

        On a blocking level, a writer calls the function in its own thread, after its commit and
        without a lock, so the function may read and write. While it runs, other threads do not wait
        for it: it is called for their changes next. Commits of other processes have a thread of
        their own. On an asyncio level, it is called on the event loop that subscribes, and may be a
        coroutine function.

        An exception is logged together with the key, by the logger ``treehub_level``. It stops
        neither the writer nor later calls.

        Args:
            callback: The function.
            prefix: Only changes of keys that begin with this; ``None`` for all.
            prefixes: Only changes of keys that begin with one of these.

        Returns:
            A function without arguments that ends the calls. A coroutine that is awaited then is
            cancelled.

        Raises:
            StateError: On an asyncio level, no event loop runs in this thread.
        """
        if not callable(callback) or iscoroutinefunction(callback):
            raise TypeError(f"callback is a function, and no coroutine function, not {callback!r:.80}")
        watch = open_watch(self._namespace, {"prefix": prefix}, prefixes=prefixes)
        return ChangeSubscription(self._namespace, watch, callback).unsubscribe


class Typed(ReadWriteVerbs[ViewKey, Value, Value | None, Value], Generic[Value, ViewKey]):
    """A view of a level whose values are instances of a type, or whose keys are tuples.

    Made by `Level.typed` and `Level.sublevel`. It has the verbs of a sublevel, and each of them,
    with its filter, takes and returns such values and keys. The store holds plain JSON.

    A value that is not an instance of the type raises `InvalidValueError`, and a stored one that
    does not fit raises `DecodeError`; both have ``key`` and ``path``.

    For annotations: ``Typed[Note]``, or ``Typed[Note, tuple[str, int]]`` with keys that are tuples.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._use(namespace)

    if not TYPE_CHECKING:

        def __class_getitem__(cls, types: Any) -> GenericAlias:
            return GenericAlias(cls, types)  # the second parameter has a default


class NamespaceVerbs(ReadWriteVerbs[str, Any, Any, JSON]):
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
        """Return a sublevel: a namespace with the same verbs.

        Its keys are stored as ``name + separator + key``, and so are part of the level and its log.

        Args:
            name: The name: not empty, without the separator, and a valid beginning of a key.
            separator: The text between the name and the keys.
            type: The type of the values: see `typed`. The result is a `Typed` view then.
            key: The type of the keys, such as ``ordered.Tuple[str, int]``: tuples, in the order of
                the tuples. ``None`` for ``str``. The result is a `Typed` view then.

        Raises:
            InvalidKeyError: The name is invalid.
            TypeError: An argument is of a wrong type, the level has ``key_encoding="bytes"``, or
                ``type`` cannot be converted.
            ModuleNotFoundError: ``type`` is given, and the extra ``typed`` is not installed.
        """
        namespace = self._namespace.sublevel(name, separator)
        return Sublevel(namespace) if type is None and key is None else Typed(namespace.view("", type, key))

    @overload
    def typed(self, model: type[Value], *, prefix: str = "", key: None = None) -> Typed[Value]: ...

    @overload
    def typed(
        self, model: type[Value], *, prefix: str = "", key: type[Tuple[Unpack[Elements]]]
    ) -> Typed[Value, tuple[Unpack[Elements]]]: ...

    def typed(self, model: Any, *, prefix: str = "", key: Any = None) -> Any:
        """Return a view of the keys with a prefix, whose values are instances of a type.

        ``level.typed(Note, prefix="note/")`` is ``level.sublevel("note", type=Note)``: the keys of
        the view do not contain the prefix. The values are stored as plain JSON: a ``datetime``, a
        ``date``, a ``UUID`` and a ``Decimal`` as strings, ``bytes`` in Base64, an ``Enum`` as its
        value.

        Args:
            model: A dataclass, a ``TypedDict``, a ``msgspec.Struct``, an attrs class, or another
                type that msgspec can validate, such as ``list[int]``; or a pydantic model, which
                pydantic converts.
            prefix: The beginning of the keys: empty, or a valid beginning of a key.
            key: The type of the keys, such as ``ordered.Tuple[str, int]``; ``None`` for ``str``.

        Raises:
            InvalidKeyError: No key can begin with the prefix.
            TypeError: An argument is of a wrong type, the level stores bytes, or the type cannot be
                converted.
            ModuleNotFoundError: The extra ``typed`` is not installed.
        """
        return Typed(self._namespace.typed(prefix, model, key))


class Sublevel(NamespaceVerbs):
    """A namespace within a level.

    Made by `Level.sublevel`; open and closed together with its level.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._use(namespace)


class Level(NamespaceVerbs, ServerVerbs, ClientVerbs):  # type: ignore[misc]  # as for `MappingVerbs`
    """An ordered key-value store that synchronises.

    ``treehub_level.Level`` is its asyncio counterpart.

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

    Raises:
        ValueError: The mode, an encoding or the prefix is invalid; or ``keep_base`` is True or
            ``follow`` given in another mode than CLIENT, or ``check`` or ``retain`` in another one
            than SERVER;
            or ``follow`` has more than 256 prefixes, or more than 16 KiB of them.
        InvalidKeyError: No key can begin with a prefix in ``follow``.
        TypeError: An argument is of a wrong type, or the backend does not have such an option.
        BackendNotFoundError: There is no backend of that name.
    """

    NORMAL: ClassVar[Mode] = Mode.NORMAL
    SERVER: ClassVar[Mode] = Mode.SERVER
    CLIENT: ClassVar[Mode] = Mode.CLIENT

    #: The thread that compacts the log, if there is one.
    _retention: RetentionThread | None = None

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
        if not isinstance(mode, Mode):
            raise ValueError(f"mode is Level.NORMAL, Level.SERVER or Level.CLIENT, not {mode!r:.80}")
        name = os.fspath(name)
        if not isinstance(name, str):
            raise TypeError(f"the name of a level is a str or a path, not {name!r:.80}")
        space = _core.KeySpace(prefix)
        durable = check_durable(durable, False)
        if not isinstance(read_only, bool):
            raise TypeError(f"read_only is True or False, not {read_only!r:.80}")
        check_keep_base(keep_base, mode)
        check_audit(audit, mode)
        if check is not None and mode is not Mode.SERVER:
            raise ValueError(f"check judges the changes of clients: it needs SERVER mode, not {mode.name}")
        check_retain(retain, mode)
        prefixes = check_follow(mode, space, follow)
        codec = Codec(
            mode, None if mode is Mode.NORMAL else space, key_encoding=key_encoding, value_encoding=value_encoding
        )
        store = Store(
            create(backend, name, backend_options),
            mode,
            space,
            read_only=read_only,
            keep_base=keep_base,
            audit=audit,
            check=require_check(check),
            follow=prefixes,
            on_close=None if retain is None else partial(flush_sightings, retention=retain),
        )
        self._retain = retain
        self._use(Namespace(store, codec, durable))
        ClientVerbs.__init__(self)

    def open(self) -> None:
        """Open the store, or create it if it does not exist and ``read_only`` is not set.

        Raises:
            StateError: The level is open already, or the store needs ``treehub-level upgrade``, or
                it is an unfinished copy.
            LockedError: Another process, or another level of this process, has the store open.
            ModeMismatchError: The store was made in another mode, or holds data without a mode: see
                `adopt`.
            StorageError: The store cannot be reached, created or read; or ``read_only`` is set, and
                there is no store.
            CorruptionError: The store is damaged.
        """
        self._store.open()
        self._returned_dirty.clear()
        if self._retain is not None and not self._store.read_only:
            self._retention = RetentionThread(self._store, self._retain)

    def close(self) -> None:
        """Close the store, after the calls in flight have ended.

        Open iterators and snapshots are closed.

        Raises:
            StateError: The level is not open.
        """
        if self._retention is not None:
            self._retention.stop()
        self._store.close()

    def __enter__(self) -> Level:
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._store.needs_close:
            self.close()

    @classmethod
    def adopt(
        cls,
        name: str | os.PathLike[str],
        *,
        mode: Mode,
        progress: Callable[[int], object] | None = None,
        **options: Any,
    ) -> Level:
        """Convert a NORMAL store with data to a server or a client.

        A server logs the existing keys, a client marks them dirty. The conversion runs in batches.
        After an interruption, call it again: the store cannot be opened until the conversion is
        complete.

        Args:
            name: The store.
            mode: ``Level.SERVER`` or ``Level.CLIENT``.
            progress: Called after each batch with the number of keys converted so far.
            **options: Further arguments of the constructor.

        Returns:
            The level in its new mode, closed.

        Raises:
            ValueError: ``mode`` is another mode.
            ModeMismatchError: The store has another mode already.
            InvalidKeyError, InvalidValueError: The new mode cannot hold a key or a value. Nothing
                was changed.
        """
        if mode not in (Mode.SERVER, Mode.CLIENT):
            raise ValueError(f"a store can be adopted as Level.SERVER or Level.CLIENT, not as {mode!r:.80}")
        level = cls(name, mode=mode, **options)
        adopt(level._store.backend, mode, level._store.space, progress)
        return level

    # ---------------------------------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        """The name given to the constructor: a path, a label or a URL."""
        return self._store.backend.name

    @property
    def mode(self) -> Mode:
        """The mode of the level."""
        return self._store.mode

    @property
    def is_open(self) -> bool:
        """True while the level accepts calls."""
        return self._store.is_open

    @property
    def cid(self) -> int:
        """The CID: of the last change on a server, of the last synchronised change on a client.

        Raises:
            NotOpenError: The level is not open.
            ModeError: The level is open in NORMAL mode.
        """
        self._store.require_open()
        if self.mode is Mode.NORMAL:
            raise ModeError("a level in NORMAL mode has no change ids")
        return self._store.cid

    @property
    def CID(self) -> int:  # noqa: N802  # the name in `@treehub/level`
        """The `cid`, as `@treehub/level` spells it."""
        return self.cid

    def info(self) -> dict[str, Any]:
        """Return a description of the store.

        Returns:
            A dictionary with ``name``, ``backend``, ``mode``, ``prefix``, ``format`` (the version
            of the format on disk), ``store`` (the store id), ``cid`` (the change id) and ``bytes``
            (the size on disk), ``snapshots`` and ``cursors`` (the open ones of this level, which
            keep overwritten data). The store id and the CID are ``None`` in NORMAL mode; the size
            is ``None`` for memory.

        Raises:
            NotOpenError: The level is not open.
        """
        strategy, backend = self._store.strategy, self._store.backend
        normal = self.mode is Mode.NORMAL
        with self._store.guard.thread.lock:
            reader = self._store.reader()
            snapshots, cursors = self._store.open_handles()
            return {
                "name": backend.name,
                "backend": type(backend).__name__,
                "mode": self.mode.value,
                "prefix": self._store.space.prefix.decode(),
                "format": FORMAT,
                "store": getattr(strategy, "store_id", None),
                "cid": None if normal else self._store.cid_in(reader),
                "bytes": backend.size_on_disk(),
                "snapshots": snapshots,
                "cursors": cursors,
            }

    def compact_range(self) -> None:
        """Compact the backend: drop overwritten and deleted data, and release disk space.

        It may take minutes.

        Raises:
            NotOpenError: The level is not open.
            StateError: The level is open for reading only.
        """
        self._store.compact()

    def backup(
        self, path: str | os.PathLike[str], *, keep: int | None = None, progress: Progress | None = None
    ) -> BackupReport:
        """Make a backup: a consistent copy of the store, as it is at one moment during the call.

        Others read and write meanwhile. The backup is durable and verified, and opens as the same
        store: with its identity, its change log, and the records of its clients. A LevelDB store
        becomes a LevelDB directory, an SQLite store an SQLite file, a store of another backend a
        LevelDB directory. Never write to it: `treehub_level.restore` makes a store of it.

        An interrupted backup leaves a folder ``PATH.partial`` and no ``path``; the next call
        continues it. A complete backup is never changed.

        Args:
            path: The new backup. There is nothing of that name yet, or an empty folder.
            keep: The number of backups to keep. ``path`` is a folder of backups then: a new one is
                added, named by the time, and older ones beyond that number are removed once it was
                verified. Of a LevelDB store only new tables are copied; the others are hard links
                to those of the backup before.
            progress: Called in the thread that copies, with ``"copy"`` and the number of bytes so
                far (of rows, if rows are copied), then with ``"verify"`` and the number of rows.

        Returns:
            A report.

        Raises:
            NotOpenError: The level is not open, or is being closed.
            StateError: There is something at ``path``, or it is inside the store; or the folder has
                backups of another store. Nothing was changed.
            LockedError: Another call writes the same backup.
            CorruptionError: The store has faults. There is no new backup.
            StorageError: The store cannot be read, or the backup cannot be written, as on a full
                disk (`is_disk_full`).
        """
        with self._store.guard.thread.lock:
            self._store.reader()
            return backup(self._store, path, keep=keep, progress=progress)

    def live(
        self,
        server: Exchanger,
        *,
        interval: float = 10.0,
        on_reset: OnReset = "reset",
        on_conflict: OnConflict | None = None,
    ) -> LiveSession:
        """Return a session that keeps this client in sync in the background, for a ``with`` block.

        The session pulls changes as the server commits them, and pushes local changes. It survives
        a server that is unreachable, restarts or is busy, a captive portal, and an expired token.
        Conflicts are kept in the journal: see `conflicts`; or ``on_conflict`` settles them. Closing
        the level ends the session.

        Args:
            server: See `sync`. If its ``exchange`` accepts ``wait``, changes are pulled by long
                polls.
            interval: Seconds between two polls of a server without long polls.
            on_reset: See `sync`. ``"raise"`` ends the session before a reset.
            on_conflict: See `sync`.

        Raises:
            TypeError: ``on_conflict`` is no function of one conflict, or an async one.
            ValueError: ``on_reset`` is unknown, or ``interval`` is not positive.
        """
        return LiveSession(
            self._store, self._sync_lock, server, interval=interval, on_reset=on_reset, on_conflict=on_conflict
        )

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<treehub_level.blocking.Level {self.name!r} {self.mode.name} {state}>"


def close_and_remove_unused(level: Level) -> None:
    """Close an open level that a failed command has created, and remove it if it holds no data."""
    level._store.close(remove_unused=True)


def namespace_of(level: Level) -> Namespace:
    """Return the namespace of a level, for its asyncio counterpart."""
    return level._namespace
