"""`SQLiteBackend`, on top of the standard library's ``sqlite3``.

Several processes may open one file. A writer locks the file with ``BEGIN IMMEDIATE``, and other
writers wait for it. SQLite runs in WAL mode, in which readers and writers do not block each other:
a read transaction keeps the snapshot that it began with (https://www.sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ...errors import LevelError, LockedError, NotOpenError, StorageError, UnavailableError
from ..base import Backend, Batch, Reader, Supports, no_store_error
from ..paths import checked_path
from .backup import write_backup
from .errors import has_run_out_of_space, translated_error, translating_errors
from .file import SQLiteFile, close_on_error, sync_path
from .listener import SQLiteListener
from .log_limit import LogLimit
from .process_lock import ProcessLock
from .read_only import read_only_uri
from .reading import SQLiteCursor, SQLiteSnapshot, select_value
from .transaction import SQLiteExclusive, roll_back

#: The application id ("THLV") and the format version in the header of the file.
APPLICATION_ID: Final = 0x54484C56
FORMAT: Final = 1
_TABLE: Final = "CREATE TABLE entries(key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"

_MIB: Final = 1024 * 1024
#: The page cache of the writing connection and of each reading connection, in bytes.
_WRITER_CACHE: Final = 64 * _MIB
_READER_CACHE: Final = 8 * _MIB
#: Pages that a compaction frees in one transaction. Other writers can run between two transactions.
_VACUUM_PAGES: Final = 500
#: The maximum number of idle connections kept for later reads.
_MAX_IDLE: Final = 8


class SQLiteBackend(Backend):
    """A store in one SQLite file, which several processes of one machine may open.

    While the store is open, SQLite keeps two more files in the same folder: ``NAME-wal``, the
    write-ahead log, and ``NAME-shm``, memory shared by the processes.

    Do not put the file on a network file system: processes on different machines cannot share that
    memory, and file locks are unreliable there. Serve the store over HTTP instead.

    To back up a store, call `Level.backup` or run ``treehub-level backup``. Do not replace the file
    while it is open: its write-ahead log would no longer fit, and all writes raise `StorageError`.

    While a snapshot or a scan is open, SQLite cannot reset the write-ahead log, which grows with
    each write.

    Args:
        name: The path of the file. Its folder must exist.
        timeout: Seconds that a writer waits for other writers before it raises `UnavailableError`.

    Raises:
        TypeError: The path or an option has the wrong type.
        ValueError: The timeout is negative.
        StorageError: The path is a URL.
    """

    supports = Supports(persistent=True, inline_reads=True, shared=True)
    backup_backend = "sqlite"

    def __init__(self, name: str | os.PathLike[str], *, timeout: float = 10.0) -> None:
        path = checked_path(name, "an SQLite")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise TypeError(f"timeout must be a number of seconds, not {timeout!r:.80}")
        if not 0 <= timeout <= 1e6:
            raise ValueError(f"timeout must be 0 or more seconds, not {timeout!r:.80}")
        super().__init__(path)
        # Absolute, since the working directory may change; and ":memory:" must not be special.
        self._path = os.path.abspath(path) if path else path
        self._file = SQLiteFile(self._path, timeout)
        self._idle: list[sqlite3.Connection] = []
        #: The copy that is read, if any.
        self._resources = ExitStack()
        self._listener: SQLiteListener | None = None
        self._process_lock: ProcessLock | None = None

    # ----------------------------------------------------------------------------------- life cycle

    def open(self) -> None:
        """See `Backend.open`.

        Raises:
            StorageError: The file cannot be opened or written, or belongs to another program.
            CorruptionError: The file is damaged, or is not an SQLite database.
        """
        with self.write_lock.entry():
            self._check_before_opening()
            _create_private_file(self._path)
            uri = Path(self._path).as_uri()
            file = self._file
            file.uri, file.read_only = f"{uri}?mode=rw", False  # "rw" does not create the file
            with (
                translating_errors("open", self._path),
                close_on_error(file.connect(_WRITER_CACHE, uri=f"{uri}?mode=rwc")) as writer,
            ):
                writer.execute("PRAGMA synchronous = NORMAL")
                # Some builds overwrite each freed page with zeros, for which the log needs space.
                writer.execute("PRAGMA secure_delete = FAST")
                file.log = LogLimit(self._path)
                file.log.apply(writer)
                self._create_table_or_make_space(writer)
                if os.name == "posix":  # sync the directory entries of the file and its log
                    sync_path(os.path.dirname(self._path), os.O_RDONLY)
                file.remember_place()
                self._process_lock = ProcessLock(self._path)
                file.writer = writer

    def open_read_only(self, *, locked: bool = False) -> None:
        """See `Backend.open_read_only`. Commits of other processes are seen."""
        with self.write_lock.entry(), ExitStack() as resources:
            self._check_before_opening()
            if not self.exists():
                raise no_store_error(self._path)
            with translating_errors("read", self._path):
                self._file.uri, self._file.read_only = read_only_uri(self._path, resources), True
                with close_on_error(self._file.connect(_READER_CACHE)) as reader:
                    if not self._has_table_now(reader):
                        raise no_store_error(self._path)
                    self._process_lock = ProcessLock(self._path, marked=False)
                    self._file.writer = reader
            self._resources = resources.pop_all()

    def _check_before_opening(self) -> None:
        if self._file.writer is not None:
            raise LockedError(f"the SQLite store {self._path!r} is open already: close the level that has it open")
        _check_path(self._path)
        ProcessLock.check(self._path)

    def _has_table_now(self, connection: sqlite3.Connection) -> bool:
        with _transaction(connection, "DEFERRED"):
            return self._has_table(connection)

    def _create_table_or_make_space(self, writer: sqlite3.Connection) -> None:
        if self._file.log.is_exceeded():
            self._file.make_space()
        try:
            self._create_table(writer)
        except sqlite3.OperationalError as error:
            if not has_run_out_of_space(error) or not self._file.make_space():
                raise
            self._create_table(writer)

    def _create_table(self, writer: sqlite3.Connection) -> None:
        """Create the table, unless it exists."""
        # Check first: WAL mode is persistent, and must not be set on a database of another program.
        if not self._has_table_now(writer):
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._use_wal(writer)
        with _transaction(writer, "IMMEDIATE"):
            if not self._has_table(writer):  # another process may have created it meanwhile
                writer.execute(_TABLE)
                writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            writer.execute(f"PRAGMA user_version = {FORMAT}")  # always, so that open() fails if the file is read-only
            writer.execute("COMMIT")

    def _has_table(self, connection: sqlite3.Connection) -> bool:
        """Return True if the database has the table, and False if the database is empty.

        Raises:
            StorageError: The database belongs to another program, or has an unknown format version.
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
                f"cannot open {self._path!r}: its table `entries` was not created by treehub-level, but by "
                f"{tables.get('entries')!r:.200}. Choose another file"
            )
        return True

    def _use_wal(self, writer: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._file.timeout
        while True:
            try:
                (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                # SQLite's busy timeout does not apply if another process changes the mode too.
                translated = translated_error("open", self._path, error)
                if not isinstance(translated, UnavailableError) or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                break
        if mode != "wal":
            raise StorageError(
                f"cannot open {self._path!r}: SQLite cannot use WAL mode there (the journal mode stays {mode!r}), most "
                "likely because it is on a network file system: keep the file on a local disk"
            )

    def close(self) -> None:
        """See `Backend.close`. The last process to close the file removes its log."""
        # Interrupted, it goes on at the next call: each connection is forgotten once it is closed.
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        with self.write_lock.entry():
            if self._process_lock is not None:
                self._process_lock.release()
                self._process_lock = None
            while self._idle:
                self._idle[-1].close()
                self._idle.pop()
            if self._file.writer is not None:
                self._file.writer.close()
                self._file.writer = None
            self._resources.close()

    def close_and_remove(self, is_unused: Callable[[Reader], bool]) -> None:
        """See `Backend.close_and_remove`."""
        try:
            with self.write_lock.entry(), self.exclusive() as transaction:
                if is_unused(transaction):
                    for suffix in ("", "-wal", "-shm"):
                        with suppress(FileNotFoundError):
                            os.unlink(self._path + suffix)
        finally:
            self.close()

    def exists(self) -> bool:
        """Return True unless `open` would create the table.

        Also True if `open` raises an error, because the path is no file or no database of ours.
        """
        if not os.path.exists(self._path) or os.path.getsize(self._path) == 0:
            return False
        try:
            ProcessLock.check(self._path)
            with ExitStack() as resources:
                uri = read_only_uri(self._path, resources)
                with closing(self._file.connect(0, uri=uri)) as connection:
                    return self._has_table_now(connection)
        except (LevelError, sqlite3.Error, OSError):
            return True

    # -------------------------------------------------------------------------------------- reading

    def get(self, key: bytes) -> bytes | None:
        """See `Reader.get`."""
        connection = self._acquire_reader()
        try:
            value = select_value(connection, key)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise translated_error("read", self._path, error) from error
            raise
        self._release_reader(connection)
        return value

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> SQLiteCursor:
        """See `Reader.scan`."""
        with closing(self.snapshot()) as snapshot:
            return snapshot.scan(start, stop, reverse=reverse, values=values)

    def snapshot(self) -> SQLiteSnapshot:
        """See `Backend.snapshot`."""
        connection = self._acquire_reader()
        with translating_errors("read", self._path), close_on_error(connection):
            connection.execute("BEGIN")
            connection.execute(
                "SELECT 1 FROM entries LIMIT 1"
            ).fetchall()  # SQLite takes the snapshot at the first read
        return SQLiteSnapshot(connection, self._path, self._end_snapshot)

    def _end_snapshot(self, connection: sqlite3.Connection) -> None:
        with translating_errors("read", self._path), close_on_error(connection):
            connection.execute("ROLLBACK")
        self._release_reader(connection)

    def _acquire_reader(self) -> sqlite3.Connection:
        """Return an idle connection, or else a new one."""
        if self._file.writer is None:
            raise NotOpenError(f"the SQLite store {self._path!r} is not open")
        with suppress(IndexError):
            return self._idle.pop()
        with translating_errors("read", self._path):
            return self._file.connect(_READER_CACHE)

    def _release_reader(self, connection: sqlite3.Connection) -> None:
        if len(self._idle) < _MAX_IDLE and self._file.writer is not None:
            self._idle.append(connection)
        else:
            connection.close()

    # -------------------------------------------------------------------------------------- writing

    def exclusive(self) -> SQLiteExclusive:
        """See `Backend.exclusive`."""
        return SQLiteExclusive(self._file, self.write_lock)

    def on_interrupt(self) -> None:
        """See `Backend.on_interrupt`."""
        if self._file.writer is not None:
            roll_back(self._file.writer)

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        """Write in a transaction of its own."""
        with self.write_lock.entry(), self.exclusive() as transaction:
            transaction.write(batch, durable=durable)

    def check_in_place(self) -> None:
        """See `Backend.check_in_place`. The file's log is checked, too."""
        self._file.check_in_place()

    # ---------------------------------------------------------------------------------- maintenance

    def listen(self, callback: Callable[[], None]) -> None:
        """See `Backend.listen`. A thread polls for commits, including our own, every 30 ms."""
        if self._listener is not None:  # an earlier call was interrupted
            self._listener.request_stop()
        self._listener = SQLiteListener(callback, lambda: self._file.connect(0))
        self._listener.start()

    def foreign_commits(self) -> object:
        """See `Backend.foreign_commits`: SQLite counts the commits of other connections."""
        if self._file.writer is None:
            raise NotOpenError(f"the SQLite store {self._path!r} is not open")
        with translating_errors("read", self._path):
            return self._file.writer.execute("PRAGMA data_version").fetchone()

    def size_on_disk(self) -> int:
        """Return the size of the file and its write-ahead log, in bytes."""
        sizes = [Path(self._path + suffix) for suffix in ("", "-wal")]
        with translating_errors("read", self._path):
            return sum(path.stat().st_size for path in sizes if path.exists())

    def write_backup(self, target: str, *, previous: str | None, on_copied: Callable[[int], object]) -> None:
        """See `Backend.write_backup`. The copy is a whole file, which shares nothing."""
        connection = self._acquire_reader()
        with closing(connection), translating_errors("back up", self._path), _transaction(connection, "DEFERRED"):
            connection.execute("SELECT 1 FROM entries LIMIT 1").fetchall()  # takes the snapshot
            write_backup(connection, target, on_copied)

    def compact(self) -> None:
        """Return free pages to the file system, and truncate the log if no older snapshot is open.

        VACUUM is not used, since it rewrites the whole file and blocks all writers meanwhile.
        """
        self._file.make_space()
        more = True
        while more:
            with self.write_lock.entry(), self.exclusive() as transaction:
                more = transaction.release_free_pages(self._file.log.pages_at_a_time(_VACUUM_PAGES))
        self._file.truncate_log()


def _check_path(path: str) -> None:
    folder = os.path.dirname(path)
    if not path or "\0" in path:
        raise StorageError(f"cannot open {path!r}: that is not a path")
    if os.path.isdir(path):
        raise StorageError(f"cannot open {path!r}: it is a directory, and an SQLite store is a file")
    if not os.path.isdir(folder):
        raise StorageError(f"cannot open {path!r}: there is no folder {folder!r}; create it first")


def _create_private_file(path: str) -> None:
    """Create an empty file for its owner only, unless it exists.

    SQLite creates files that all users may read, and gives its log the mode of the database. An
    empty file is a new database. If it cannot be created, SQLite reports the reason.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Begin a transaction, and roll it back at the end of the block unless it was committed."""
    try:
        connection.execute(f"BEGIN {kind}")
        yield
    finally:
        roll_back(connection)
