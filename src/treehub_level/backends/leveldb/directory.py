"""A directory of LevelDB's, whichever library opens it: what LevelDB leaves to its user is done here.

Each was observed with LevelDB 1.22 and 1.23:

- A directory without its ``CURRENT`` file is taken for a new store, and the tables in it are deleted.
- Repairing and destroying take any directory for a store, and files of others for LevelDB's.
- A store whose log is damaged opens with a hole in it; see `_history`. With "paranoid" checks it does not, but neither
  does one whose log has rubbish at its end only, as a power cut may leave it.
- A compaction copies damaged blocks under new checksums, unless checks are "paranoid".
- A durable write leaves the log before the current one as it is, so a power cut may take what came first, and leave
  what came last.
- A table that somebody deletes while the store is open is missed by scans, but ``get`` takes its keys for absent.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

from ...errors import CorruptionError, LevelError, NotOpenError, StorageError
from ..base import Backend, Supports
from ..paths import checked_path
from .history import History, log_files, read_history
from .lock import DirectoryLock, cannot, locked, other_processes_kept_out

logger = logging.getLogger("treehub_level")

_MIB: Final = 1024 * 1024
_MAX_SIZE: Final = 2**40
_MAX_COUNT: Final = 2**31 - 1

#: A file that is there while a store is being repaired.
_REPAIRING: Final = "REPAIRING"
#: Files that hold data: logs, and tables under their new and their old suffix.
_DATA_FILE: Final = re.compile(r"[0-9]+\.(log|ldb|sst)")
#: Files that nobody but LevelDB makes. (A lone log might be anybody's, unless LevelDB's lock lies beside it.)
_ITS_OWN_FILE: Final = re.compile(r"CURRENT|MANIFEST-[0-9]+|[0-9]+\.ldb")
#: What makes up a store.
_COPIED: Final = re.compile(rf"CURRENT|MANIFEST-[0-9]+|{_DATA_FILE.pattern}|{_REPAIRING}")
#: How LevelDB says that a table is gone.
_TABLE_GONE: Final = re.compile(r"NotFound: .*[0-9]+\.(ldb|sst): ", re.DOTALL)
#: How LevelDB says that the lock is taken: within this process; by another (either of two error numbers); on Windows.
_LOCK_TAKEN: Final = re.compile(
    f"^IO error: lock .*: (already held by process|{os.strerror(errno.EAGAIN)}|{os.strerror(errno.EACCES)})$"
    "|being used by another process"
)


class DirectoryBackend(Backend):
    """A LevelDB directory. LevelDB itself clips sizes that it cannot use.

    Files of other programs are left alone: a directory that holds some, and no store, is refused.

    Args:
        name: The path of the directory; it is made, with its parents, where there is none.
        write_buffer_size: Bytes gathered in memory before they become a table. 64 MiB instead of LevelDB's 4 MiB make
            bulk loading about three times faster; the price is up to half a second for reading the log when opening.
        bloom_filter_bits: Bits per key of the filter that spares most reads for absent keys; 0 for no filter.
        block_cache_size: Bytes of uncompressed blocks kept in memory. 32 MiB, four times LevelDB's own default, hold
            some 250,000 rows of JSON; a read from there takes a quarter of the time of one that has to uncompress.
        block_size: Bytes of a block, the unit of reading and compressing.
        max_open_files: Tables kept open.
        max_file_size: Bytes of a table, after which the next is begun.
        compression: ``"snappy"`` or ``None``.

    Raises:
        TypeError: The path or an option is of a wrong type.
        ValueError: An option is out of range.
        StorageError: The path is a URL.
    """

    supports = Supports(persistent=True, inline_reads=True)

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
        # Absolute, since LevelDB keeps using the path while the working directory may change; but "" is no path at all.
        self._path = os.path.abspath(path) if path else path
        #: Where a repair puts the files that it replaces, and an opening what it found damaged.
        self.lost = os.path.join(self._path, "lost")
        self._closed = ClosedDatabase(self._path)
        # Before the claim, so that a backend that is forgotten open closes its database before it gives up the claim.
        self._db: Any = self._closed
        self._lock: DirectoryLock | None = None
        #: Whether the last write need not be on disk. Each engine keeps it up to date in ``write``, the hottest path.
        self._unsynced = True

    @abstractmethod
    def _connect(self, *, paranoid: bool) -> Any:
        """Open the database at ``_path``, creating it where there is none. It must have a method ``close``.

        Args:
            paranoid: Whether LevelDB refuses what it would otherwise leave out.
        """

    @abstractmethod
    def _repair(self) -> None:
        """Have LevelDB repair the directory, which nobody uses."""

    @abstractmethod
    def _destroy(self) -> None:
        """Have LevelDB delete its files, which nobody in this process uses."""

    def open(self) -> None:
        """See `Backend.open`. The directory is made, with its parents."""
        self._open()

    def _open(self, *, repaired: bool = False) -> None:
        try:
            os.makedirs(self._path, exist_ok=True)
        except (OSError, ValueError) as error:
            raise cannot("open", self._path, error) from error
        claim = DirectoryLock("open", self._path)
        self.recovery_notes = ()
        try:
            _check_files(self._path, repaired=repaired)
            self._db = self._connect_verified()
        except BaseException:
            claim.release()
            raise
        self._lock = claim

    def _connect_verified(self) -> Any:
        """Open what is whole. Open what lacks its end, once that is cut off. Refuse what lacks anything else."""
        gap = self._read_history(checked=False).gap if os.path.exists(os.path.join(self._path, "CURRENT")) else None
        if gap is None:
            try:
                return self._connect(paranoid=True)
            except CorruptionError as error:
                damage = error
        else:
            damage = CorruptionError(f"the LevelDB store at {self._path!r} is damaged: {gap}. {_remedy(self._path)}")
        history = self._read_history(checked=True)
        if history.gap is not None or not history.damaged:
            raise damage
        self._set_aside(history)
        # Now LevelDB reads what it can, makes a table of that, and begins a new log and a new MANIFEST.
        self._connect(paranoid=False).close()
        db = self._connect(paranoid=True)
        self.recovery_notes = [*self._described(history)]
        logger.warning("the LevelDB store at %r was damaged: %s", self._path, "; ".join(self.recovery_notes))
        return db

    def _described(self, history: History) -> Iterator[str]:
        """What was cut off, in words."""
        where = f"what could not be read is in {self.lost}"
        if history.manifest is not None:
            yield f"the end of its MANIFEST could not be read, and was not needed; {where}"
        if len(history.damaged) > (history.manifest is not None):
            yield (
                "the end of its log could not be read: what was written last is lost, and all that was written before "
                f"is there; {where}"
            )

    def _read_history(self, *, checked: bool) -> History:
        with other_processes_kept_out("open", self._path):
            try:
                return read_history(self._path, checked=checked)
            except OSError as error:
                raise cannot("open", self._path, error) from error

    def _set_aside(self, history: History) -> None:
        """Copy what is damaged to where LevelDB's repair puts what it replaces; cut the MANIFEST if it is damaged."""
        try:
            os.makedirs(self.lost, exist_ok=True)
            for name in history.damaged:
                shutil.copy2(os.path.join(self._path, name), self.lost)
            if history.manifest is not None:
                name, size = history.manifest
                whole = os.path.join(self._path, name)
                shutil.copy2(whole, whole + ".cut")  # a link may name the same file: it is not changed but replaced
                os.truncate(whole + ".cut", size)
                os.replace(whole + ".cut", whole)
        except OSError as error:
            raise cannot("open", self._path, error) from error

    def close(self) -> None:
        """Close, and let the directory be opened again."""
        db, self._db = self._db, self._closed
        claim, self._lock = self._lock, None
        try:
            db.close()
        finally:
            if claim is not None:
                claim.release()

    def _sync_older_logs(self) -> None:
        """Sync the logs before that of the durable write which comes now, so that no power cut takes those alone."""
        if sys.platform == "win32":
            return  # there, LevelDB opens its files for itself alone
        self._write_nothing()  # if a new log is due, LevelDB begins it now
        try:
            for name in log_files(self._path)[:-1]:
                with suppress(FileNotFoundError), open(os.path.join(self._path, name), "rb") as file:
                    os.fsync(file.fileno())  # one that is not found is in a table by now, which LevelDB has synced
        except OSError as error:
            raise StorageError(f"cannot sync a log of the LevelDB store at {self._path!r}: {error}") from error

    @contextmanager
    def open_read_only(self) -> Iterator[DirectoryBackend]:
        """See `Backend.open_read_only`: opening a directory changes its files, so this opens a copy of it.

        LevelDB never changes a file that another of its files names. So the copy is made of links, where that can be,
        and takes no time and no room.
        """
        folder, name = os.path.split(self._path)
        with _locked("look at", self._path), other_processes_kept_out("look at", self._path):
            if not os.access(folder, os.W_OK):
                folder = tempfile.gettempdir()
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as copy:
                try:
                    for file in os.listdir(self._path):
                        if _COPIED.fullmatch(file):
                            _link(os.path.join(self._path, file), os.path.join(copy, file))
                except OSError as error:
                    raise cannot("look at", self._path, error) from error
                other = type(self)(copy, **self._options)
                try:
                    other.open()
                    other.recovery_notes = [sentence.replace(copy, self._path) for sentence in other.recovery_notes]
                    yield other
                except (StorageError, CorruptionError) as error:
                    raise type(error)(str(error).replace(copy, self._path)) from error
                finally:
                    other.close()

    def exists(self) -> bool:
        """See `Backend.exists`. Whatever is in the way counts: ``open()`` says what is wrong with it."""
        try:
            return bool(os.listdir(self._path))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            return True

    def size_on_disk(self) -> int:
        """Sum up the files in the directory."""
        size = 0
        try:
            with os.scandir(self._path) as files:
                for file in files:
                    with suppress(FileNotFoundError):  # LevelDB deletes files at any moment
                        size += file.stat().st_size
        except OSError as error:
            raise StorageError(f"cannot read the LevelDB store's directory {self._path!r}: {error}") from error
        return size

    def compact(self) -> None:
        """Compact the whole range of keys. It takes as long as rewriting all of the store."""
        self.compact_range(None, None)

    def compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        """Drop what was overwritten or deleted in a range of keys, and pack the rest.

        Args:
            start: Where the range begins; ``None`` for the first key.
            stop: Where it ends; ``None`` for the last.
        """
        with self.exclusive():
            self._write_nothing()  # LevelDB begins a new log now, and no log but the last is empty: see `_history`
        self._compact_range(start, stop)

    @abstractmethod
    def _write_nothing(self) -> None:
        """Write an empty batch, past ``write``: LevelDB does then what it does before any write."""

    @abstractmethod
    def _compact_range(self, start: bytes | None, stop: bytes | None) -> None:
        """See `compact_range`."""

    @abstractmethod
    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """About how many bytes a range of keys takes in tables on disk. What is still in memory does not count.

        Args:
            start: Where the range begins.
            stop: Where it ends, exclusive.
        """

    @abstractmethod
    def stats(self) -> str:
        """What LevelDB tells of itself, as text: for each level its tables, their size, the work of its compactions."""

    @classmethod
    def repair(
        cls, path: str | os.PathLike[str], mend: Callable[[DirectoryBackend], object] = lambda backend: None
    ) -> None:
        """Make a damaged store one that LevelDB opens, with what can still be read. Copy the directory first.

        LevelDB does not say what it could not save, and takes its log as it is: keys may be missing, older values may
        be back, and damaged ones may be kept. What was replaced lies in ``lost``. What that means for a server's log,
        or a client's dirty changes, LevelDB cannot know: `treehub_level.blocking.repair` mends that too.

        Args:
            path: The directory. It must not be open.
            mend: Called with the store, open, once LevelDB has repaired it. Until it returns, nobody else can open the
                store: if this is interrupted, it must be done again.

        Raises:
            LockedError: It is open, in this process or another.
            StorageError: There is no LevelDB store in it, or it cannot be read or written.
        """
        backend = cls(path)
        repairing = os.path.join(backend._path, _REPAIRING)
        with _locked("repair", backend._path), other_processes_kept_out("repair", backend._path):
            try:
                open(repairing, "w").close()
            except OSError as error:
                raise cannot("repair", backend._path, error) from error
            backend._repair()
        backend._open(repaired=True)
        try:
            mend(backend)
        finally:
            backend.close()
        os.unlink(repairing)

    @classmethod
    def destroy(cls, path: str | os.PathLike[str]) -> None:
        """Delete a store: LevelDB's files, and the directory if nothing else is in it.

        Args:
            path: The directory. It must not be open.

        Raises:
            LockedError: It is open, in this process or another.
            StorageError: There is no LevelDB store in it, or it cannot be deleted.
        """
        backend = cls(path)
        with _locked("destroy", backend._path):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(backend._path, _REPAIRING))
            backend._destroy()


class ClosedDatabase:
    """Stands where the database does while there is none, so that no call has to ask.

    Args:
        path: The directory of the store.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        raise NotOpenError(f"the LevelDB store at {self._path!r} is not open")

    def close(self) -> None:
        """Nothing is to be closed."""


@contextmanager
def _locked(verb: str, path: str) -> Iterator[None]:
    """Claim a directory with a store in it, be it a damaged one."""
    claim = DirectoryLock(verb, path)
    try:
        if not holds_store(path):
            raise StorageError(f"cannot {verb} a LevelDB store at {path!r}: there is none in that directory")
        yield
    finally:
        claim.release()


def _check_files(path: str, *, repaired: bool) -> None:
    """Refuse a directory in which LevelDB would make a new store, or be out of place, or that is half repaired."""
    names = os.listdir(path)
    if _REPAIRING in names and not repaired:
        raise CorruptionError(
            f"the repair of the LevelDB store at {path!r} was interrupted: run `treehub-level repair {path}` again"
        )
    if not holds_store(path):
        if _holds_other_files(path):
            raise StorageError(
                f"cannot open a LevelDB store at {path!r}: that directory holds other files, and no store: "
                "name a new or an empty one"
            )
    elif "CURRENT" not in names and any(map(_DATA_FILE.fullmatch, names)):
        raise CorruptionError(
            f"the LevelDB store at {path!r} has lost its CURRENT file, and LevelDB would delete the rest. "
            f"{_remedy(path)}"
        )


def holds_store(path: str) -> bool:
    """Whether a directory holds the files of a store, be it a damaged one."""
    names = os.listdir(path)
    return any(map(_ITS_OWN_FILE.fullmatch, names)) or ("LOCK" in names and any(map(_DATA_FILE.fullmatch, names)))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one that has no links
        shutil.copy2(source, target)


def _holds_other_files(path: str) -> bool:
    """Whether a directory that holds no store holds files, beside those that opening one makes first."""
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    return bool(names) and not {"LOCK", "LOG", "LOG.old"}.issuperset(names)


def _remedy(path: str) -> str:
    return (
        "Restore it from a backup, sync a new one, or copy it and save what can still be read: "
        f"run `treehub-level repair {path}`"
    )


def status_error(path: str, status: str) -> LevelError:
    """The exception for what LevelDB calls a status: "IO error: …", "Corruption: …".

    Args:
        path: The directory of the store.
        status: LevelDB's words.
    """
    # LevelDB maps tables into memory, and calls a read beyond the end of one an invalid argument: it was cut short.
    cut_short = status.endswith(os.strerror(errno.EINVAL))
    if status.startswith("Corruption: ") or cut_short or _TABLE_GONE.match(status):
        return CorruptionError(f"the LevelDB store at {path!r} is damaged: {status}. {_remedy(path)}")
    if _LOCK_TAKEN.search(status):
        return locked(path)
    return StorageError(f"LevelDB could not read or write {path!r}: {status}")


def _checked(name: str, value: object, least: int, most: int) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {value!r:.80}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value
