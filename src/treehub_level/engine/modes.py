"""Normal, Server, Client: the batch that a write becomes in each mode.

A mode is a strategy of the engine. It turns encoded entries into the batch to write, and knows
nothing of locks, threads or open stores: a step receives a transaction and the current CID, and
returns a `Plan`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import orjson

from .. import _core
from ..backends.base import Batch, Entry, Reader, Transaction
from ..errors import StorageError
from ..types import Mode
from . import clock
from .base_values import BaseRecording
from .groups import distinct_keys, group_key, group_record, last_group
from .records import Commit, Epoch, OwnRecords, commit_key
from .sightings import Sightings

T = TypeVar("T")


@dataclass(slots=True)
class Plan(Generic[T]):
    """The decision of a step. The engine writes the batch, and then applies the rest.

    Attributes:
        result: The value returned to the caller of the step.
        batch: The entries to write, atomically. If it is empty, nothing is written.
        cid: The CID after the commit; ``None`` if it does not change.
        durable: True if the write must be on disk (fsync) before the step returns.
        after_commit: Called after a successful write, still under the write lock.
        is_reply: True if the batch is the effect of a server's reply, so that no change in it is a
            local write.
    """

    result: T
    batch: Batch = ()
    cid: int | None = None
    durable: bool = False
    after_commit: Callable[[], None] | None = None
    is_reply: bool = False


#: A decision made under the write lock, from the transaction's reads and the current CID.
Step = Callable[[Transaction, int], Plan[T]]


class EpochStart(NamedTuple):
    """The first write of an epoch.

    Attributes:
        connection_epoch: The transaction's `Transaction.connection_epoch` at that write.
        epochs: All epochs of the store, the new one last.
    """

    connection_epoch: Hashable
    epochs: list[Epoch]


class Write(NamedTuple):
    """One write among those that are committed together.

    Attributes:
        size: The number of its entries.
        is_batch: True if its changes belong together.
        principal: The name of the caller; ``None`` if it is not known.
    """

    size: int
    is_batch: bool = False
    principal: str | None = None


class Normal:
    """A plain store: the entries are all that is written."""

    mode = Mode.NORMAL
    space: None = None

    def plan_write(
        self, transaction: Transaction, cid: int, entries: Sequence[Entry], writes: Sequence[Write] = ()
    ) -> Plan[None]:
        """Plan a batch of the entries alone."""
        return Plan(None, entries)


class Client:
    """Each write also lands in the set of dirty changes, under the key that it changes.

    Args:
        records: The own records of the store.
        store_id: The id of the store.
        holder: The holder record to write with this opening's first write; ``None`` if the store is
            not shared.
        previous_holder: The holder record found by this opening.

    Attributes:
        recording: The base values that local writes record; ``None`` if they record none.
        outstanding: The nonce of the last request; ``None`` once its reply was applied. Any other
            reply is stale.
        pushed_last: True if the last request had a push: the next one may ask for a part of a fill.
        synced_ms: The time in the record of the last sync, if this opening has written it.
        rejected_to: The server's CID when it last rejected changes of a push. Below that CID the
            client has not pulled all changes to which these lose, so it does not push.
    """

    mode = Mode.CLIENT

    def __init__(
        self,
        records: OwnRecords,
        store_id: str,
        holder: bytes | None = None,
        previous_holder: bytes | None = None,
    ) -> None:
        self.records = records
        self.space = records.space
        self.store_id = store_id
        self.holder = holder
        self.previous_holder = previous_holder
        self.recording: BaseRecording | None = None
        self.outstanding: str | None = None
        self.pushed_last = False
        self.synced_ms: int | None = None
        self.rejected_to = 0
        #: The highest number of a group that this opening has written; ``None`` before the first.
        self._last_group: int | None = None

    def plan_write(
        self,
        transaction: Transaction,
        cid: int,
        entries: Sequence[Entry],
        writes: Sequence[Write] = (),
        *,
        also: Sequence[Entry] = (),
    ) -> Plan[None]:
        """Plan a batch of the entries with their dirty changes, and of the entries in ``also``.

        It also has the base values of the keys that become dirty, as far as they are recorded, and
        the group of each write whose changes belong together.
        """
        batch = _core.client_batch(self.space, entries)
        for entry in also:
            batch.append(entry)
        if self.recording is not None:
            shared = self.holder is not None
            for entry in self.recording.new_entries(transaction, self.space, entries, shared=shared):
                batch.append(entry)
        if writes:
            for entry in self._groups(transaction, entries, writes):
                batch.append(entry)
        return Plan(None, batch)

    def _groups(self, reader: Reader, entries: Sequence[Entry], writes: Sequence[Write]) -> Iterator[Entry]:
        """Yield a record for each write whose changes belong together."""
        start = 0
        for write in writes:
            keys = distinct_keys(entries[start : start + write.size]) if write.is_batch else []
            start += write.size
            if len(keys) > 1:
                last = last_group(reader, self.records) if self._last_group is None else self._last_group
                self._last_group = last + 1
                yield group_key(self.space, last + 1), group_record(keys)


class Server:
    """Each write also lands in the change log, under the next change id.

    The first write after each opening starts an epoch: a random id, recorded with the CID at which
    it starts. A store that was restored from a backup lacks the epochs that clients have seen since
    the backup; that is how clients recognise the restore (``docs/protocol.md``, "Epochs"). A shared
    store can be restored while it is open. Then its connection epoch has changed, or the record of
    epochs lacks the epoch of this opening, and the next write starts another.

    Args:
        records: The own records of the store.
        store_id: The id of the store.
        shared: True if other processes may write to the store.
        audit: True to record the time of every local write, not only of batches.

    Attributes:
        check: The function that may refuse changes of clients (``replication.rules``); ``None``
            without one.
        sightings: Notes the client of each exchange; ``None`` if the server does not remember its
            clients.
        is_missing: True once `check_store` found another store, or none.
    """

    mode = Mode.SERVER
    is_missing = False

    def __init__(self, records: OwnRecords, store_id: str, *, shared: bool = False, audit: bool = False) -> None:
        self.records = records
        self.space = records.space
        self.store_id = store_id
        self._shared = shared
        self._audit = audit
        self.check: Callable[..., object] | None = None
        self.sightings: Sightings | None = None
        self._started: EpochStart | None = None

    def plan_write(
        self, transaction: Transaction, cid: int, entries: Sequence[Entry], writes: Sequence[Write] = ()
    ) -> Plan[None]:
        """Plan a batch of the entries, their log records, the records of commits, and the CID.

        The first write of an epoch also writes the record of epochs.

        Args:
            transaction: The transaction of the write.
            cid: The CID before the write.
            entries: The entries to write.
            writes: The writes that the entries come from, in order; none for one without a name and
                whose changes do not belong together.
        """
        if not entries:
            return Plan(None)
        in_epoch = self._started is not None and not self._shared
        epoch_start = None if in_epoch else self.epoch_start(transaction, cid)
        if not writes:
            if not self._audit:
                return self.plan_write_in(epoch_start, cid, entries)
            writes = (Write(len(entries)),)
        return self.plan_write_in(epoch_start, cid, entries, self._commit_entries(cid, writes))

    def _commit_entries(self, cid: int, writes: Sequence[Write]) -> list[Entry]:
        """Return the records of local commits: of each batch; of every write in an audit."""
        ms, found = clock.now(), []
        for size, is_batch, principal in writes:
            first, cid = cid + 1, cid + size
            is_run = is_batch and size > 1
            if is_run or (self._audit and size):
                commit = Commit(first, cid, None, principal, ms, ((first, cid),) if is_run else ())
                found.append(self.commit_entry(commit))
        return found

    def commit_entry(self, commit: Commit) -> Entry:
        """Return the entry that records a commit. It belongs in the batch with its changes."""
        return commit_key(self.space, commit.last), commit.to_stored()

    def epoch_start(self, transaction: Transaction, cid: int, epochs: list[Epoch] | None = None) -> EpochStart | None:
        """Return the epoch that a write would start; ``None`` if it continues the current one.

        Args:
            transaction: The transaction of the write.
            cid: The CID before the write.
            epochs: The epochs of the store in this transaction, if the caller has them.
        """
        started = self._started
        if started is not None and not self._shared:
            return None
        if started is not None and started.connection_epoch != transaction.connection_epoch:
            started = None
        epochs = self.records.epochs(transaction, cid) if epochs is None else epochs
        if started is not None and started.epochs[-1] in epochs:
            return None
        self.check_store(transaction)
        return EpochStart(transaction.connection_epoch, [*epochs, Epoch(uuid.uuid4().hex, cid)])

    def check_store(self, reader: Reader) -> None:
        """Check that a store which other processes can reach was not renamed or removed by one.

        It would look like an empty store: its clients would be told to start over.

        Raises:
            StorageError: It was.
        """
        if not self._shared:
            return
        identity = self.records.identity(reader, strict=True)
        if identity is None or identity.id != self.store_id:
            self.is_missing = True
            raise StorageError(
                f"the store of the server {self.store_id} is another store now, or missing: close it, and open it again"
            )

    def plan_write_in(
        self, epoch_start: EpochStart | None, cid: int, entries: Sequence[Entry], also: Sequence[Entry] = ()
    ) -> Plan[None]:
        """Plan a write as `plan_write` does, in a known epoch.

        Args:
            epoch_start: The result of `epoch_start` in this transaction.
            cid: The CID before the write.
            entries: The entries to write: at least one.
            also: Entries to write as they are, without log records.
        """
        batch = _core.server_batch(self.space, cid, entries)
        for entry in also:
            batch.append(entry)
        plan: Plan[None] = Plan(None, batch, cid + len(entries))
        if epoch_start is not None:
            batch.append((self.space.own_key("epochs"), orjson.dumps([[*epoch] for epoch in epoch_start.epochs])))
            plan.after_commit = partial(setattr, self, "_started", epoch_start)
        return plan


AnyMode = Normal | Client | Server
