"""Normal, Server, Client: what a write becomes in each mode.

A mode is a strategy that the engine holds. It turns encoded entries into the batch that is written, and knows
nothing of locks, threads or open stores: a step gets a transaction and the current CID, and answers with a `Plan`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from . import _core
from .backends.base import Batch, Entry, Reader, Transaction
from .errors import CorruptionError
from .types import Mode

T = TypeVar("T")


@dataclass(slots=True)
class Plan(Generic[T]):
    """What one step decided. The engine writes the batch, and only then lets the rest happen.

    Attributes:
        result: What the caller gets.
        batch: What to write, atomically; nothing if empty.
        cid: The CID once it is written; ``None`` if it stays.
        durable: Whether the write must reach the disk before the step returns.
        committed: Called after a successful write, still inside the lock.
    """

    result: T
    batch: Batch = ()
    cid: int | None = None
    durable: bool = False
    committed: Callable[[], None] | None = None


#: A decision made while every other writer is kept out, from what the transaction reads and the current CID.
Step = Callable[[Transaction, int], Plan[T]]


class Epoch(NamedTuple):
    """One opening of a server that wrote something: its random id, and the CID after which it began to write."""

    id: str
    start: int


class Normal:
    """A plain store: what is written is all that is written."""

    mode = Mode.NORMAL
    space: None = None

    def plan_write(self, reader: Reader, cid: int, entries: Sequence[Entry]) -> Plan[None]:
        """The batch is the entries."""
        return Plan(None, entries)


class Client:
    """Each write also lands in the set of dirty changes, keyed by the key it touched."""

    mode = Mode.CLIENT

    def __init__(self, space: _core.KeySpace, store_id: str) -> None:
        self.space = space
        self.store_id = store_id

    def plan_write(self, reader: Reader, cid: int, entries: Sequence[Entry]) -> Plan[None]:
        """The batch is the entries, each with its dirty change."""
        return Plan(None, _core.client_batch(self.space, entries))


class Server:
    """Each write also lands in the log, under the next change id.

    The first write after each opening starts an epoch: a random id, recorded with the CID at which it starts. A store
    restored
    from a backup lacks the epochs that clients have seen since, which is how they know (``protocol.md``, "Epochs").
    """

    mode = Mode.SERVER

    def __init__(self, space: _core.KeySpace, store_id: str) -> None:
        self.space = space
        self.store_id = store_id
        self._epoch_begun = False

    def plan_write(self, reader: Reader, cid: int, entries: Sequence[Entry]) -> Plan[None]:
        """The batch is the entries, their log records, the CID, and the epoch if this is the first write."""
        if not entries:
            return Plan(None)
        batch = _core.server_batch(self.space, cid, entries)
        after = cid + len(entries)
        if self._epoch_begun:
            return Plan(None, batch, after)
        epochs = [*self.epochs(reader), Epoch(uuid.uuid4().hex, cid)]
        batch.append((self.space.own_key("epochs"), orjson.dumps([[*epoch] for epoch in epochs])))
        return Plan(None, batch, after, committed=self._begin_epoch)

    def _begin_epoch(self) -> None:
        self._epoch_begun = True

    def epochs(self, reader: Reader, planned: Batch = ()) -> list[Epoch]:
        """Every epoch of this store, oldest first.

        Args:
            reader: What to read from.
            planned: A batch of `plan_write` that is about to be written: the epochs as they will be then.

        Raises:
            CorruptionError: The record is not what this class writes.
        """
        key = self.space.own_key("epochs")
        if planned and planned[-1][0] == key:
            record = orjson.loads(planned[-1][1] or b"[]")
        else:
            record = read_record(reader, key) or []
        try:
            return [Epoch(str(epoch), int(start)) for epoch, start in record]
        except (TypeError, ValueError) as error:
            raise CorruptionError(f"the record of this server's epochs cannot be read: {record!r:.80}") from error


AnyMode = Normal | Client | Server


def read_record(reader: Reader, key: bytes) -> Any:
    """One of the store's own records, decoded; ``None`` if it is absent.

    Raises:
        CorruptionError: It is not JSON.
    """
    stored = reader.get(key)
    if stored is None:
        return None
    try:
        return orjson.loads(stored)
    except orjson.JSONDecodeError as error:
        raise CorruptionError(f"the store's own record {key!r} is not JSON: {stored[:40]!r}") from error


def read_cid(reader: Reader, space: _core.KeySpace) -> int:
    """The CID as it is on disk; 0 if none was written yet.

    Raises:
        CorruptionError: What is stored there is no CID.
    """
    cid = read_record(reader, space.prefix)
    if cid is None:
        return 0
    if type(cid) is not int or not 0 <= cid <= _core.MAX_CID:
        raise CorruptionError(f"the change id of this store cannot be read: {cid!r:.80}")
    return cid
