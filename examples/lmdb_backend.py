"""A complete backend, on top of LMDB. ``docs/backends.md`` is the guide.

A read transaction of LMDB is a cheap snapshot. While it is open, LMDB cannot reuse the pages that
it may read. For POSIX only: ``flock`` locks out a second user of the directory.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import lmdb

from treehub_level import Backend, CorruptionError, InvalidKeyError, LockedError, NotOpenError, StorageError
from treehub_level.backends import Batch, Cursor, Row, Snapshot, Supports

_PREFIX: Final = b"\0"  # a prefix of each key, since LMDB rejects the empty key
_END: Final = b"\1"  # above all keys with the prefix
_MAX_BYTES: Final = 511  # LMDB's limit for a key, prefix included


class LMDBBackend(Backend):
    """A store in an LMDB directory, which one process at a time may open.

    Args:
        name: The path of the directory. ``open()`` creates it, with its parents.
        map_size: The maximum size of the database in bytes. LMDB reserves that much address space,
            but neither memory nor disk space. LMDB can enlarge the map only while there is no
            reader.
    """

    supports = Supports(persistent=True, inline_reads=True, max_key_bytes=_MAX_BYTES - 1)

    def __init__(self, name: str, *, map_size: int = 1 << 40) -> None:
        super().__init__(name)
        self._map_size = map_size
        self._opened: lmdb.Environment | None = None

    def exists(self) -> bool:
        return os.path.exists(os.path.join(self.name, "data.mdb"))

    def open(self) -> None:
        with _translated(self.name):
            os.makedirs(self.name, exist_ok=True)
            lock = os.open(self.name, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # metasync=False: a crash may lose the last commits, but never a part of one.
                self._opened = lmdb.open(self.name, map_size=self._map_size, metasync=False, max_readers=1024)
            except BaseException:
                os.close(lock)
                raise
        self._lock = lock

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
            os.close(self._lock)

    def snapshot(self) -> LMDBSnapshot:
        with _translated(self.name):
            return LMDBSnapshot(self.name, self._environment.begin())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        with _translated(self.name):
            with self._environment.begin(write=True) as transaction:  # rolls back on an exception
                for key, value in batch:
                    if len(key) >= _MAX_BYTES:
                        raise InvalidKeyError(
                            f"the key {key!r:.80} takes {len(key)} bytes, and LMDB at most {_MAX_BYTES - 1}: shorten it"
                        )
                    if value is None:
                        transaction.delete(_PREFIX + key)
                    else:
                        transaction.put(_PREFIX + key, value)
            if durable:
                self._environment.sync(True)

    @property
    def _environment(self) -> lmdb.Environment:
        if self._opened is None:
            raise NotOpenError(f"the LMDB store at {self.name!r} is not open")
        return self._opened


class LMDBSnapshot(Snapshot):
    """A read transaction. LMDB allows any thread to use it, but only one at a time."""

    def __init__(self, name: str, transaction: Any) -> None:
        self._name, self._transaction, self._lock = name, transaction, threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[Any]:
        with self._lock, _translated(self._name):
            yield self._transaction

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self.locked() as transaction:
            return [transaction.get(_PREFIX + key) for key in keys]

    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> LMDBCursor:
        high = _END if stop is None else _PREFIX + stop
        return LMDBCursor(self, _rows(self._transaction, _PREFIX + (start or b""), high, reverse))

    def close(self) -> None:
        with self.locked() as transaction:
            transaction.abort()


class LMDBCursor(Cursor):
    """A cursor of a snapshot."""

    def __init__(self, snapshot: LMDBSnapshot, rows: Iterator[Row]) -> None:
        self._snapshot, self._rows = snapshot, rows

    def fetch(self, limit: int) -> list[Row]:
        with self._snapshot.locked():
            return [*islice(self._rows, limit)]

    def close(self) -> None:
        pass  # closing the snapshot is enough


def _rows(transaction: Any, low: bytes, high: bytes, reverse: bool) -> Iterator[Row]:
    """Yield the rows with ``low <= key < high``. LMDB rejects long keys, so bounds are cut."""
    cursor = transaction.cursor()
    found = cursor.set_range((high if reverse else low)[:_MAX_BYTES])
    # If no key is found, iterprev() starts at the last key; iternext() would start at the first.
    for key, value in cursor.iterprev() if reverse else cursor.iternext() if found else ():
        if low <= key < high:
            yield key[1:], value
        elif key < low if reverse else key >= high:
            return


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Translate the exceptions of LMDB and of system calls in the block."""
    try:
        yield
    except BlockingIOError as error:
        raise LockedError(f"the LMDB store at {name!r} is open already, in this process or another") from error
    except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError) as error:
        raise CorruptionError(f"the LMDB store at {name!r} is damaged: {error}") from error
    except (lmdb.Error, OSError) as error:
        hint = ": open it with a larger map_size" if isinstance(error, lmdb.MapFullError) else ""
        raise StorageError(f"LMDB could not read or write {name!r}: {error}{hint}") from error
