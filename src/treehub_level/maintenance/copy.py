"""Copy a whole store, byte for byte, to another place or another backend.

The record under `COPYING_KEY` marks a half-made copy, so that no level opens it. The progress needs
no record: each range of keys is compared with the rows of the target, and only differences are
written.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import zip_longest
from typing import Any, Final

import orjson

from .. import _core
from ..backends.base import Backend, Batch, Reader, Row
from ..backends.registry import create
from ..engine.identity import is_empty
from ..engine.records import COPYING_KEY, OwnRecords, copying_record
from ..engine.scan import key_chunks, row_chunks
from ..errors import CorruptionError, InvalidKeyError, StateError
from ..escapes import escape_unsafe
from ..types import CopyReport, Mode
from .convert import identity_of
from .row_digest import RowDigest

#: Called after each batch with the current step, ``"copy"`` or ``"compare"``, and the number of
#: rows done in it.
Progress = Callable[[str, int], object]
#: Rows between two progress reports of a comparison.
_STEP: Final = 1000


def copy(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    from_backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    to_backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    from_options: Mapping[str, Any] | None = None,
    to_options: Mapping[str, Any] | None = None,
    prefix: str = "!",
    progress: Progress | None = None,
) -> CopyReport:
    """Copy a store with its log, metadata and identity, then compare the two stores row by row.

    The source is read from a snapshot, and is not written. If the copy is interrupted, call `copy`
    again to continue it. Until the copy is complete, the target cannot be opened as a level.

    The copy of a server replaces that server: its clients continue with the copy, and the source
    must not be written any more. The copy of a client has that client's id: only one of the two may
    sync.

    Args:
        source: The store to copy: a path, a label or a URL.
        target: The new store. It does not exist yet, is empty, or is an interrupted copy of the
            source.
        from_backend: The backend of the source, as for `Level`.
        to_backend: The backend of the target, as for `Level`.
        from_options: Options of the source's backend.
        to_options: Options of the target's backend.
        prefix: The prefix of the source's metadata, as for `Level`.
        progress: Called after each batch with ``"copy"`` or ``"compare"``, and the number of rows
            done in that step.

    Returns:
        A report. The rows of both stores have been compared, and are equal.

    Raises:
        StateError: There is no source, or the source is a half-made copy; or the target holds data,
            or is a half-made copy of another store. Nothing was written. Or another call copies to
            the same target.
        InvalidKeyError: A key is too long for the target's backend. Nothing was written.
        CorruptionError: The target does not hold the bytes that were written to it. Another call
            corrects the differences.
        LockedError, StorageError: One of the stores cannot be opened, read or written.
    """
    space = _core.KeySpace(prefix)
    from_store = create(from_backend, os.fspath(source), from_options or {})
    to_store = create(to_backend, os.fspath(target), to_options or {})
    if not from_store.exists():
        raise StateError(f"there is no store at {from_store.name!r} to copy")
    from_store.open_read_only(locked=True)
    with closing(from_store), _opened(to_store), closing(from_store.snapshot()) as snapshot:
        return copy_snapshot(snapshot, to_store, OwnRecords(space, from_store.name), from_store.name, progress)


def copy_snapshot(
    snapshot: Reader, target: Backend, records: OwnRecords, name: str, progress: Progress | None
) -> CopyReport:
    """Copy all rows of a snapshot to an open store, and compare them: see `copy`.

    Args:
        snapshot: The snapshot.
        target: The target, open: empty, or an interrupted copy of the same store.
        records: The records of the source.
        name: The name of the source.
        progress: See `copy`.

    Raises:
        StateError, InvalidKeyError, CorruptionError, StorageError: See `copy`.
    """
    if snapshot.get(COPYING_KEY) is not None:
        raise StateError(f"{name!r} is a half-made copy itself: complete that copy first, or copy its source")
    mode, store_id = identity_of(snapshot, records)
    _check_keys(snapshot, name, target)
    return _CopyRun(snapshot, target, progress or _ignore_progress).run(name, mode, store_id)


def _check_keys(source: Reader, name: str, target: Backend) -> None:
    """Raise InvalidKeyError if the target's backend cannot hold all keys."""
    limit = target.supports.max_key_bytes
    if limit is None:
        return
    for keys in key_chunks(source, None, None):
        longest = max(keys, key=len)
        if len(longest) > limit:
            raise InvalidKeyError(
                f"{name!r} has a key of {len(longest)} bytes, {longest!r:.80}, but {target.name!r} takes at most "
                f"{limit} bytes, metadata included: delete that key, or copy to another backend"
            )


def _ignore_progress(step: str, rows: int) -> None:
    pass


@contextmanager
def _opened(backend: Backend) -> Iterator[None]:
    """Open the target for the block. A new one is removed if the block fails and left it empty."""
    existed = backend.exists()
    backend.open()
    try:
        yield
    except BaseException:
        if not existed:
            backend.close_and_remove(is_empty)
        raise
    finally:
        backend.close()


class _CopyRun:
    """One call of `copy`.

    Args:
        source: A snapshot of the source.
        target: The target, open.
        progress: See `Progress`.
    """

    def __init__(self, source: Reader, target: Backend, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._record = b""
        self._written = 0

    def run(self, name: str, mode: Mode, store_id: str | None) -> CopyReport:
        """Copy, compare, and remove the mark of the half-made copy."""
        self._begin(name, store_id)
        self._copy()
        rows, digest = self._compare()
        self._commit([(COPYING_KEY, None)], durable=True)
        return CopyReport(mode=mode, rows=rows, written=self._written, sha256=digest)

    def _begin(self, name: str, store_id: str | None) -> None:
        """Mark the target as a half-made copy of the source, owned by this call."""
        name = escape_unsafe(name)  # of a path that is not UTF-8, which JSON cannot hold
        record = {"from": name, "store": store_id, "run": uuid.uuid4().hex}
        with self._target.write_lock.entry(), self._target.exclusive() as transaction:
            begun = copying_record(transaction)
            if begun is None:
                if not is_empty(transaction):
                    raise StateError(
                        f"{self._target.name!r} holds data and is not an interrupted copy. A complete copy cannot be "
                        "continued either. Copy to a new store"
                    )
            elif begun["store"] != store_id or (store_id is None and begun["from"] != name):
                raise StateError(
                    f"{self._target.name!r} is a half-made copy of {begun['from']!r}, not of {name!r}: "
                    "copy that one again to complete it, or copy to a new store"
                )
            self._record = orjson.dumps(record)
            transaction.write([(COPYING_KEY, self._record)], durable=True)

    def _copy(self) -> None:
        """Make the target's rows equal to those of the source."""
        done, after = 0, None
        for rows in row_chunks(self._source, None, None):
            stop = rows[-1][0] + b"\0"
            self._write_differences(rows, after, stop)
            done, after = done + len(rows), stop
            self._progress("copy", done)
        self._write_differences([], after, None)

    def _write_differences(self, rows: list[Row], start: bytes | None, stop: bytes | None) -> None:
        """Make the target's rows in a range equal to ``rows``.

        The target holds rows in that range only if an earlier call was interrupted.
        """
        missing = dict(rows)
        for found in row_chunks(self._target, start, stop):
            known = [(key, value, missing.pop(key, None)) for key, value in found if key != COPYING_KEY]
            self._write([(key, wanted) for key, value, wanted in known if value != wanted])
        self._write([*missing.items()])

    def _write(self, batch: Batch) -> None:
        if batch:
            self._commit(batch)
            self._written += len(batch)

    def _commit(self, batch: Batch, *, durable: bool = False) -> None:
        with self._target.write_lock.entry(), self._target.exclusive() as transaction:
            if transaction.get(COPYING_KEY) != self._record:
                raise StateError(
                    f"another copy to {self._target.name!r} has begun; this one has stopped and wrote nothing since"
                )
            transaction.write(batch, durable=durable)

    def _compare(self) -> tuple[int, str]:
        """Compare all rows. Return their number and their digest.

        Raises:
            CorruptionError: A row differs.
        """
        digest, compared = RowDigest(), 0
        self._progress("compare", 0)
        copied_rows = (row for row in _rows(self._target) if row[0] != COPYING_KEY)
        for row, copied in zip_longest(_rows(self._source), copied_rows):
            if row != copied:
                key = min(found[0] for found in (row, copied) if found is not None)
                raise CorruptionError(
                    f"{self._target.name!r} does not hold the bytes that were written to it: it differs at the key "
                    f"{key!r:.80}. Copy again to correct it; if the error recurs, check the disk"
                )
            digest.add(row)
            compared += 1
            if compared % _STEP == 0:
                self._progress("compare", compared)
        self._progress("compare", compared)
        return compared, digest.text


def _rows(reader: Reader) -> Iterator[Row]:
    for rows in row_chunks(reader, None, None):
        yield from rows
