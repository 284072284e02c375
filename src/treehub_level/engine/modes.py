"""Normal, Server, Client: what a write becomes in each mode.

A mode is a strategy that the engine holds. It turns encoded entries into the batch that is written, and knows
nothing of locks, threads or open stores: a step gets a transaction and the current CID, and answers with a `Plan`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from .. import _core
from ..backends.base import Batch, Entry, Reader, Transaction
from ..errors import CorruptionError, StateError
from ..types import Mode

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


class EpochStart(NamedTuple):
    """A write that begins an epoch: in which incarnation of the store, and every epoch as it will be then."""

    connection_epoch: Hashable
    epochs: list[Epoch]


class Normal:
    """A plain store: what is written is all that is written."""

    mode = Mode.NORMAL
    space: None = None

    def plan_write(self, transaction: Transaction, cid: int, entries: Sequence[Entry]) -> Plan[None]:
        """The batch is the entries."""
        return Plan(None, entries)


class Client:
    """Each write also lands in the set of dirty changes, keyed by the key it touched.

    Args:
        space: The key space.
        store_id: The id of the store.
        holder: What the holder record says once this opening has written; ``None`` if the store is not shared.
        before: What it said when this opening began.
    """

    mode = Mode.CLIENT

    def __init__(
        self, space: _core.KeySpace, store_id: str, holder: bytes | None = None, before: bytes | None = None
    ) -> None:
        self.space = space
        self.store_id = store_id
        self.holder = holder
        self.before = before

    def plan_write(
        self, transaction: Transaction, cid: int, entries: Sequence[Entry], also: Sequence[Entry] = ()
    ) -> Plan[None]:
        """The batch is the entries, each with its dirty change, and what else there is to write."""
        batch = _core.client_batch(self.space, entries)
        for entry in also:
            batch.append(entry)
        return Plan(None, batch)


class Server:
    """Each write also lands in the log, under the next change id.

    The first write after each opening starts an epoch: a random id, recorded with the CID at which it starts. A store
    restored from a backup lacks the epochs that clients have seen since, which is how they know (``protocol.md``,
    "Epochs"). A shared store may be restored while it is open: then its incarnation has changed, or the epoch of this
    opening is not in the record any more, and the next write starts another.

    Args:
        space: The key space.
        store_id: The id of the store.
        shared: Whether others may write to it too.
    """

    mode = Mode.SERVER

    def __init__(self, space: _core.KeySpace, store_id: str, *, shared: bool = False) -> None:
        self.space = space
        self.store_id = store_id
        self._shared = shared
        self._begun: EpochStart | None = None

    def plan_write(self, transaction: Transaction, cid: int, entries: Sequence[Entry]) -> Plan[None]:
        """The batch is the entries, their log records, the CID, and the epoch if this write begins one."""
        if not entries:
            return Plan(None)
        return self.plan_write_in(self.epoch_start(transaction, cid), cid, entries)

    def epoch_start(self, transaction: Transaction, cid: int, epochs: list[Epoch] | None = None) -> EpochStart | None:
        """The epoch that a write would begin, if it were made now; ``None`` if it would go on in one begun before.

        Args:
            transaction: What the write will be made in.
            cid: The CID before.
            epochs: What `epochs` has answered in this transaction, if it was asked.
        """
        begun = self._begun
        if begun is not None and begun.connection_epoch != transaction.connection_epoch:
            begun = None
        if begun is not None and not self._shared:
            return None
        epochs = self.epochs(transaction) if epochs is None else epochs
        if begun is not None and begun.epochs[-1] in epochs:
            return None
        if self._shared:
            self._check_store(transaction)
        return EpochStart(transaction.connection_epoch, [*epochs, Epoch(uuid.uuid4().hex, cid)])

    def _check_store(self, reader: Reader) -> None:
        record = read_record(reader, self.space.own_key("store"))
        if not isinstance(record, dict) or record.get("id") != self.store_id:
            raise StateError(
                f"what was the server {self.store_id} when it was opened is another store now, or none: "
                "close it, and open it again"
            )

    def plan_write_in(
        self, epoch_start: EpochStart | None, cid: int, entries: Sequence[Entry], also: Sequence[Entry] = ()
    ) -> Plan[None]:
        """See `plan_write`.

        Args:
            epoch_start: What `epoch_start` has answered in this transaction.
            cid: The CID before.
            entries: What to write: at least one entry.
            also: What else to write, as it is.
        """
        batch = _core.server_batch(self.space, cid, entries)
        for entry in also:
            batch.append(entry)
        plan: Plan[None] = Plan(None, batch, cid + len(entries))
        if epoch_start is not None:
            batch.append((self.space.own_key("epochs"), orjson.dumps([[*epoch] for epoch in epoch_start.epochs])))
            plan.committed = partial(self._begin, epoch_start)
        return plan

    def _begin(self, epoch_start: EpochStart) -> None:
        self._begun = epoch_start

    def epochs(self, reader: Reader) -> list[Epoch]:
        """Every epoch of this store, oldest first.

        Raises:
            CorruptionError: The record is not what this class writes.
        """
        record = read_record(reader, self.space.own_key("epochs")) or []
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
