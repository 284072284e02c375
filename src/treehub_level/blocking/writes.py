"""The verbs that write, shared by levels and sublevels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Generic

from ..backends.base import Entry
from ..engine.codec import Codec
from ..engine.full_disk import smaller_step
from ..engine.groups import belongs_together, check_together
from ..engine.namespace import check_durable
from ..engine.ranges import parse_bounds
from ..engine.scan import CHUNK
from ..engine.store import Store
from ..errors import StorageError
from ..replication.conditions import condition_of, write_if
from ..replication.fields import MAX_PUSH
from ..replication.messages import MAX_BYTES
from ..types import ANY_VALUE, Key, KeyRange, Mode, Operation, Wanted, Written

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Items in one atomic batch of `WriteVerbs.load`, by default.
BATCH_SIZE = 1000


def check_batch_size(batch_size: object) -> int:
    """Return ``batch_size`` if it is a positive ``int``.

    Raises:
        TypeError: ``batch_size`` has another type. A ``bool`` is not accepted.
        ValueError: ``batch_size`` is below 1.
    """
    if type(batch_size) is not int:
        raise TypeError(f"batch_size is an int, not {batch_size!r:.80}")
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    return batch_size


class WriteVerbs(Generic[Key, Written]):
    """The verbs that write.

    Concurrent writers wait for each other instead of failing, and writers that wait together share
    one commit. After a write has returned, every later read sees it. With ``durable=True`` it
    returns only once the bytes are on disk (fsync); ``durable=None`` stands for the level's own
    setting. In SERVER mode each write gets the next change id. In CLIENT mode each changed key
    becomes dirty.

    All verbs raise, with nothing written: NotOpenError: The level is not open. TypeError: An
        argument is of a wrong type. StateError: The call comes from within a write of the same
        thread: from a signal handler, say. InvalidKeyError: The mode cannot hold the key. In every
        mode this is a lone surrogate; in CLIENT and SERVER mode also an empty key, a key over 1024
        bytes of UTF-8, and a key that sorts before the successor of the prefix. InvalidValueError:
        JSON cannot round-trip the value, or in CLIENT and SERVER mode it has more than 4 MiB of
        JSON.
        StorageError: The backend could not write. The level refuses writes until it is closed and
        opened again.
    """

    _store: Store
    _codec: Codec
    _durable: bool

    def put(
        self,
        key: Key,
        value: Written,
        *,
        durable: bool | None = None,
        if_absent: bool = False,
        if_value: Wanted[Written] = ANY_VALUE,
    ) -> None:
        """Store a value under a key, and replace the previous value.

        With ``if_absent`` or ``if_value``, no other write comes between the look at the present
        value and this write, also of other processes: see `transact`.

        Args:
            key: The key.
            value: ``None``, ``bool``, ``int`` (64 bits), finite ``float``, ``str``, ``list``, or
                ``dict`` with ``str`` keys, nested at most 64 deep. Tuples are stored as lists.
            durable: True to wait for the fsync; ``None`` for the level's setting.
            if_absent: True to raise an error if the key exists.
            if_value: The value that the key must have; ``None`` is the JSON null, and `MISSING`
                stands for an absent key. Two values are equal if their JSON is: 1 and 1.0 differ,
                and the order of the members of an object counts.

        Raises:
            ConditionError: The key exists, or has another value; ``found`` is that value.
            ValueError: Both ``if_absent`` and ``if_value`` are given.
        """
        if not self._store.guard.is_open:
            raise self._store.not_open()
        entry = self._codec.encoder.put(key, value)
        if if_absent or if_value is not ANY_VALUE:
            self._write_if(key, entry, durable, if_absent, if_value)
            return
        self._store.commit([entry], self._durable if durable is None else check_durable(durable, self._durable))

    def delete(self, key: Key, *, durable: bool | None = None, if_value: Wanted[Written] = ANY_VALUE) -> None:
        """Remove a key. The delete of an absent key is logged, or becomes dirty, as well.

        Args:
            key: The key.
            durable: True to wait for the fsync; ``None`` for the level's setting.
            if_value: The value that the key must have: see `put`.

        Raises:
            ConditionError: The key has another value, or is absent; ``found`` is that value.
        """
        self._store.require_open()
        entry = self._codec.encoder.delete(key)
        if if_value is ANY_VALUE:
            self._commit([entry], durable)
        else:
            self._write_if(key, entry, durable, False, if_value)

    def del_(self, key: Key, *, durable: bool | None = None, if_value: Wanted[Written] = ANY_VALUE) -> None:
        """Remove a key: the ``del`` of `@treehub/level`, which is a keyword in Python."""
        self.delete(key, durable=durable, if_value=if_value)

    def batch(self, ops: Iterable[Operation], *, durable: bool | None = None, together: bool | None = None) -> None:
        """Write several operations atomically, in order. An empty batch has no effect.

        In CLIENT mode the changes of a batch of 2 to 1000 keys and up to 4 MiB also stay together
        when they are synchronised: the server takes all of them, or none. Batches that share a key
        which is not pushed yet become one, with the latest value of each key.

        Args:
            ops: The operations: ``Put(key, value)``, ``Delete(key)``, or the form of
                `@treehub/level`, ``{"type": "put", "key": …, "value": …}`` and ``{"type": "del",
                "key": …}``. They are neither changed nor kept. Their values must not change until
                the call returns.
            durable: True to wait for the fsync; ``None`` for the level's setting.
            together: True to keep the changes of a larger batch together, too. False to let each
                change be synchronised on its own.

        Raises:
            ValueError: An operation has an unknown type; the message names the operation.
            InvalidValueError: ``together`` is True in CLIENT mode, and one push cannot hold the
                changes: it has up to 16,384 changes and 8 MiB. Nothing was written.
        """
        self._store.require_open()
        self._commit(self._codec.encoder.ops(ops), durable, together)

    def write_batch(self, *, durable: bool | None = None, together: bool | None = None) -> WriteBatch[Key, Written]:
        """Return a `WriteBatch`, which collects operations in a ``with`` block.

        The operations are written atomically at the end of the block, and discarded if it raises.

        Args:
            durable: True to wait for the fsync; ``None`` for the level's setting.
            together: See `batch`.
        """
        self._store.require_open()
        return WriteBatch(self, durable, check_together(together))

    def load(
        self,
        items: Iterable[tuple[Key, Written]],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Import many pairs in bounded memory, in atomic batches.

        If an item is invalid, the batches before its own stay written, and its own batch is not.

        Args:
            items: The pairs. An iterator of any length is consumed batch by batch.
            batch_size: The number of items in a batch.
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

    def clear(self, **bounds: Unpack[KeyRange]) -> int:
        """Delete the keys of a range, in batches.

        In CLIENT and SERVER mode each key gets a delete of its own.

        Keys that are written during the call stay. On a full disk the batches become smaller, and
        later keys of the range that are written meanwhile may be deleted.

        Args:
            **bounds: See `KeyRange`; without bounds, all keys.

        Returns:
            The number of keys deleted.
        """
        start, stop = parse_bounds(self._codec, "clear", bounds)
        cleared, chunk = 0, CHUNK
        while True:
            with self._store.guard.thread.lock:
                cursor = self._store.cursor(self._store.reader(), start, stop, reverse=False, values=False)
            try:
                while keys := cursor.fetch_keys(chunk):
                    if chunk < CHUNK:  # an open cursor keeps the backend's log from being reused
                        cursor.close()
                    self._commit([(key, None) for key in keys], None)
                    cleared, start = cleared + len(keys), keys[-1] + b"\0"
                    if chunk < CHUNK:
                        break
                else:
                    return cleared
            except StorageError as error:
                chunk = smaller_step(chunk, error)
            finally:
                cursor.close()

    def _write_if(self, key: Key, entry: Entry, durable: bool | None, if_absent: bool, if_value: object) -> None:
        condition = condition_of(self._codec, key, if_absent=if_absent, if_value=if_value)
        if condition is None:
            self._commit([entry], durable)
        else:
            write_if(self._store, condition, entry, durable=check_durable(durable, self._durable))

    def _commit(self, entries: Sequence[Entry], durable: bool | None, together: bool | None = False) -> None:
        durable = check_durable(durable, self._durable)
        is_batch = check_together(together) is not False and is_group(self._store.mode, entries, together)
        if entries:
            self._store.commit(entries, durable, is_batch)


def is_group(mode: Mode, entries: Sequence[Entry], together: bool | None) -> bool:
    """Return True if the changes of a batch are to stay together: see `WriteVerbs.batch`.

    Raises:
        InvalidValueError: ``together`` is True, and one push cannot hold the changes.
    """
    return belongs_together(mode, entries, together, (MAX_PUSH, MAX_BYTES))


class Operations(Generic[Key, Written]):
    """Operations collected for one batch.

    Args:
        codec: The codec of the level.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._entries: list[Entry] = []

    def put(self, key: Key, value: Written) -> None:
        """Add a put.

        The value is encoded at once, so that later changes of the object have no effect.

        Raises:
            InvalidKeyError, InvalidValueError: See `WriteVerbs`. Nothing was added.
        """
        self._entries.append(self._codec.encoder.put(key, value))

    def delete(self, key: Key) -> None:
        """Add a delete.

        Raises:
            InvalidKeyError: See `WriteVerbs`. Nothing was added.
        """
        self._entries.append(self._codec.encoder.delete(key))

    def del_(self, key: Key) -> None:
        """Add a delete: another name of `delete`."""
        self.delete(key)

    def __len__(self) -> int:
        return len(self._entries)

    def take(self) -> list[Entry]:
        """Return the collected entries, and start an empty collection."""
        entries, self._entries = self._entries, []
        return entries


class WriteBatch(Operations[Key, Written]):
    """A batch that is written at the end of its ``with`` block.

    Made by `WriteVerbs.write_batch`.
    """

    def __init__(self, target: WriteVerbs[Key, Written], durable: bool | None, together: bool | None) -> None:
        super().__init__(target._codec)
        self._target = target
        self._durable = durable
        self._together = together

    def __enter__(self) -> WriteBatch[Key, Written]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        entries = self.take()
        if kind is None:
            self._target._commit(entries, self._durable, self._together)
