"""The base class of the LevelDB backends, with workarounds for faults of LevelDB.

Observed with LevelDB 1.22 and 1.23:

- LevelDB takes a directory without a ``CURRENT`` file for a new store, and deletes the tables in
it.
- Its repair and destroy functions accept any directory, and may delete files of other programs.
- A store with a damaged log opens with writes missing from the middle of its history; see
  `log_scan`. With "paranoid" checks such a store does not open, but neither does a store whose log
  merely has garbage at its end, as a power cut can leave it.
- A compaction copies damaged blocks and gives them new checksums, unless checks are "paranoid".
- A durable write syncs the current log, but not the log before it. A power cut can thus lose an
  earlier write and keep a later, durable one.
- If a table file is deleted while the store is open, scans fail, but ``get`` reports its keys as
  absent.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, NoReturn

from ...errors import CorruptionError, NotOpenError, StorageError
from ..base import Backend, Reader, Supports, no_store_error
from ..disk_space import disk_full_error
from ..paths import checked_path
from .backup import write_backup
from .errors import directory_error, locked_error, shown_paths
from .file_identity import FileIdentity
from .files import LOST, REPAIRING, check_files, holds_store, is_leveldb_file, remedy, would_create
from .lock import DirectoryLock, hold_lock_file
from .log_scan import LogScan, is_complete, listed_tables, log_files, scan_logs
from .read_only import lock_for_reading, open_checkpoint
from .space_limit import SpaceLimit

logger = logging.getLogger("treehub_level")

_MIB: Final = 1024 * 1024
_MAX_SIZE: Final = 2**40
_MAX_COUNT: Final = 2**31 - 1

#: The log takes at most this fraction of the free space, unless that is less than 1 MiB.
_LOG_SHARE: Final = 16


class DirectoryBackend(Backend):
    """A store in a LevelDB directory.

    ``open()`` refuses a directory that is no store and not empty: it has files of other programs,
    or holds stores in its turn. LevelDB clips sizes outside its own limits.

    Args:
        name: The path of the directory. ``open()`` creates it, with its parents.
        write_buffer_size: Bytes collected in memory before LevelDB writes a table. The default of
            64 MiB, instead of LevelDB's 4 MiB, makes bulk loads about three times faster. The price
            is up to half a second more to open, since the log is as long as the buffer. It is at
            most a sixteenth of the space that is free when the store is opened, or 1 MiB.
        bloom_filter_bits: Bits per key of the Bloom filter, which avoids most disk reads for absent
            keys; 0 for no filter.
        block_cache_size: Bytes of the cache for uncompressed blocks. The default of 32 MiB, four
            times LevelDB's, holds about 250,000 rows of JSON. A read from the cache takes a quarter
            of the time of a read that decompresses a block.
        block_size: Bytes of a block, the unit of reads and of compression.
        max_open_files: The maximum number of table files kept open.
        max_file_size: The maximum size of a table file in bytes.
        compression: ``"snappy"`` or ``None``.

    Raises:
        TypeError: The path or an option has the wrong type.
        ValueError: An option is out of range.
        StorageError: The path is a URL.
    """

    supports = Supports(persistent=True, inline_reads=True)
    backup_backend = "leveldb"

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        write_buffer_size: int = 64 * _MIB,
        bloom_filter_bits: int = 10,
        block_cache_size: int = 32 * _MIB,
        block_size: int = 4096,
        max_open_files: int = 1000,
        max_file_size: int = 2 * _MIB,
        compression: str | None = "snappy",
    ) -> None:
        path = checked_path(name, "a LevelDB")
        super().__init__(path)
        if not isinstance(compression, str | None):
            raise TypeError(f'compression must be "snappy" or None, not {compression!r:.80}')
        if compression not in ("snappy", None):
            raise ValueError(f'compression must be "snappy" or None, not {compression!r:.80}')
        self._options: dict[str, Any] = {
            "write_buffer_size": _checked("write_buffer_size", write_buffer_size, 1, _MAX_SIZE),
            "bloom_filter_bits": _checked("bloom_filter_bits", bloom_filter_bits, 0, _MAX_COUNT),
            "block_cache_size": _checked("block_cache_size", block_cache_size, 0, _MAX_SIZE),
            "block_size": _checked("block_size", block_size, 1, _MAX_SIZE),
            "max_open_files": _checked("max_open_files", max_open_files, 1, _MAX_COUNT),
            "max_file_size": _checked("max_file_size", max_file_size, 1, _MAX_SIZE),
            "compression": compression,
        }
        # Absolute, since LevelDB uses the path later, when the working directory may have changed.
        # An empty path stays empty: `open` rejects it.
        self._path = os.path.abspath(path) if path else path
        #: The directory to which a repair moves replaced files, and `open` copies damaged ones.
        self.lost = os.path.join(self._path, LOST)
        self._closed = ClosedDatabase(self._path)
        # Set before `_lock`: attributes are freed in this order, so a backend that is
        # garbage-collected while open closes its database before it releases the lock.
        self._db: Any = self._closed
        self._lock: DirectoryLock | None = None
        #: The directories that the last opening has created, outermost first.
        self._created: list[str] = []
        #: The checkpoint and the locks of a store that is open for reading only.
        self._reading: ExitStack | None = None
        #: The files of the open store.
        self._identity: FileIdentity | None = None
        #: The limit for the writes of the open store.
        self._space = SpaceLimit(self._path, write_buffer_size)
        #: True if the last write was not durable. Each subclass sets it in ``write``.
        self._unsynced = True

    @abstractmethod
    def _connect(self, *, paranoid: bool) -> Any:
        """Open the database at ``_path``, and create it if it does not exist.

        Args:
            paranoid: LevelDB's option ``paranoid_checks``: fail on damaged data instead of skipping
                it.

        Returns:
            The database, an object with a method ``close``.
        """

    @abstractmethod
    def _repair(self) -> None:
        """Run LevelDB's repair on the directory. The caller holds both locks."""

    @abstractmethod
    def _destroy(self) -> None:
        """Run LevelDB's destroy function on the directory. The caller holds the `DirectoryLock`."""

    def _opening_options(self) -> dict[str, Any]:
        """Return the options to open the database with. On a small disk its log stays small.

        Opening a store writes its log to a table, which takes the space of the log again. A store
        whose log fills the disk could not be opened any more.
        """
        self._write_buffer_size = self._options["write_buffer_size"]
        with suppress(OSError):
            bound = max(shutil.disk_usage(self._path).free // _LOG_SHARE, _MIB)
            self._write_buffer_size = min(self._write_buffer_size, bound)
        return {**self._options, "write_buffer_size": self._write_buffer_size}

    def open(self) -> None:
        """See `Backend.open`. Creates the directory with its parents."""
        self._open()

    def _open(self, *, repaired: bool = False) -> None:
        self._created = _missing_directories(self._path)
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)  # for the owner only; the parents as usual
        except (OSError, ValueError) as error:
            self._remove_created()
            raise directory_error("open", self._path, error) from error
        lock = DirectoryLock("open", self._path)
        self.recovery_notes = ()
        try:
            check_files(self._path, repaired=repaired)
            lock.hold_file()
            self._lock = lock
            self._connect_verified()
            lock.replace_file()
            self._identity = FileIdentity(self._path)
            self._space = SpaceLimit(self._path, self._write_buffer_size)
        except BaseException:
            self._lock = None  # `close` would release it before the files are removed
            self.close()
            if self._created:
                self._remove_files()
            lock.release()
            self._remove_created()
            raise

    def _connect_verified(self) -> None:
        """Open the database after a check of its logs.

        A store with damage only at the end of a log or of the MANIFEST is opened without that end,
        as after a crash. A store with any other damage is refused.
        """
        has_current = os.path.exists(os.path.join(self._path, "CURRENT"))
        gap = self._scan_logs(verify_checksums=False).gap if has_current else None
        if gap is None:
            try:
                # No other reference: the database that an interrupt leaves behind is freed at once.
                self._db = self._connect_on_full_disk()
                return
            except CorruptionError as error:
                damage = error
        else:
            damage = CorruptionError(f"the LevelDB store at {self._path!r} is damaged: {gap}. {remedy(self._path)}")
        scan = self._scan_logs(verify_checksums=True)
        if scan.gap is not None or not scan.damaged_files:
            raise damage
        self._cut_damage(scan)
        # Without paranoid checks LevelDB moves the readable part of the logs to a table, and begins
        # a new log and a new MANIFEST. The store then opens with paranoid checks.
        self._connect(paranoid=False).close()
        notes = [*self._describe_damage(scan)]
        self._db = self._connect_on_full_disk()
        self.recovery_notes = notes
        shown = shown_paths.get(self._path, self._path)
        logger.warning("the LevelDB store at %r was damaged: %s", shown, "; ".join(notes))

    def _connect_on_full_disk(self) -> Any:
        """Open the database. On a full disk make the space first that LevelDB makes afterwards."""
        try:
            return self._connect(paranoid=True)
        except StorageError as error:
            if not error.is_disk_full:
                raise
        self._remove_unlisted_tables()
        try:
            return self._connect(paranoid=True)
        except StorageError as error:
            if not error.is_disk_full:
                raise
            needed = 2 * sum(self._size_of(name) for name in log_files(self._path)) // _MIB + 1
            raise disk_full_error(
                f"cannot open the LevelDB store at {self._path!r}: the disk is full, and opening writes the log of the "
                f"store to a table. Free {needed} MiB on the disk, open the store, then delete data and compact it. "
                f"With read_only=True it can be read without: set TMPDIR to a folder on another disk ({error})"
            ) from error

    def _remove_unlisted_tables(self) -> None:
        """Remove the tables that the MANIFEST does not name: those of a compaction that failed."""
        with hold_lock_file("open", self._path), suppress(OSError):
            if is_complete(self._path):
                listed = listed_tables(self._path)
                for name in os.listdir(self._path):
                    if name.endswith((".ldb", ".sst")) and name not in listed:
                        os.unlink(os.path.join(self._path, name))

    def _size_of(self, name: str) -> int:
        try:
            return os.path.getsize(os.path.join(self._path, name))
        except OSError:
            return 0

    def _describe_damage(self, scan: LogScan) -> Iterator[str]:
        """Yield a sentence for each kind of damage that was cut off."""
        copies = f"opening copies the damaged files to {self.lost}"
        if scan.manifest_cut is not None:
            yield f"the end of the MANIFEST could not be read, and was not needed; {copies}"
        if len(scan.damaged_files) > (scan.manifest_cut is not None):
            yield f"the end of the log could not be read: the last writes are lost, all earlier ones are kept; {copies}"

    def _scan_logs(self, *, verify_checksums: bool) -> LogScan:
        with hold_lock_file("open", self._path):
            try:
                return scan_logs(self._path, verify_checksums=verify_checksums)
            except OSError as error:
                raise directory_error("open", self._path, error) from error

    def _cut_damage(self, scan: LogScan) -> None:
        """Copy the damaged files to `lost`, and cut off the damaged end of the MANIFEST."""
        try:
            os.makedirs(self.lost, exist_ok=True)
            for name in scan.damaged_files:
                shutil.copy2(os.path.join(self._path, name), self.lost)
            if scan.manifest_cut is not None:
                name, size = scan.manifest_cut
                manifest = os.path.join(self._path, name)
                # Replace the file instead of changing it: it may be a hard link (see
                # `open_read_only`).
                shutil.copy2(manifest, manifest + ".cut")
                os.truncate(manifest + ".cut", size)
                os.replace(manifest + ".cut", manifest)
        except OSError as error:
            raise directory_error("open", self._path, error) from error

    def close(self) -> None:
        """See `Backend.close`. It waits for a write: see `_check_files_in_place`."""
        # Interrupted, it goes on at the next call: the database is forgotten once it is closed.
        with self.write_lock.entry():
            self._identity = None
            try:
                if self._reading is None:
                    self._db.close()
                else:
                    self._reading.close()
            finally:
                self._db = self._closed
                self._reading = None
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None

    def close_and_remove(self, is_unused: Callable[[Reader], bool]) -> None:
        """See `Backend.close_and_remove`."""
        lock, self._lock = self._lock, None  # `close` would release it
        unused = False
        try:
            unused = is_unused(self)
        finally:
            try:
                self.close()
                if unused:
                    self._remove_files()
            finally:
                if lock is not None:
                    lock.release()
        if unused:
            self._remove_created()

    def _remove_files(self) -> None:
        """Remove LevelDB's files from the directory, the lock file last."""
        with suppress(OSError):
            names = [name for name in os.listdir(self._path) if is_leveldb_file(name)]
            for name in sorted(names, key="LOCK".__eq__):
                os.unlink(os.path.join(self._path, name))

    def _remove_created(self) -> None:
        """Remove the directories that `open` has created, unless they hold other files."""
        with suppress(OSError, ValueError):  # ValueError: the path cannot be a path, so `open` created nothing
            while self._created:
                os.rmdir(self._created.pop())

    def _sync_older_logs(self) -> None:
        """Sync all logs but the current one, before a durable write.

        Otherwise a power cut could lose writes in an older log and keep the durable write.
        """
        if sys.platform == "win32":
            return  # LevelDB opens its files without sharing, so no other handle can be opened
        self._write_empty_batch()  # if the write buffer is full, LevelDB switches to a new log now
        try:
            for name in log_files(self._path)[:-1]:
                with suppress(FileNotFoundError), open(os.path.join(self._path, name), "rb") as file:
                    os.fsync(file.fileno())  # FileNotFoundError: its rows are in a table by now, and synced
        except OSError as error:
            self._check_files_in_place()
            raise StorageError(f"cannot sync a log of the LevelDB store at {self._path!r}: {error}") from error

    def _check_files_in_place(self) -> None:
        """Check, after a durable write and before its acknowledgement, that it lies at the path.

        Called under ``write_lock``, as is the write. Another durable write in between would take
        the growth of the log for its own, and a close in between would let another opening replace
        the files.

        Raises:
            StorageError: The directory or its files were deleted, moved or replaced.
        """
        if self._identity is None or sys.platform == "win32":  # Windows does not let go of open files
            return
        try:
            self._identity.check()
        except StorageError as error:
            logger.error("%s", error)
            raise

    def check_in_place(self) -> None:
        """See `Backend.check_in_place`."""
        identity = self._identity
        if identity is None or sys.platform == "win32":
            return
        try:
            identity.check_directory()
        except StorageError:
            if self._identity is identity:  # it was not closed meanwhile, which lets others replace the files
                raise

    def open_read_only(self, *, locked: bool = False) -> None:
        """See `Backend.open_read_only`. Opening changes a directory, so this opens a `Checkpoint`.

        Another process may have the store open. Writes after this call are not seen.
        """
        if self._lock is not None or self._reading is not None:
            raise locked_error(self._path)
        if not self.exists():
            raise no_store_error(self._path)
        with ExitStack() as resources:
            try:
                check_files(self._path, repaired=False)
            except OSError as error:
                raise directory_error("read", self._path, error) from error
            if locked:
                resources.enter_context(lock_for_reading(self._path))
            reading = open_checkpoint(self._path, lambda path: type(self)(path, **self._options), resources)
            self._reading = resources.pop_all()
        self._db = reading._db
        self.recovery_notes = reading.recovery_notes

    def exists(self) -> bool:
        """Return True unless `open` would create a store.

        Also True if `open` raises an error: the directory cannot be read, or holds other files.
        """
        try:
            return not would_create(self._path)
        except (OSError, ValueError):
            return True

    def size_on_disk(self) -> int:
        """Return the total size of the files in the directory, in bytes."""
        size = 0
        try:
            with os.scandir(self._path) as files:
                for file in files:
                    with suppress(FileNotFoundError):  # LevelDB may delete a file meanwhile
                        size += file.stat().st_size
        except OSError as error:
            raise StorageError(f"cannot read the directory of the LevelDB store at {self._path!r}: {error}") from error
        return size

    def write_backup(self, target: str, *, previous: str | None, on_copied: Callable[[int], object]) -> None:
        """See `Backend.write_backup`. Tables are shared with the earlier backup, by hard links."""
        write_backup(self._path, target, previous=previous, on_copied=on_copied)

    def compact(self) -> None:
        """Compact all keys. Takes about as long as writing the whole store again."""
        self.compact_range(None, None)

    def compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        """Reclaim the space of overwritten and deleted rows in a range of keys.

        Args:
            start: The lower bound; ``None`` for no lower bound.
            stop: The upper bound; ``None`` for no upper bound.
        """
        with self.write_lock.entry():
            self._write_empty_batch()  # so that the log that the compaction ends has a record: see `_follow_logs`
        self._compact_range(start, stop)
        with self.write_lock.entry():
            self._write_empty_batch()  # LevelDB reports a compaction that failed at the next write

    @abstractmethod
    def _write_empty_batch(self) -> None:
        """Write an empty batch. Before it, LevelDB begins a new log if the write buffer is full."""

    @abstractmethod
    def _compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        """See `compact_range`."""

    @abstractmethod
    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """Return the approximate size of a range of keys in tables on disk, in bytes.

        Rows that are still in the write buffer are not counted.

        Args:
            start: The lower bound.
            stop: The upper bound, exclusive.
        """

    @abstractmethod
    def stats(self) -> str:
        """Return LevelDB's statistics of each level as text: tables, sizes, compactions."""

    @classmethod
    def repair(
        cls, path: str | os.PathLike[str], after_repair: Callable[[DirectoryBackend], object] = lambda backend: None
    ) -> None:
        """Rebuild a damaged store from its readable data. Copy the directory first.

        LevelDB's repair does not report the data that it could not save, and does not check the
        log. Afterwards keys may be missing, old values may have reappeared, and damaged values may
        remain. The replaced files are in `lost`. Use `treehub_level.blocking.repair` for a level:
        it calls this method, and then makes the change log of a server, or the dirty changes of a
        client, consistent again.

        Args:
            path: The directory. The store must be closed.
            after_repair: Called with the store, open, after LevelDB's repair. Until it returns, the
                store counts as half repaired: after an interruption only another repair can open
                it.

        Raises:
            LockedError: The store is open, in this process or another.
            StorageError: The directory contains no LevelDB store, or cannot be read or written.
        """
        backend = cls(path)
        repairing = os.path.join(backend._path, REPAIRING)
        with _lock_store("repair", backend._path), hold_lock_file("repair", backend._path):
            try:
                open(repairing, "w").close()
            except OSError as error:
                raise directory_error("repair", backend._path, error) from error
            backend._repair()
        backend._open(repaired=True)
        try:
            after_repair(backend)
        finally:
            backend.close()
        os.unlink(repairing)

    @classmethod
    def destroy(cls, path: str | os.PathLike[str]) -> None:
        """Delete a store: LevelDB's files, and the directory if it is empty then.

        Args:
            path: The directory. The store must be closed.

        Raises:
            LockedError: The store is open, in this process or another.
            StorageError: The directory contains no LevelDB store, or cannot be deleted.
        """
        backend = cls(path)
        with _lock_store("destroy", backend._path):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(backend._path, REPAIRING))
            backend._destroy()


class ClosedDatabase:
    """The null object for the database of a closed backend: every method raises NotOpenError.

    Args:
        path: The directory of the store, for error messages.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        raise NotOpenError(f"the LevelDB store at {self._path!r} is not open")

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def _lock_store(verb: str, path: str) -> Iterator[None]:
    """Hold the `DirectoryLock` of a directory, which must contain a store, damaged or not."""
    lock = DirectoryLock(verb, path)
    try:
        if not holds_store(path):
            raise StorageError(f"cannot {verb} a LevelDB store at {path!r}: there is none in that directory")
        lock.hold_file()
        yield
    finally:
        lock.release()


def _missing_directories(path: str) -> list[str]:
    """Return the directories that ``os.makedirs`` would create for a path, outermost first."""
    missing: list[str] = []
    while path and not os.path.lexists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return missing


def _checked(name: str, value: object, least: int, most: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {value!r:.80}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value
