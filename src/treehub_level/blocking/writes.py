"""The verbs that write, shared by levels and sublevels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from ..backends.base import Entry
from ..engine.codec import Codec
from ..engine.store import Store
from ..types import JSON
from .reads import CHUNK

#: Items in one atomic batch of `WriteVerbs.load`, unless chosen otherwise.
BATCH_SIZE = 1000


def check_batch_size(batch_size: object) -> int:
    """``batch_size`` if it is an int of at least 1.

    Raises:
        TypeError: Another type (a ``bool`` is no int here).
        ValueError: Below 1.
    """
    if type(batch_size) is not int:
        raise TypeError(f"batch_size is an int, not {batch_size!r:.80}")
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    return batch_size


def check_durable(durable: object, default: bool) -> bool:
    """``durable`` if it is a ``bool``, ``default`` if it is ``None``.

    Raises:
        TypeError: It is something else.
    """
    if durable is None:
        return default
    if not isinstance(durable, bool):
        raise TypeError(f"durable is True, False or None, not {durable!r:.80}")
    return durable


class WriteVerbs:
    """Writing. Writers never fail because another one runs: they queue, and those that wait together share one commit.

    After a write returns, every later read sees it. ``durable=True`` returns only after the bytes are on disk (fsync);
    ``durable=None`` does as the level was opened. In SERVER mode each write gets the next change id, in CLIENT mode it
    becomes dirty.

    All of them raise, with nothing written:
        NotOpenError: The level is not open.
        TypeError: An argument of a wrong type.
        InvalidKeyError: A key that this mode cannot hold: everywhere a lone surrogate; in CLIENT and SERVER mode also
            an empty one,
            one over 1024 bytes of UTF-8, or one that sorts before the successor of the prefix.
        InvalidValueError: A value that would not come back equal, or in CLIENT and SERVER mode one over 4 MiB of JSON.
        StorageError: The engine could not write. It refuses writes from then on, until it was closed and opened again.
    """

    _store: Store
    _codec: Codec
    _durable: bool

    def put(self, key: str, value: JSON, *, durable: bool | None = None) -> None:
        """Store ``value`` under ``key``, over whatever was there.

        Args:
            key: The key.
            value: ``None``, ``bool``, ``int`` (64 bits), finite ``float``, ``str``, ``list`` or ``dict`` with ``str``
                keys, nested at most 64 deep.
                Tuples are stored as lists.
            durable: Whether to wait for the disk.
        """
        self._store.require_open()
        self._commit([self._codec.encoder.put(key, value)], durable)

    def delete(self, key: str, *, durable: bool | None = None) -> None:
        """Remove ``key``. If it is absent nothing happens to the data; the delete is logged or dirty all the same.

        Args:
            key: The key.
            durable: Whether to wait for the disk.
        """
        self._store.require_open()
        self._commit([self._codec.encoder.delete(key)], durable)

    def del_(self, key: str, *, durable: bool | None = None) -> None:
        """Another name for `delete`: the seed's ``del`` is a keyword here."""
        self.delete(key, durable=durable)

    def batch(self, ops: Iterable[Any], *, durable: bool | None = None) -> None:
        """Write several operations: atomic, in order, all or nothing. An empty batch does nothing.

        Args:
            ops: ``Put(key, value)``, ``Delete(key)``, or the seed's ``{"type": "put", "key": …, "value": …}`` and
                ``{"type": "del", "key": …}``.
                Your objects are neither changed nor kept; leave their values as they are until the call returns.
            durable: Whether to wait for the disk.

        Raises:
            ValueError: An operation of an unknown type. The message says which one.
        """
        self._store.require_open()
        self._commit(self._codec.encoder.ops(ops), durable)

    def write_batch(self, *, durable: bool | None = None) -> WriteBatch:
        """Collect operations in a ``with`` block.

        They are written on leaving it, atomically, and discarded when it raises.

        Args:
            durable: Whether to wait for the disk on leaving.
        """
        self._store.require_open()
        return WriteBatch(self, durable)

    def load(
        self,
        items: Iterable[tuple[str, JSON]],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Import many pairs in bounded memory: one atomic batch for each ``batch_size`` of them.

        If an item is refused, the batches before its own stay, and its own is not written.

        Args:
            items: The pairs, of any length; consumed as it goes.
            batch_size: Items for each batch.
            progress: Called after each batch with the number of items written so far.

        Returns:
            The number of items written.
        """
        self._store.require_open()
        check_batch_size(batch_size)
        done = 0
        iterator = iter(items)
        while page := list(islice(iterator, batch_size)):
            self._commit(self._codec.encoder.pairs(page), None)
            done += len(page)
            if progress is not None:
                progress(done)
        return done

    def clear(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
    ) -> int:
        """Delete every key of a range, in batches. In CLIENT and SERVER mode each key gets a delete of its own.

        New keys written while it runs stay.

        Args:
            gt: Only keys above this one.
            gte: Only keys from this one on.
            lt: Only keys below this one.
            lte: Only keys up to this one.
            prefix: Only keys that start with this.

        Returns:
            The number of keys deleted.

        Raises:
            ValueError: ``gt`` with ``gte``, or ``lt`` with ``lte``.
        """
        start, stop = self._codec.bounds(gt, gte, lt, lte, prefix)
        with self._store.current_reader as reader:
            cursor = self._store.cursor(reader, start, stop, reverse=False, values=False)
        cleared = 0
        with closing(cursor):
            while keys := cursor.fetch_keys(CHUNK):
                self._commit([(key, None) for key in keys], None)
                cleared += len(keys)
        return cleared

    def _commit(self, entries: Sequence[Entry], durable: bool | None) -> None:
        durable = check_durable(durable, self._durable)
        if entries:
            self._store.commit(entries, durable)


class Operations:
    """Operations that will be written together."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._entries: list[Entry] = []

    def put(self, key: str, value: JSON) -> None:
        """Add a put. The value is encoded now: what becomes of the object later does not matter.

        Raises:
            InvalidKeyError: See `WriteVerbs`. The batch is as it was.
            InvalidValueError: See `WriteVerbs`. The batch is as it was.
        """
        self._entries.append(self._codec.encoder.put(key, value))

    def delete(self, key: str) -> None:
        """Add a delete.

        Raises:
            InvalidKeyError: See `WriteVerbs`. The batch is as it was.
        """
        self._entries.append(self._codec.encoder.delete(key))

    def del_(self, key: str) -> None:
        """Another name for `delete`."""
        self.delete(key)

    def __len__(self) -> int:
        return len(self._entries)

    def take(self) -> list[Entry]:
        """Return what was collected, and begin anew."""
        entries, self._entries = self._entries, []
        return entries


class WriteBatch(Operations):
    """A batch that is written on leaving its ``with`` block. Made by `WriteVerbs.write_batch`."""

    def __init__(self, target: WriteVerbs, durable: bool | None) -> None:
        super().__init__(target._codec)
        self._target = target
        self._durable = durable

    def __enter__(self) -> WriteBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        entries = self.take()
        if kind is None:
            self._target._commit(entries, self._durable)
