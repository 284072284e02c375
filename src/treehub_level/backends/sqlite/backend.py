"""One file of SQLite's, by the standard library's ``sqlite3``, which several processes may have open.

Writers lock the file by ``BEGIN IMMEDIATE`` and wait for each other; readers wait for nobody, and nobody for them: in
SQLite's WAL mode each reads the moment at which it began (https://www.sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ...errors import CommitUnknownError, LevelError, LockedError, NotOpenError, StorageError, UnavailableError
from ..base import Backend, Batch, Supports
from ..paths import checked_path
from .reading import ConnectionReader, SQLiteCursor, translated, value_of

#: What the header of our files says: "THLV", and the version of what is in them.
APPLICATION_ID: Final = 0x54484C56
FORMAT: Final = 1
_TABLE: Final = "CREATE TABLE entries(key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"

#: Without a trigger or another index this overwrites in place, and looks for the key once.
_PUT: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?)"
_DELETE: Final = "DELETE FROM entries WHERE key = ?"

_MIB: Final = 1024 * 1024
#: Bytes of pages that the connection that writes keeps in memory, and each that reads.
_WRITER_CACHE: Final = 64 * _MIB
_READER_CACHE: Final = 8 * _MIB
#: Pages of the log, of 4 KiB, after which they are copied to where they belong: 64 MiB, so that a page that is written
#: again and again is copied once. And bytes of the log that are kept on disk then.
_CHECKPOINT_PAGES: Final = 16_000
_LOG_KEPT: Final = 64 * _MIB
#: Pages that a compaction gives back at a time: other writers have their turns between.
_VACUUM_PAGES: Final = 500
#: Connections that are kept for readers to come.
_IDLE: Final = 8
#: Seconds between two looks for commits of others.
_POLL: Final = 0.03


class SQLiteBackend(Backend):
    """A store in one file, beside which SQLite keeps a log, ``NAME-wal``, and ``NAME-shm`` while it is open.

    Several processes of one machine may open it at once. Never on a network file system: SQLite's processes share
    memory there that machines cannot share, and its locks are not to be relied on; serve the store over HTTP instead.
    To restore a file, close it in every process first: one that is replaced under an open level has a log that does
    not fit it, and is not written any more. A copy is made by ``sqlite3 NAME ".backup COPY"``, or of the file while
    nobody has it open.

    A snapshot, or a scan, that is held for long keeps the log from being emptied: it grows by what is written.

    Args:
        name: The path of the file. Its folder must be there.
        timeout: Seconds that a writer waits for others before it raises `UnavailableError`.

    Raises:
        TypeError: The path or an option is of a wrong type.
        ValueError: A negative timeout.
        StorageError: The path is a URL.
    """

    supports = Supports(persistent=True, inline_reads=True, shared=True)

    def __init__(self, name: str | os.PathLike[str], *, timeout: float = 10.0) -> None:
        path = checked_path(name, "an SQLite")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout must be a number of seconds, not {timeout!r:.80}")
        if not 0 <= timeout <= 1e6:
            raise ValueError(f"timeout must be 0 or more seconds, not {timeout!r:.80}")
        super().__init__(path)
        # Absolute, since the working directory may change; and so no name is one that SQLite takes for memory.
        self._path = os.path.abspath(path) if path else path
        self._timeout = timeout
        self._writer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._file: tuple[int, int] | None = None
        self._listener: SQLiteListener | None = None

    # ------------------------------------------------------------------------------------------ life cycle

    def open(self) -> None:
        """See `Backend.open`.

        Raises:
            StorageError: Also if the file is a database of another program's, or may not be written.
            CorruptionError: Also if it is no database.
        """
        with self.write_lock:
            if self._writer is not None:
                raise LockedError(f"the SQLite store {self._path!r} is open already: close the level that has it open")
            _check_path(self._path)
            with self._failing("open"), _closed_if_it_fails(self._connect("rwc", _WRITER_CACHE)) as writer:
                writer.execute("PRAGMA synchronous = NORMAL")
                writer.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
                writer.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")
                self._make(writer)
                if os.name == "posix":  # the names of the file and its log; Windows sees to that itself
                    _sync(os.path.dirname(self._path), os.O_RDONLY)
                self._file = self._stat()
                self._writer = writer

    def _make(self, writer: sqlite3.Connection) -> None:
        """Make the table, unless it is there."""
        # Another program's database is left as it is: WAL mode would stay with it.
        with _transaction(writer, "DEFERRED"):
            found = self._is_ours(writer)
        if not found:
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._use_wal(writer)
        with _transaction(writer, "IMMEDIATE"):
            if not self._is_ours(writer):  # two processes may make one store at the same moment
                writer.execute(_TABLE)
                writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            writer.execute(f"PRAGMA user_version = {FORMAT}")  # always: a file that may not be written says so here
            writer.execute("COMMIT")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the database is one of ours; ``False`` if there is nothing in it yet.

        Raises:
            StorageError: It is another program's, or of a later version of this one.
        """
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
        if not (application or version or tables):
            return False
        if application != APPLICATION_ID:
            raise StorageError(
                f"cannot open {self._path!r}: it is an SQLite database of another program, with the "
                f"{'tables ' + ', '.join(tables) if tables else 'application id ' + str(application):.80}. "
                "Choose another file"
            )
        if version != FORMAT:
            raise StorageError(
                f"cannot open {self._path!r}: its format is {version}, and this version of treehub-level reads {FORMAT}"
            )
        if tables.get("entries") != _TABLE:
            raise StorageError(
                f"cannot open {self._path!r}: its table `entries` is not as treehub-level makes it, but "
                f"{tables.get('entries')!r:.200}"
            )
        return True

    def _use_wal(self, writer: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                # SQLite does not wait here for another process that does the same.
                refused = translated("open", self._path, error)
                if not isinstance(refused, UnavailableError) or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                break
        if mode != "wal":
            raise StorageError(
                f"cannot open {self._path!r}: SQLite cannot share it between processes where it lies (its journal mode "
                f"stays {mode!r}). A network file system? Keep it on a local disk"
            )

    def close(self) -> None:
        """See `Backend.close`. The last process that closes the file empties its log."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        with self.write_lock:
            writer, self._writer = self._writer, None
            while self._idle:
                self._idle.pop().close()
            if writer is not None:
                writer.close()

    def exists(self) -> bool:
        """See `Backend.exists`. Whatever is in the way counts: ``open()`` says what is wrong with it."""
        return os.path.exists(self._path) and os.path.getsize(self._path) > 0

    # --------------------------------------------------------------------------------------------- reading

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        connection = self._borrow()
        try:
            value = value_of(connection, key)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise translated("read", self._path, error) from error
            raise
        self._give_back(connection)
        return value

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> SQLiteCursor:
        """See `Reader.scan`."""
        with closing(self.snapshot()) as snapshot:
            return snapshot.scan(start, stop, reverse=reverse, values=values)

    def snapshot(self) -> ConnectionReader:
        """See `Backend.snapshot`."""
        connection = self._borrow()
        with self._failing("read"), _closed_if_it_fails(connection):
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM entries LIMIT 1").fetchall()  # the moment is that of the first read
        return ConnectionReader(connection, self._path, self._end_snapshot)

    def _end_snapshot(self, connection: sqlite3.Connection) -> None:
        with self._failing("read"), _closed_if_it_fails(connection):
            connection.execute("ROLLBACK")
        self._give_back(connection)

    def _borrow(self) -> sqlite3.Connection:
        """A connection that nobody else uses."""
        if self._writer is None:
            raise NotOpenError(f"the SQLite store {self._path!r} is not open")
        with suppress(IndexError):
            return self._idle.pop()
        with self._failing("read"):
            return self._connect("rw", _READER_CACHE)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) < _IDLE and self._writer is not None:
            self._idle.append(connection)
        else:
            connection.close()

    # --------------------------------------------------------------------------------------------- writing

    @contextmanager
    def exclusive(self) -> Iterator[SQLiteTransaction]:
        """See `Backend.exclusive`."""
        with self.write_lock:
            writer = self._writer
            if writer is None:
                raise NotOpenError(f"the SQLite store {self._path!r} is not open")
            try:
                with self._failing("write to"):
                    writer.execute("BEGIN IMMEDIATE")
                self._check_file()
                with closing(SQLiteTransaction(writer, self)) as transaction:
                    yield transaction
                if transaction.has_written:
                    with self._failing("write to"):
                        writer.execute("COMMIT")
            finally:
                _roll_back(writer)
            if transaction.durable:
                self._sync_log()

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """Write in a transaction of its own."""
        with self.exclusive() as transaction:
            transaction.write(batch, durable=durable)

    def _sync_log(self) -> None:
        """Bring to the disk what was committed: what ``PRAGMA synchronous = FULL`` does at the end of a commit.

        That cannot be said within a transaction, and not before it either: that this one is to be durable turns out in
        it. What has left the log meanwhile is on the disk already, as ``synchronous = NORMAL`` promises.
        """
        try:
            _sync(self._path + "-wal", os.O_RDWR)
        except OSError as error:
            raise CommitUnknownError(
                f"{self._path!r} was written, and the disk did not confirm it: a power cut may undo that ({error})"
            ) from error

    def _check_file(self) -> None:
        if self._stat() != self._file:
            raise StorageError(
                f"cannot write to {self._path!r}: the file was replaced while it was open: its log does not fit. "
                f"Close it everywhere, remove {os.path.basename(self._path) + '-wal'!r}, and put the file there again"
            )

    def _stat(self) -> tuple[int, int]:
        with self._failing("write to"):
            found = os.stat(self._path)
        return found.st_dev, found.st_ino

    # ---------------------------------------------------------------------------------------------- upkeep

    def listen(self, heard: Callable[[], None]) -> None:
        """See `Backend.listen`. A thread looks for commits, all of them, thirty times a second."""
        self._listener = SQLiteListener(heard, lambda: self._connect("rw", 0))

    def size_on_disk(self) -> int:
        """Bytes of the file and its log."""
        sizes = [Path(self._path + suffix) for suffix in ("", "-wal")]
        with self._failing("read"):
            return sum(path.stat().st_size for path in sizes if path.exists())

    def compact(self) -> None:
        """Give free pages back, some at a time, and empty the log if nobody reads an older moment.

        Not by VACUUM, which writes the whole file anew, and keeps every writer out meanwhile.
        """
        more = True
        while more:
            with self.exclusive() as transaction:
                more = transaction.give_pages_back(_VACUUM_PAGES)
        with self._failing("write to"), closing(self._connect("rw", 0, timeout=0)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _connect(self, mode: str, cache: int, timeout: float | None = None) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode={mode}",  # "rw": a file that is gone is not made again, empty
            uri=True,
            timeout=self._timeout if timeout is None else timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        with _closed_if_it_fails(connection):
            connection.execute(f"PRAGMA cache_size = {-(cache // 1024)}")
        return connection

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except LevelError:
            raise
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise translated(doing, self._path, error) from error


class SQLiteTransaction(ConnectionReader):
    """See `base.Transaction`."""

    connection_epoch = None

    def __init__(self, writer: sqlite3.Connection, backend: SQLiteBackend) -> None:
        super().__init__(writer, backend._path, lambda writer: None)
        self._backend = backend
        self.has_written = self.durable = False

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """See `base.Transaction.write`."""
        puts = dict(batch)
        deletes = [key for key, value in puts.items() if value is None]
        for key in deletes:
            del puts[key]
        # In order of the keys, so that those which share a page lie side by side. As bytearrays, since sqlite3 looks
        # for an adapter for each bytes, which takes longer than a copy.
        rows = ((bytearray(key), bytearray(puts[key] or b"")) for key in sorted(puts))
        with self._backend._failing("write to"):
            self._connection.executemany(_PUT, rows)
            self._connection.executemany(_DELETE, ((key,) for key in deletes))
        self.has_written, self.durable = True, durable

    def give_pages_back(self, count: int) -> bool:
        """Cut so many free pages off the file, and tell whether there are more."""
        with self._backend._failing("compact"):
            before = self._free_pages()
            self._connection.execute(f"PRAGMA incremental_vacuum({count})").fetchall()
            after = self._free_pages()
        self.has_written = True
        return 0 < after < before

    def _free_pages(self) -> int:
        (count,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return int(count)

    def close(self) -> None:
        """Close what was left open: an open statement would keep the next transaction from seeing what is new."""
        for cursor in tuple(self._cursors):
            cursor.close()
        super().close()


class SQLiteListener:
    """A thread that tells of commits."""

    def __init__(self, heard: Callable[[], None], connect: Callable[[], sqlite3.Connection]) -> None:
        self._heard = heard
        self._connect = connect
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treehub-level-sqlite-listen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        seen = None
        while not self._stopped.is_set():
            with suppress(sqlite3.Error):  # locked for a moment, or no descriptor left: the next look will tell
                connection = connection or self._connect()
                version = connection.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen = version
                    self._heard()
            self._stopped.wait(_POLL)
        if connection is not None:
            connection.close()


def _check_path(path: str) -> None:
    folder = os.path.dirname(path)
    if not path or "\0" in path:
        raise StorageError(f"cannot open {path!r}: that is no path")
    if os.path.isdir(path):
        raise StorageError(f"cannot open {path!r}: it is a directory, and an SQLite store is a file")
    if not os.path.isdir(folder):
        raise StorageError(f"cannot open {path!r}: there is no folder {folder!r}; make it first")


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        getattr(os, "fdatasync", os.fsync)(descriptor)
    finally:
        os.close(descriptor)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # it says so where SQLite has rolled back itself
            connection.execute("ROLLBACK")


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Begin one, and roll it back unless it is committed."""
    try:
        connection.execute(f"BEGIN {kind}")
        yield
    finally:
        _roll_back(connection)


@contextmanager
def _closed_if_it_fails(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
