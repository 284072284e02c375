"""The contract between the engine and a backend, which is an ordered store of bytes.

A backend keeps keys in bytewise order, writes batches atomically, and reads from snapshots. It
knows nothing of JSON, modes or change ids. ``treehub_level.testing`` tests a backend against this
contract.

Threads: after ``open()`` any method may be called from any thread, several at a time. The engine
calls ``close()`` once, after all other calls have returned and all cursors and snapshots are
closed.

States: a closed backend can be opened again. ``open()`` raises ``LockedError`` if the backend is
open. ``close()`` does nothing if it is closed. A method that reads or writes raises
``NotOpenError`` unless the backend is open.

Errors: the module that imports a vendor's library translates the exceptions of that library, with
the cause chained, to ``StorageError``, ``CorruptionError``, ``LockedError`` or ``InvalidKeyError``
(``errors.py`` has the full tree).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import ClassVar, Final, Protocol

from ..errors import StorageError
from ..locks import ErrorCheckingLock

#: One operation of a batch: a key and its new value, or ``None`` to delete the key. Deleting an
#: absent key is allowed and has no effect.
Entry = tuple[bytes, bytes | None]
#: A key and its value.
Row = tuple[bytes, bytes]


class Entries(Protocol):
    """A batch that supports ``append``: a list, or the packed batch of the compiled core.

    A packed batch has two more attributes, which the native LevelDB backend reads: ``rows``, the
    entries in one ``bytes`` (the format is in ``src/_core/packed.pyx``), and ``more``, a list of
    the entries that were appended later.
    """

    def append(self, entry: Entry, /) -> None:
        """Add an entry at the end."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Entry]: ...
    def __getitem__(self, index: int, /) -> Entry: ...


#: Entries to write atomically. If a key occurs more than once, its last entry takes effect.
Batch = Sequence[Entry] | Entries
#: Bytes of values after which ``fetch`` of the backends in this package ends early.
FETCH_BYTES: Final = 1 << 20
#: Rows as a sequence, or packed into one ``bytes`` (``src/_core/packed.pyx``).
Rows = Sequence[Row] | bytes


@dataclass(frozen=True)
class Supports:
    """The capabilities of a backend, read by the engine and by the conformance suite.

    Attributes:
        persistent: The data outlives ``close()`` and the process.
        inline_reads: ``get``, ``get_many`` and scans of a few rows take microseconds. The asyncio
            API then calls them on the event loop instead of in a worker thread.
        shared: Several processes may open the same store. The engine then caches nothing between
            transactions; it reads the CID anew in each ``exclusive()`` block.
        guarded_get: ``get`` may run concurrently with ``close()``: it then returns the value or
            raises ``NotOpenError``. The engine calls such a ``get`` without its call guard.
        max_key_bytes: The length in bytes of the longest key that can be written, metadata keys
            included; ``None`` for no limit. A batch with a longer key raises ``InvalidKeyError``
            and writes nothing. Reads treat a longer key as absent.
    """

    persistent: bool
    inline_reads: bool
    shared: bool = False
    guarded_get: bool = False
    max_key_bytes: int | None = None


class Cursor(Protocol):
    """An iteration over a key range of one snapshot: later writes do not change its rows."""

    def fetch(self, limit: int) -> list[Row]:
        """Return the next rows, at most ``limit``; an empty list once the range is exhausted.

        There may be fewer rows before the end of the range. The backends in this package end a
        fetch with the row that reaches `FETCH_BYTES`, since a value may have 4 MiB.
        """

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        """Return the next rows, at most ``limit``, and end with the row that reaches ``max_bytes``.

        Optional: the default fetches one row. The engine calls it where it bounds memory in bytes,
        and fetches row by row from a cursor without this method.

        Args:
            limit: The maximum number of rows, at least 1.
            max_bytes: The size of the values, in bytes, at which the fetch ends: at least 1.
        """
        return self.fetch(1)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """Return the keys of the next rows, at most ``limit``.

        A caller uses either this method or the two others for the whole life of a cursor.
        """
        return [key for key, _ in self.fetch(limit)]

    def close(self) -> None:
        """Release the resources of the cursor. Closing twice is harmless.

        The engine does not fetch from a closed cursor.
        """


def row_fetcher(cursor: Cursor) -> Callable[[int], Rows]:
    """Return the fastest fetch method of a cursor: ``fetch_packed`` if it exists, or ``fetch``.

    With ``fetch_packed`` the benchmark "queryall" takes 2 to 10 % less time.
    """
    fetch: Callable[[int], Rows] = getattr(cursor, "fetch_packed", cursor.fetch)
    return fetch


def bounded_fetcher(cursor: Cursor) -> Callable[[int, int], list[Row]]:
    """Return ``fetch_within`` of a cursor; for one without it, a function that fetches one row."""
    fetch: Callable[[int, int], list[Row]] = getattr(cursor, "fetch_within", lambda limit, max_bytes: cursor.fetch(1))
    return fetch


def take_within(rows: Iterator[Row], limit: int, max_bytes: int) -> tuple[list[Row], bool]:
    """Take rows from an iterator as `Cursor.fetch_within` does.

    Returns:
        The rows, and True if the iterator has ended.
    """
    taken: list[Row] = []
    size = 0
    for row in islice(rows, limit):
        taken.append(row)
        size += len(row[1])
        if size >= max_bytes:
            return taken, False
    return taken, len(taken) < limit


class Reader(Protocol):
    """A source of reads: a backend (latest data), a snapshot, or a transaction."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, or ``None`` if the key is absent."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return a value or ``None`` for each key, in order, all of one snapshot."""

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """Return a cursor over the keys with ``start <= key < stop``.

        Args:
            start: The lower bound, inclusive; ``None`` for no lower bound.
            stop: The upper bound, exclusive; ``None`` for no upper bound. The range is empty if
                ``start >= stop``.
            reverse: Iterate in descending order, from the last key of the range to the first.
            values: True if the caller will use ``fetch``, false if it will use ``fetch_keys``.
        """


class Snapshot(Reader, Protocol):
    """A reader of the store as it was when the snapshot was taken."""

    def close(self) -> None:
        """Release the snapshot. Closing twice is harmless."""


class Transaction(Reader, Protocol):
    """A reader and single writer of a store, from which all other writers are locked out.

    Attributes:
        connection_epoch: A value that changes if the store may have been replaced since the
            previous transaction, for example restored from a backup: the database connection was
            lost, or the database server restarted. Constant for embedded stores.
    """

    @property
    def connection_epoch(self) -> Hashable:
        """The identity of the connection; see the class."""

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """Apply all entries in order, or none. Called at most once, as the last call of the block.

        Args:
            batch: The entries to apply.
            durable: True if the batch must be on disk (fsync) before the commit returns.
        """


class Backend(ABC):
    """An ordered store of bytes, the base class of all backends.

    To add a backend, subclass this class and name it in the entry-point group
    ``treehub_level.backends``; ``docs/backends.md`` is the guide.

    Args:
        name: The first argument of ``Level(name)``: a path, a label or a URL.
        **options: The keyword arguments of ``Level`` that are not its own.
    """

    #: The capabilities of this backend.
    supports: ClassVar[Supports]
    #: The same as `Transaction.connection_epoch`, for a backend that is its own transaction.
    connection_epoch: Hashable = None
    #: The registered name of the backend that opens what `write_backup` has written. ``None`` if
    #: this backend does not have that method: then the rows of a snapshot are copied.
    backup_backend: ClassVar[str | None] = None
    #: The damage that the last ``open()`` found and repaired, one sentence for each.
    recovery_notes: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        #: The lock of the one writer in this process.
        self.write_lock = ErrorCheckingLock(f"write to {name!r}")

    @abstractmethod
    def open(self) -> None:
        """Open the store; create it if it does not exist.

        Raises:
            LockedError: The store is open, in this process or another.
            StorageError: The store cannot be reached, created or read.
            CorruptionError: The store is damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the store. The engine calls it when no other call, cursor or snapshot is left."""

    def close_and_remove(self, is_unused: Callable[[Reader], bool]) -> None:
        """Close the store, and remove it with all that ``open()`` has created, if it is unused.

        Called instead of ``close()`` if ``open()`` has created the store for a command that failed.
        The default only closes it.

        Args:
            is_unused: Returns True if the store holds no data. Called with the other writers locked
                out.
        """
        self.close()

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Take a snapshot of the store."""

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`. Override the three read methods if the vendor has a faster way."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Reader.get_many`. Reads from a snapshot of its own."""
        with closing(self.snapshot()) as snapshot:
            return snapshot.get_many(keys)

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """See `Reader.scan`. Reads from a snapshot of its own, closed together with the cursor."""
        snapshot = self.snapshot()
        try:
            return SnapshotCursor(snapshot, snapshot.scan(start, stop, reverse=reverse, values=values))
        except BaseException:
            snapshot.close()
            raise

    @abstractmethod
    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `Transaction.write`. The engine calls it inside an ``exclusive()`` block only."""

    def exclusive(self) -> AbstractContextManager[Transaction]:
        """Return a context manager that locks out all other writers and yields a transaction.

        An embedded store needs only the lock of this default. A shared store begins a database
        transaction, locks first the row that holds the CID, commits the batch that ``write``
        received at the end of the block, and rolls back if the block raises. If the block raises an
        `UnavailableError` with ``retryable`` set, the engine runs the whole transaction again.

        The engine holds ``write_lock`` around the block. Others do the same, by ``with
        backend.write_lock.entry(), backend.exclusive() as transaction``, if an interrupt must not
        leave the lock taken. An override that needs the lock may take it again: it is recursive.
        """
        return ExclusiveAccess(self)

    def on_interrupt(self) -> None:  # noqa: B027  # most backends have nothing to clean up
        """Roll back what an interrupted ``exclusive()`` block has left behind.

        The engine calls this method under ``write_lock``, after a signal handler has raised in the
        middle of a write: perhaps in ``__enter__`` or in ``__exit__``.
        """

    def listen(self, callback: Callable[[], None]) -> None:  # noqa: B027  # the engine notifies of its own commits
        """Call ``callback`` soon after each commit of another process, until ``close()``.

        Only shared stores need to override this method. The engine calls it at most once for each
        ``open()``, when the first listener is added. The callback may be called from any thread.
        Extra calls are harmless, but at least one call must follow the last commit.
        """

    def foreign_commits(self) -> Hashable:
        """Return a value that changes if another process has committed since the call before.

        Commits by this backend object leave it unchanged. The engine calls this method with the
        other writers of this process locked out, and on a new value reads the ranges that are
        watched again. The default ``None`` means that it is not known.
        """
        return None

    def writes_at_once(self) -> bool:
        """Return True if a non-durable write of some tens of KiB would take microseconds now.

        The engine calls this method with all other writers locked out, and on True it writes on the
        event loop. The method itself must not block.
        """
        return False

    def open_read_only(self, *, locked: bool = False) -> None:
        """Open the store for reading only. No store is created, and no data is changed.

        The engine calls no method that writes until the store is closed. Override this method if
        ``open()`` changes files, or cannot open a store on a read-only medium or beside a process
        that has it open.

        Args:
            locked: True if no other process may have the store open meanwhile. Without a lock for
                one process, as in a shared store, it has no effect.

        Raises:
            StorageError: There is no store, or it cannot be read.
            LockedError: ``locked`` is set, and the store is open.
            CorruptionError: The store is damaged.
        """
        if not self.exists():
            raise no_store_error(self.name)
        self.open()

    def exists(self) -> bool:
        """Return True if ``open()`` would not create a new store. Called while it is closed."""
        return True

    def check_in_place(self) -> None:  # noqa: B027  # a database server looks after its own files
        """Check that the open store still lies where it was opened.

        Raises:
            StorageError: Its files were deleted, moved or replaced.
        """

    def size_on_disk(self) -> int | None:
        """Return the size of the store on disk in bytes; ``None`` if it is not on disk."""
        return None

    def write_backup(self, target: str, *, previous: str | None, on_copied: Callable[[int], object]) -> None:
        """Write a complete copy of the open store, as of one moment, without locking writers out.

        Called only if `backup_backend` is set. The caller syncs the copy to the disk, and names it.
        It shares no file with the store: changing the owner of one, or truncating it, must not harm
        the other.

        Args:
            target: The path of the copy: absent, or what an interrupted call has left.
            previous: An earlier complete backup of the store, with which the copy may share files
                that never change; ``None`` if there is none.
            on_copied: Called with the number of bytes since the last call. It may raise.

        Raises:
            StorageError: The store cannot be read.
            CorruptionError: The store is damaged.
            OSError: The copy cannot be written.
        """
        raise NotImplementedError

    def compact(self) -> None:  # noqa: B027  # an engine without compaction needs no override
        """Reclaim the space of overwritten and deleted rows."""


def no_store_error(name: str) -> StorageError:
    """Return the exception for a store that is to be read, and does not exist."""
    return StorageError(f"there is no store at {name!r}")


class SnapshotCursor(Cursor):
    """A cursor that owns its snapshot: closing the cursor closes the snapshot too."""

    def __init__(self, snapshot: Snapshot, cursor: Cursor) -> None:
        self._snapshot = snapshot
        self._cursor = cursor

    def fetch(self, limit: int) -> list[Row]:
        return self._cursor.fetch(limit)

    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        return bounded_fetcher(self._cursor)(limit, max_bytes)

    def fetch_keys(self, limit: int) -> list[bytes]:
        return self._cursor.fetch_keys(limit)

    def close(self) -> None:
        self._cursor.close()
        self._snapshot.close()


class ExclusiveAccess:
    """The ``exclusive()`` block of an embedded store: the thread holds the backend's lock in it.

    A class instead of a ``@contextmanager`` generator, which would be slower on each write.
    """

    __slots__ = ("_acquired", "_backend")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._acquired = False

    def __enter__(self) -> Transaction:
        if not self._backend.write_lock.is_owned():
            self._acquired = self._backend.write_lock.acquire()
        return self._backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._acquired:
            self._backend.write_lock.release()
