"""``blocking.Level``: the public class, put together from its verbs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from .. import _core
from ..backends.base import Backend
from ..backends.registry import create
from ..engine.codec import Codec
from ..engine.identity import FORMAT
from ..engine.store import CurrentReader, Store
from ..errors import ModeError
from ..maintenance.convert import adopt
from ..types import JSON, MISSING, Mode
from .client import ClientVerbs, Exchanger
from .live import LiveSession
from .reads import ReadVerbs, Snapshot
from .server import ServerVerbs
from .writes import WriteVerbs, check_durable


class ReadWriteVerbs(ReadVerbs, WriteVerbs):
    """Reads and writes of the present, of a level or one of its sublevels."""

    def _view(self) -> CurrentReader:
        return self._store.current_reader

    def snapshot(self) -> Snapshot:
        """Hold this moment for reading. Close it, or use it in a ``with`` block.

        Raises:
            NotOpenError: The level is not open.
        """
        return Snapshot(self._store, self._codec)

    def sublevel(self, name: str, *, separator: str = "/") -> Sublevel:
        """Return a namespace with the same verbs.

        Its keys are stored as ``name + separator + key``, and so part of the level's log.

        Args:
            name: The name; not empty, without the separator, and able to begin a key of this level.
            separator: What stands between the name and the keys.

        Raises:
            InvalidKeyError: A name that cannot be one.
            TypeError: A name or separator that is no ``str``, or a level with ``key_encoding="bytes"``.
        """
        return Sublevel(self._store, self._codec.inside(name, separator), self._durable)


class Sublevel(ReadWriteVerbs):
    """A namespace within a level. Made by `Level.sublevel`; open and closed with its level."""

    def __init__(self, store: Store, codec: Codec, durable: bool) -> None:
        self._store = self._points = store
        self._codec = codec
        self._durable = durable


class Level(ReadWriteVerbs, ServerVerbs, ClientVerbs):
    """An ordered key-value store that synchronises. See ``treehub_level.Level`` for the asyncio twin.

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

    Raises:
        ValueError: An unknown mode or encoding, or an illegal prefix.
        TypeError: An argument of a wrong type, or an option that the backend does not know.
        BackendNotFoundError: No backend of that name.
    """

    NORMAL: ClassVar[Mode] = Mode.NORMAL
    SERVER: ClassVar[Mode] = Mode.SERVER
    CLIENT: ClassVar[Mode] = Mode.CLIENT

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
        if not isinstance(mode, Mode):
            raise ValueError(f"mode is Level.NORMAL, Level.SERVER or Level.CLIENT, not {mode!r:.80}")
        name = os.fspath(name)
        if not isinstance(name, str):
            raise TypeError(f"the name of a level is a str or a path, not {name!r:.80}")
        space = _core.KeySpace(prefix)
        self._durable = check_durable(durable, False)
        self._codec = Codec(
            mode, None if mode is Mode.NORMAL else space, key_encoding=key_encoding, value_encoding=value_encoding
        )
        self._store = self._points = Store(create(backend, name, backend_options), mode, space)
        ClientVerbs.__init__(self)

    def open(self) -> None:
        """Open the store, creating it where there is none.

        Raises:
            StateError: The level is open, or the store needs ``treehub-level upgrade``, or it is a half-made copy.
            LockedError: Another process, or another level here, has it open.
            ModeMismatchError: The store was made in another mode, or holds data of no mode: see `adopt`.
            StorageError: It cannot be reached, made or read.
            CorruptionError: What is there cannot be trusted.
        """
        self._store.open()
        self._handed_out.clear()

    def close(self) -> None:
        """Refuse new calls, wait for those in flight, close open iterators and snapshots, and close the store.

        Raises:
            StateError: The level is not open.
        """
        self._store.close()

    def __enter__(self) -> Level:
        self.open()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._store.is_open:
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
        """Make a NORMAL store with data a server, which logs the existing keys, or a client, which marks them dirty.

        It runs in batches. If it is interrupted, call it again: the store cannot be opened before it has finished.

        Args:
            name: The store.
            mode: ``Level.SERVER`` or ``Level.CLIENT``.
            progress: Called after each batch with the number of keys done so far.
            **options: Those of the constructor.

        Returns:
            The level in its new mode, closed.

        Raises:
            ValueError: Another mode.
            ModeMismatchError: The store has a mode already, and another one.
            InvalidKeyError, InvalidValueError: A key or value that the new mode cannot hold. Nothing was changed.
        """
        if mode not in (Mode.SERVER, Mode.CLIENT):
            raise ValueError(f"a store can be adopted as Level.SERVER or Level.CLIENT, not as {mode!r:.80}")
        level = cls(name, mode=mode, **options)
        adopt(level._store.backend, mode, level._store.space, progress)
        return level

    # ---------------------------------------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        """What the level was opened with: a path, a label, a URL."""
        return self._store.backend.name

    @property
    def mode(self) -> Mode:
        """The mode it was made for."""
        return self._store.mode_name

    @property
    def is_open(self) -> bool:
        """Whether verbs may be called."""
        return self._store.is_open

    @property
    def cid(self) -> int:
        """The change id: on a server that of the last change, on a client the last one synchronised.

        Raises:
            NotOpenError: The level is not open.
            ModeError: The level is open in NORMAL mode.
        """
        self._store.require_open()
        if self.mode is Mode.NORMAL:
            raise ModeError("a level in NORMAL mode has no change ids")
        return self._store.cid

    @property
    def CID(self) -> int:  # noqa: N802  # the seed's name
        """The seed's spelling of `cid`."""
        return self.cid

    def info(self) -> dict[str, JSON]:
        """Return facts about the store: ``name backend mode prefix format store cid bytes``.

        ``store`` is its id and ``cid`` its change id (both ``None`` in NORMAL mode), ``bytes`` its size on disk
        (``None`` where that has no meaning).

        Raises:
            NotOpenError: The level is not open.
        """
        mode, backend = self._store.mode, self._store.backend
        normal = self.mode is Mode.NORMAL
        with self._store.guard:
            return {
                "name": backend.name,
                "backend": type(backend).__name__,
                "mode": self.mode.value,
                "prefix": self._store.space.prefix.decode(),
                "format": FORMAT,
                "store": getattr(mode, "store_id", None),
                "cid": None if normal else self._store.cid_in(backend),
                "bytes": backend.size_on_disk(),
            }

    def compact_range(self) -> None:
        """Ask the engine to drop what was overwritten or deleted, which gives disk space back. It may take long.

        Raises:
            NotOpenError: The level is not open.
        """
        with self._store.guard:
            self._store.backend.compact()

    def live(self, server: Exchanger, *, interval: float = 10.0, on_reset: str = "reset") -> LiveSession:
        """Keep synchronising in the background, in a ``with`` block: pull as the server gets news, push as this does.

        It goes on through all that may pass: a server that is away, restarts, is busy or refuses; a captive portal; a
        token that expired. Conflicts are kept in the journal, see `conflicts`. Closing this level ends it.

        Args:
            server: See `sync`. If its ``exchange`` takes ``wait``, news comes at once.
            interval: Seconds between two looks at a server that cannot keep a question waiting.
            on_reset: See `sync`; ``"raise"`` ends the session before a reset.

        Raises:
            ValueError: An unknown ``on_reset``, or an interval that is not positive.
        """
        return LiveSession(self, server, interval=interval, on_reset=on_reset)

    # ------------------------------------------------------------------------------------ mapping protocol

    def __getitem__(self, key: str) -> JSON:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: JSON) -> None:
        self.put(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.has(key):
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return self.has(key)  # type: ignore[arg-type]  # a key of another type is a TypeError, as everywhere

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.scan())

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<treehub_level.blocking.Level {self.name!r} {self.mode.name} {state}>"
