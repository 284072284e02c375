"""A backend over LMDB: all that an engine of your own has to bring. ``docs/backends.md`` is about it.

A read transaction of LMDB's is a snapshot that costs next to nothing; but as long as it is open, no page that it may
see is used again. For POSIX only: ``flock`` keeps a second user out.
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

_START: Final = b"\0"  # stands before each key, since LMDB takes none that is empty
_END: Final = b"\1"
_MAX_BYTES: Final = 511  # LMDB's limit, with the byte above


class LMDBBackend(Backend):
    """A directory with an LMDB database, which one process has open at a time.

    Args:
        name: The path of the directory; it is made, with its parents, where there is none.
        map_size: Bytes that the database may grow to. That much address space is reserved, not memory or disk: the map
            could grow later only while nobody reads.
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
                # Without "metasync" a crash may take the last commits, but never half of one.
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

    def snapshot(self) -> _Snapshot:
        with _translated(self.name):
            return _Snapshot(self.name, self._environment.begin())

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        with _translated(self.name):
            with self._environment.begin(write=True) as transaction:  # rolls back if anything is raised
                for key, value in batch:
                    if len(key) >= _MAX_BYTES:
                        raise InvalidKeyError(f"LMDB takes keys of {_MAX_BYTES - 1} bytes, not {len(key)}: {key!r:.80}")
                    if value is None:
                        transaction.delete(_START + key)
                    else:
                        transaction.put(_START + key, value)
            if durable:
                self._environment.sync(True)

    @property
    def _environment(self) -> lmdb.Environment:
        if self._opened is None:
            raise NotOpenError(f"the LMDB store at {self.name!r} is not open")
        return self._opened


class _Snapshot(Snapshot):
    """A read transaction. LMDB lets any thread use it, but one at a time."""

    def __init__(self, name: str, transaction: Any) -> None:
        self._name, self._transaction, self._turn = name, transaction, threading.Lock()

    @contextmanager
    def in_turn(self) -> Iterator[Any]:
        with self._turn, _translated(self._name):
            yield self._transaction

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self.in_turn() as transaction:
            return [transaction.get(_START + key) for key in keys]

    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> _Cursor:
        high = _END if stop is None else _START + stop
        return _Cursor(self, _walk(self._transaction, _START + (start or b""), high, reverse))

    def close(self) -> None:
        with self.in_turn() as transaction:
            transaction.abort()


class _Cursor(Cursor):
    """A walk over a snapshot."""

    def __init__(self, snapshot: _Snapshot, rows: Iterator[Row]) -> None:
        self._snapshot, self._rows = snapshot, rows

    def fetch(self, limit: int) -> list[Row]:
        with self._snapshot.in_turn():
            return [*islice(self._rows, limit)]

    def close(self) -> None:
        pass  # the snapshot is all that there is to close


def _walk(transaction: Any, low: bytes, high: bytes, reverse: bool) -> Iterator[Row]:
    """The rows of ``low <= key < high``. A bound may be longer than a key, so LMDB looks for the beginning of it."""
    cursor = transaction.cursor()
    found = cursor.set_range((high if reverse else low)[:_MAX_BYTES])
    # If no key is as high, iterprev() begins at the last one; but iternext() would begin anew.
    for key, value in cursor.iterprev() if reverse else cursor.iternext() if found else ():
        if low <= key < high:
            yield key[1:], value
        elif key < low if reverse else key >= high:
            return


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Let LMDB's errors, and the system's, leave as those of treehub-level."""
    try:
        yield
    except BlockingIOError as error:
        raise LockedError(f"the LMDB store at {name!r} is open already, in this process or another") from error
    except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError) as error:
        raise CorruptionError(f"the LMDB store at {name!r} cannot be trusted: {error}") from error
    except (lmdb.Error, OSError) as error:
        hint = ": open it with a larger map_size" if isinstance(error, lmdb.MapFullError) else ""
        raise StorageError(f"LMDB could not read or write {name!r}: {error}{hint}") from error
