"""The contract between the engine and a store of bytes.

A backend orders keys bytewise, writes batches atomically, and reads from snapshots. It knows nothing of
JSON, modes or change ids. ``treehub_level.testing.conformance`` holds every backend to what is written here.

Threads: after ``open()`` any method may be called from any thread at the same time. The engine promises that
``close()`` is called once, alone: no call is running, and every cursor and snapshot was closed before.

States: a backend can be opened again after it was closed. Opening an open one raises ``LockedError``, closing one that
is not open does nothing, and every method that reads or writes raises ``NotOpenError`` unless it is open.

Errors: a vendor's exceptions are translated in that vendor's file, cause chained, to ``StorageError``,
``CorruptionError``, ``LockedError`` or ``InvalidKeyError``; none escapes as itself.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Protocol

#: One step of a batch: a key and the value to store, or ``None`` to delete the key (absent is fine).
Entry = tuple[bytes, bytes | None]
Row = tuple[bytes, bytes]


class Entries(Protocol):
    """A batch that can still grow: a list, or what the compiled core builds in one piece for the native engine.

    That has the attributes ``rows``, its entries in that piece (``src/_core/packed.pyx``), and ``more``, a list of
    those that were appended.
    """

    def append(self, entry: Entry, /) -> None:
        """Add an entry at the end."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Entry]: ...
    def __getitem__(self, index: int, /) -> Entry: ...


#: What is written at once. Later entries of a key win over earlier ones.
Batch = Sequence[Entry] | Entries
#: Rows one by one, or in one piece (``src/_core/packed.pyx``), as the native engine hands them to the compiled core.
Rows = Sequence[Row] | bytes


@dataclass(frozen=True)
class Supports:
    """What a backend can do; the engine and the conformance suite read it.

    Attributes:
        persistent: The data outlives ``close()`` and the process.
        inline_reads: ``get``, ``get_many`` and small scans are cheap enough (microseconds) to run on an event loop.
        shared: Several processes may open the same store, so nothing may be decided from memory: the CID is
            read inside ``exclusive()``.
        guarded_get: ``get`` may run while ``close()`` does: it returns what it was asked for, or raises
            ``NotOpenError``. The engine then spares it the care that it takes of all other calls.
        max_key_bytes: The longest key that can be written, metadata included; ``None`` if there is no such limit. A
            batch with a longer one raises ``InvalidKeyError`` and writes nothing; to a reader it is an absent key.
    """

    persistent: bool
    inline_reads: bool
    shared: bool = False
    guarded_get: bool = False
    max_key_bytes: int | None = None


class Cursor(Protocol):
    """A walk over a key range, at the moment it was made, whatever is written meanwhile."""

    def fetch(self, limit: int) -> list[Row]:
        """Return the next rows, at most ``limit`` of them; an empty list at the end, and ever after."""

    def fetch_keys(self, limit: int) -> list[bytes]:
        """The same, keys only. A cursor is used with one of the two methods throughout."""
        return [key for key, _ in self.fetch(limit)]

    def close(self) -> None:
        """Give back what it holds. Closing twice is harmless; fetching afterwards is the caller's fault."""


def fetches(cursor: Cursor) -> Callable[[int], Rows]:
    """`Cursor.fetch`, or what takes its place where the engine can hand out rows in one piece: ``fetch_packed``."""
    fetch: Callable[[int], Rows] = getattr(cursor, "fetch_packed", cursor.fetch)
    return fetch


class Reader(Protocol):
    """What can be read from: a backend (now), a snapshot (at one moment), a transaction (inside ``exclusive()``)."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, or ``None`` if there is none."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value or ``None`` for each key, in the order asked, all of one moment."""

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """Walk ``start <= key < stop``.

        Args:
            start: The first key, inclusive; ``None`` for the first there is.
            stop: The end, exclusive; ``None`` for no end. ``start >= stop`` is an empty walk.
            reverse: From the last key down to the first.
            values: Whether ``fetch`` will be called; with ``False`` only ``fetch_keys`` will.
        """


class Snapshot(Reader, Protocol):
    """A Reader that stays at the moment it was made."""

    def close(self) -> None:
        """Let the moment go. Closing twice is harmless."""


class Transaction(Reader, Protocol):
    """A Reader and one writer, with every other writer kept out.

    Attributes:
        incarnation: Differs from that of an earlier transaction if the store may have become another one meanwhile,
            restored from a copy for instance: the connection was lost, or its server began anew.
    """

    @property
    def connection_epoch(self) -> Hashable:
        """See above."""

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """Apply every entry, in order, or none. Called at most once in a transaction, as its last act.

        Args:
            batch: What to write.
            durable: Return only once the bytes are on disk (fsync, or the engine's like).
        """


class Backend(ABC):
    """An ordered store of bytes. Subclass it, name it in the entry-point group ``treehub_level.backends``.

    Args:
        name: What ``Level(name)`` was given: a path, a label, a URL.
        **options: Whatever else the constructor of ``Level`` was given and did not know.
    """

    #: What this backend can do.
    supports: ClassVar[Supports]
    #: See `Transaction.connection_epoch`: an embedded store stays the same while it is open.
    connection_epoch: Hashable = None
    #: What the last opening found amiss, and mended, a sentence each.
    recovery_notes: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.write_lock = threading.Lock()

    @abstractmethod
    def open(self) -> None:
        """Open, creating the store where there is none.

        Raises:
            LockedError: Somebody else has it open.
            StorageError: It cannot be reached, made or read.
            CorruptionError: What is there cannot be trusted.
        """

    @abstractmethod
    def close(self) -> None:
        """Close. The engine has seen to it that nothing is in use."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Hold this moment for reading."""

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`. Asks a snapshot, as the next two do, unless the engine has a shorter way."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`."""
        with closing(self.snapshot()) as snapshot:
            return snapshot.get_many(keys)

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """See `Reader.scan`."""
        snapshot = self.snapshot()
        try:
            return SnapshotCursor(snapshot, snapshot.scan(start, stop, reverse=reverse, values=values))
        except BaseException:
            snapshot.close()
            raise

    @abstractmethod
    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. The engine calls it inside `exclusive` only."""

    def exclusive(self) -> AbstractContextManager[Transaction]:
        """Keep every other writer out while the block decides and writes.

        An embedded store needs no more than this lock. A shared one begins a transaction here, locks the row
        of the CID first, commits what ``write`` was given at the end, and rolls back when the block raises. The engine
        begins anew when that raises an ``UnavailableError`` which says that the transaction was ``retryable``.
        """
        return ExclusiveAccess(self)

    def listen(self, heard: Callable[[], None]) -> None:  # noqa: B027  # embedded stores hear of themselves
        """Call ``heard`` soon after each commit of another process, from any thread, until ``close()``.

        The engine calls this at most once in an opening, when somebody first waits for news. It may be called once too
        often, and must be called at least once after the last commit. Nothing to do unless the store is shared.
        """

    def writes_at_once(self) -> bool:
        """Whether a small write, of some tens of KiB and not durable, would take microseconds now.

        The engine asks with every other writer kept out, and writes on the event loop if so. It must not wait for
        anything to find out.
        """
        return False

    @contextmanager
    def open_read_only(self) -> Iterator[Backend]:
        """Open the store for a block that reads only, so that nothing on disk changes. Called while closed.

        Yields:
            This backend, or another one of the same contents.
        """
        self.open()
        try:
            yield self
        finally:
            self.close()

    def exists(self) -> bool:
        """Whether ``open()`` would find a store, rather than make one. Called while closed."""
        return True

    def size_on_disk(self) -> int | None:
        """Bytes that the store takes on disk, or ``None`` where that has no meaning."""
        return None

    def compact(self) -> None:  # noqa: B027  # nothing to do is a good default, not a forgotten method
        """Ask the engine to drop what was overwritten. Nothing to do by default."""


class SnapshotCursor(Cursor):
    """A cursor that closes its snapshot with itself."""

    def __init__(self, snapshot: Snapshot, cursor: Cursor) -> None:
        self._snapshot = snapshot
        self._cursor = cursor

    def fetch(self, limit: int) -> list[Row]:
        return self._cursor.fetch(limit)

    def fetch_keys(self, limit: int) -> list[bytes]:
        return self._cursor.fetch_keys(limit)

    def close(self) -> None:
        self._cursor.close()
        self._snapshot.close()


class ExclusiveAccess:
    """An embedded store with every other writer kept out. Leaner than a generator: each write passes here."""

    __slots__ = ("_backend",)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __enter__(self) -> Transaction:
        self._backend.write_lock.acquire()
        return self._backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._backend.write_lock.release()
