"""A whole store as JSON Lines: every row, with metadata, the change log and the identity.

The first line names the format, the store and its metadata prefix, the last one the number of rows
and their digest. A line between them is ``["key", "value"]``, the stored bytes as text; a row that
is not UTF-8 has both in Base64, as ``{"key": …, "value": …}``. ``docs/format.md`` has the details.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, BinaryIO, Final

import orjson

from .. import _core
from ..backends.base import Backend, Batch, Row
from ..backends.registry import create
from ..engine.identity import is_empty
from ..engine.records import COPYING_KEY, OwnRecords, copying_record
from ..engine.scan import row_chunks
from ..errors import StateError
from ..types import Mode
from .convert import identity_of
from .row_digest import RowDigest

#: The beginning of the first line. No line of another dump begins so.
HEADER: Final = b'{"treehub-level dump":'
_VERSION: Final = 1
_MODES: Final = {mode.value for mode in Mode}
#: The longest line: a value may have 4 GiB.
_MAX_LINE: Final = 6 << 30
#: The size of a batch in rows and in bytes.
_BATCH_ROWS, _BATCH_BYTES = 1000, 8 << 20


def dump_whole(
    name: str,
    stream: Callable[[], BinaryIO],
    *,
    backend: str,
    prefix: str = "!",
    progress: Callable[[int], object] = lambda done: None,
) -> int:
    """Write all rows of a store, as of one moment. It may be open in another process.

    Args:
        name: The store.
        stream: Returns the file to write to. Called once the store can be read.
        backend: As for `Level`.
        prefix: As for `Level`.
        progress: Called with the number of rows so far.

    Returns:
        The number of rows.

    Raises:
        StateError: There is no store, or it is a half-made copy.
        StorageError, CorruptionError: The store cannot be read.
    """
    source, space = create(backend, name, {}), _core.KeySpace(prefix)
    if not source.exists():
        raise StateError(f"there is no store at {source.name!r}")
    source.open_read_only()
    with closing(source), closing(source.snapshot()) as snapshot:
        if copying_record(snapshot) is not None:
            raise StateError(f"{source.name!r} is a half-made copy: complete the copy first")
        mode, store_id = identity_of(snapshot, OwnRecords(space, source.name))
        header = {"treehub-level dump": _VERSION, "mode": mode.value, "store": store_id, "prefix": prefix}
        file, digest, count = stream(), RowDigest(), 0
        file.write(orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE))
        for chunk in row_chunks(snapshot, None, None):
            for row in chunk:
                digest.add(row)
                file.write(_line_of(row))
            count += len(chunk)
            progress(count)
        file.write(orjson.dumps({"rows": count, "sha256": digest.text}, option=orjson.OPT_APPEND_NEWLINE))
    return count


def load_whole(
    stream: BinaryIO,
    source: str,
    name: str | os.PathLike[str],
    *,
    backend: str,
    prefix: str = "!",
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Mode, int]:
    """Make a new store of a dump of a whole store. It has the identity of that store.

    Until the last line was read and compared, the store cannot be opened. It is removed if the
    dump is not complete.

    Args:
        stream: The dump.
        source: The name of the file, for error messages.
        name: The new store: it does not exist, or is empty.
        backend: As for `Level`.
        prefix: As for `Level`: that of the store that was dumped.
        progress: Called with the number of bytes of lines that were stored.

    Returns:
        The mode, and the number of rows.

    Raises:
        StateError: The dump is damaged or cut off, or is of another prefix: there is no new store.
            Or there is a store of that name already: nothing was changed.
        LockedError, StorageError: The store cannot be written.
    """
    target = create(backend, os.fspath(name), {})
    existed = target.exists()
    lines = _numbered_lines(stream, source)
    mode = _mode_of(lines, source, prefix)
    target.open()
    try:
        record = orjson.dumps({"from": source, "store": None, "run": "load"})
        with target.write_lock.entry(), target.exclusive() as transaction:
            if not is_empty(transaction):
                raise StateError(f"{target.name!r} holds data: a dump of a whole store is loaded into a new store only")
            transaction.write([(COPYING_KEY, record)], durable=True)
        try:
            count = _WholeLoader(target, source, progress).run(lines)
        except BaseException:
            _remove(target, existed)
            raise
    finally:
        target.close()
    return mode, count


def _remove(target: Backend, existed: bool) -> None:
    """Remove all rows, and the store itself if it is a new one."""
    for chunk in row_chunks(target, None, None):
        _commit(target, [(key, None) for key, _ in chunk])
    if not existed:
        target.close_and_remove(lambda _: True)


def _commit(target: Backend, batch: Batch, *, durable: bool = False) -> None:
    with target.write_lock.entry(), target.exclusive() as transaction:
        transaction.write(batch, durable=durable)


class _WholeLoader:
    """Writes the rows of a dump in batches."""

    def __init__(self, target: Backend, source: str, progress: Callable[[int], object]) -> None:
        self._target = target
        self._source = source
        self._progress = progress
        self._batch: list[Row] = []
        self._batch_bytes = self._bytes = 0

    def run(self, lines: Iterator[tuple[int, bytes, Any]]) -> int:
        """Write all rows, and compare them with the last line. Return their number."""
        digest = RowDigest()
        for count, (number, text, document) in enumerate(lines):
            if isinstance(document, dict) and document.keys() == {"rows", "sha256"}:
                if document != {"rows": count, "sha256": digest.text}:
                    raise StateError(f"{self._source}, line {number}: the rows are not those that were dumped")
                self._flush([(COPYING_KEY, None)], durable=True)
                return count
            row = _row_of(document)
            if row is None:
                raise StateError(f"{self._source}, line {number}: it is no row of a dump")
            digest.add(row)
            self._add(row, len(text))
        raise StateError(f"{self._source} ends without its last line: it was cut off. Dump the store again")

    def _add(self, row: Row, size: int) -> None:
        self._batch.append(row)
        self._batch_bytes += size
        if len(self._batch) >= _BATCH_ROWS or self._batch_bytes >= _BATCH_BYTES:
            self._flush([])

    def _flush(self, more: list[tuple[bytes, None]], *, durable: bool = False) -> None:
        _commit(self._target, [*self._batch, *more], durable=durable)
        self._bytes += self._batch_bytes
        self._batch, self._batch_bytes = [], 0
        self._progress(self._bytes)


def _line_of(row: Row) -> bytes:
    try:
        document: object = [part.decode() for part in row]
    except UnicodeDecodeError:
        document = {name: b64encode(part).decode() for name, part in zip(("key", "value"), row, strict=True)}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _row_of(document: Any) -> Row | None:
    """Return the row of a line; ``None`` if it is none."""
    match document:
        case [str(key), str(value)]:
            return key.encode(), value.encode()
        case {"key": str(key), "value": str(value)}:
            try:
                return b64decode(key, validate=True), b64decode(value, validate=True)
            except ValueError:
                return None
    return None


def _numbered_lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, bytes, Any]]:
    number = 0
    while text := stream.readline(_MAX_LINE):
        number += 1
        try:
            yield number, text, orjson.loads(text)
        except ValueError as error:
            raise StateError(f"{source}, line {number}: not JSON ({error}): the file is damaged or cut off") from error


def _mode_of(lines: Iterator[tuple[int, bytes, Any]], source: str, prefix: str) -> Mode:
    """Read the first line, and return the mode of the store."""
    _, _, header = next(lines, (0, b"", None))
    match header:
        case {"treehub-level dump": 1, "mode": str(mode), "prefix": str(dumped)} if mode in _MODES:
            if dumped != prefix:
                raise StateError(
                    f"{source} is of a store with the metadata prefix {dumped!r}: load it with that one "
                    f"(--metadata-prefix {dumped})"
                )
            return Mode(mode)
    raise StateError(f"{source}, line 1: it is no dump of a whole store in the version {_VERSION} of the format")
