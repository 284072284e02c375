"""Copying a whole store, byte by byte, to another place or another backend.

The record `COPYING_KEY` makes a half-made copy known, to `copy` and to whoever would open it. How far it came need not
be recorded: each range of keys is compared with what is there already, and only what differs is written.
"""

from __future__ import annotations

import hashlib
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
from ..engine.identity import COPYING_KEY, copying_record, is_empty
from ..errors import CorruptionError, InvalidKeyError, StateError
from ..types import CopyReport, Mode
from .convert import identity_of, pages

#: Told after each batch what is being done, ``"copy"`` or ``"compare"``, and with how many rows that has been done.
Progress = Callable[[str, int], object]
#: Rows between two reports of a comparison.
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
    """Copy a store with its log, its metadata and its identity to a new one, and compare the two row by row.

    The source is read as it is at one moment, and not written. If the copy is interrupted, call it again: it goes on,
    and until it has finished the target cannot be opened as a level.

    The copy of a server is that server: its clients go on with it, and the source must not be written any more. The
    copy of a client has that client's id: only one of the two may synchronise.

    Args:
        source: The store to copy: a path, a label, a URL.
        target: Where to: there is no store yet, or an empty one, or a copy of the source that was interrupted.
        from_backend: That of the source, as for `Level`.
        to_backend: That of the target, as for `Level`.
        from_options: Options of the source's backend.
        to_options: Options of the target's backend.
        prefix: Where the source's metadata lies, as for `Level`.
        progress: Called after each batch with ``"copy"``, then ``"compare"``, and the number of rows done so far.

    Returns:
        What was copied. The rows of both stores were found to be equal.

    Raises:
        StateError: There is no source, or it is a half-made copy itself; or the target holds data, or a half-made copy
            of another store. Nothing was written. Or another call has begun to copy to the same target.
        InvalidKeyError: A key that the target's backend cannot hold. Nothing was written.
        CorruptionError: The target does not hold what was written to it. Another call mends what differs.
        LockedError, StorageError: One of the two cannot be opened, read or written.
    """
    space = _core.KeySpace(prefix)
    old = create(from_backend, os.fspath(source), from_options or {})
    new = create(to_backend, os.fspath(target), to_options or {})
    if not old.exists():
        raise StateError(f"there is no store at {old.name!r} to copy")
    with _opened(old), _opened(new), closing(old.snapshot()) as moment:
        if moment.get(COPYING_KEY) is not None:
            raise StateError(f"{old.name!r} is a half-made copy itself: finish that, or copy what it is a copy of")
        mode, store_id = identity_of(moment, space)
        _check_keys(moment, old.name, new)
        return _Copy(moment, new, progress or _silent).run(old.name, mode, store_id)


def _check_keys(source: Reader, name: str, target: Backend) -> None:
    """Refuse a source that the target could not hold all of: the copy would stay a half-made one."""
    limit = target.supports.max_key_bytes
    if limit is None:
        return
    with closing(source.scan(None, None, values=False)) as cursor:
        while keys := cursor.fetch_keys(_STEP):
            longest = max(keys, key=len)
            if len(longest) > limit:
                raise InvalidKeyError(
                    f"{name!r} has a key of {len(longest)} bytes, {longest!r:.80}, and {target.name!r} takes at most "
                    f"{limit}, metadata included: delete it, or copy to another backend"
                )


def _silent(step: str, rows: int) -> None:
    """Tell nobody."""


@contextmanager
def _opened(backend: Backend) -> Iterator[None]:
    backend.open()
    try:
        yield
    finally:
        backend.close()


class _Copy:
    """One call of `copy`.

    Args:
        source: The source at one moment.
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
        """Copy, compare, and let the target be opened."""
        self._begin(name, store_id)
        self._copy()
        rows, digest = self._compare()
        self._commit([(COPYING_KEY, None)], durable=True)
        return CopyReport(mode=mode, rows=rows, written=self._written, sha256=digest)

    def _begin(self, name: str, store_id: str | None) -> None:
        """Mark the target as a half-made copy of the source, made by this call."""
        record = {"from": name, "store": store_id, "run": uuid.uuid4().hex}
        with self._target.exclusive() as transaction:
            begun = copying_record(transaction)
            if begun is None:
                if not is_empty(transaction):
                    raise StateError(
                        f"{self._target.name!r} holds data, and no copy that was interrupted (a whole one is not begun "
                        "again): name a new store"
                    )
            elif begun["store"] != store_id or (store_id is None and begun["from"] != name):
                raise StateError(
                    f"{self._target.name!r} is a half-made copy of {begun['from']!r}, not of {name!r}: "
                    "copy that one again to finish it, or name a new store to copy to"
                )
            self._record = orjson.dumps(record)
            transaction.write([(COPYING_KEY, self._record)], durable=True)

    def _copy(self) -> None:
        """Make the target's rows those of the source."""
        done, after = 0, None
        for rows in pages(self._source, None):
            stop = rows[-1][0] + b"\0"
            self._mend(rows, after, stop)
            done, after = done + len(rows), stop
            self._progress("copy", done)
        self._mend([], after, None)

    def _mend(self, rows: list[Row], start: bytes | None, stop: bytes | None) -> None:
        """Make ``rows`` all that the target holds of a range. There is nothing yet, unless a call was interrupted."""
        missing = dict(rows)
        for found in pages(self._target, start, stop):
            known = [(key, value, missing.pop(key, None)) for key, value in found if key != COPYING_KEY]
            self._write([(key, wanted) for key, value, wanted in known if value != wanted])
        self._write([*missing.items()])

    def _write(self, batch: Batch) -> None:
        if batch:
            self._commit(batch)
            self._written += len(batch)

    def _commit(self, batch: Batch, *, durable: bool = False) -> None:
        with self._target.exclusive() as transaction:
            if transaction.get(COPYING_KEY) != self._record:
                raise StateError(f"another copy to {self._target.name!r} has begun: leave that one alone")
            transaction.write(batch, durable=durable)

    def _compare(self) -> tuple[int, str]:
        """The number of rows and the digest of both, which are equal."""
        digest, compared = hashlib.sha256(), 0
        self._progress("compare", 0)
        copied = (row for row in _rows(self._target) if row[0] != COPYING_KEY)
        for row, copy_of_it in zip_longest(_rows(self._source), copied):
            if row != copy_of_it:
                key = min(found[0] for found in (row, copy_of_it) if found is not None)
                raise CorruptionError(
                    f"{self._target.name!r} does not hold what was written to it: it differs at the key {key!r:.80}. "
                    "Copy again, which mends it; if it happens again, look after the disk"
                )
            for part in row:
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
            compared += 1
            if compared % _STEP == 0:
                self._progress("compare", compared)
        self._progress("compare", compared)
        return compared, digest.hexdigest()


def _rows(reader: Reader) -> Iterator[Row]:
    for rows in pages(reader, None):
        yield from rows
