"""The verbs of CLIENT mode: the dirty changes, the conflict journal, and ``sync``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from typing import Any, Protocol

from .. import _core
from ..backends.base import SyncLock
from ..engine.codec import Codec
from ..engine.ranges import check_limit
from ..engine.store import Store
from ..locks import ErrorCheckingLock
from ..replication.driver import drive, exchange_of, exchange_verb
from ..replication.following import evict_step, follow_step, read_followed, unfollow_step
from ..replication.journal import check_prefix, dismiss_rows_step, dismiss_step, read_conflicts, restore_step
from ..replication.live import count_dirty, last_synced
from ..replication.manual import apply_step, check_cid, clean_step, decode_record, read_dirty
from ..replication.merging import OnConflict, require_on_conflict
from ..replication.records import journal_bounds
from ..replication.session import rebind_session, sync_session
from ..replication.sync_locks import PATIENCE, PAUSE, Attempts, sync_lock
from ..tracing import sync_span
from ..types import Change, Changes, Conflict, Followed, OnReset, SyncReport

#: Records of the journal to read at a time. The number is small since values may be large.
_JOURNAL_FETCH = 64


class Exchanger(Protocol):
    """The part of a server that `ClientVerbs.sync` needs: one method."""

    def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
        """Answer a request: see `ServerVerbs.exchange`."""


class ClientVerbs:
    """The verbs of a level in CLIENT mode.

    All verbs raise:
        NotOpenError: The level is not open.
        ModeError: The level is open in another mode.
        TypeError: An argument is of a wrong type. A CID is an ``int``, not a ``bool``.
        StorageError, CorruptionError: The backend could not read or write.
    """

    _store: Store
    _codec: Codec

    def __init__(self) -> None:
        self._sync_lock = ErrorCheckingLock("synchronise this level")
        self._returned_dirty: dict[bytes, bytes] = {}

    def apply(self, cid: int | Changes, changes: Any = None) -> int:
        """Write a page of a server's changes. It is the second half of a manual pull.

        One batch writes the changes, drops the dirty changes of their keys, and moves the CID. The
        server wins; dirty changes that differ go to the journal (see `conflicts`). Applying a page
        again is harmless.

        Args:
            cid: The CID of the page, or the result of ``changes()``.
            changes: The changes of the page: a sequence of `Change`, ``[key, value]`` or ``[key]``.

        Returns:
            The new CID.

        Raises:
            CIDMismatchError: The page ends below this client's CID: it came late.
            ValueError: ``cid`` is above 2^53 - 1.
            ProtocolError: A change is malformed. Nothing was written.
            StateError: An interrupted ``sync`` has a frozen push: call ``sync`` again first.
        """
        mode = self._store.client("apply")
        if isinstance(cid, Changes):
            cid, changes = cid[:2]
        entries = self._codec.encoder.changes(changes)
        return self._store.step(apply_step(mode, _target_cid(cid), entries))

    def dirty(self, limit: int | None = 100) -> list[Change]:
        """Return the local changes that no server has acknowledged, in key order.

        It is the first half of a manual push.

        Args:
            limit: The largest number of changes; ``None`` for all.

        Raises:
            ValueError: ``limit`` is negative.
        """
        mode = self._store.client("dirty")
        check_limit(limit)
        with self._store.guard.thread.lock:
            rows = read_dirty(self._store.reader(), mode.records, limit)
        self._returned_dirty.update(rows)
        return [decode_record(record) for _, record in rows]

    def clean(self, cid: int, keys: Iterable[Any]) -> int:
        """Drop dirty changes that a server has accepted, and move the CID.

        It is the second half of a manual push. A key that was written after ``dirty()`` returned it
        stays dirty.

        Args:
            cid: The CID that the server returned.
            keys: The pushed keys, or the pushed changes themselves.

        Returns:
            The new CID.

        Raises:
            CIDMismatchError: ``cid`` is below this client's CID: the reply came late.
            ValueError: ``cid`` is above 2^53 - 1.
            InvalidKeyError: A key is invalid.
            ProtocolError: A change is malformed.
            StateError: See `apply`.
        """
        mode = self._store.client("clean")
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"clean() takes several keys, not the one key {keys!r:.80}")
        pushed: list[tuple[bytes, bytes | None]] = []
        for item in keys:
            if isinstance(item, str):
                key = self._codec.encoder.key(item)
                pushed.append((key, self._returned_dirty.get(key)))
            else:
                pushed.extend(
                    (key, _core.join_record(key, value)) for key, value in self._codec.encoder.changes([item])
                )
        reached = self._store.step(clean_step(mode, _target_cid(cid), pushed))
        for key, _ in pushed:
            self._returned_dirty.pop(key, None)
        return reached

    @property
    def last_synced(self) -> datetime | None:
        """The time in UTC at which this client and its server held the same last, if ever.

        It survives a restart. It is the client's clock at a reply after which nothing was left to
        pull or to push. While a live session gets replies that bring nothing, it is renewed once in
        60 seconds, so it may be older than the truth by that much: see `LiveSession.last_synced`.

        Raises:
            NotOpenError: The level is not open.
            ModeError: The level is open in another mode than CLIENT.
        """
        return last_synced(self._store, "last_synced")

    def pending(self) -> int:
        """Return the number of dirty changes, which a server has not acknowledged yet."""
        return count_dirty(self._store, "pending")

    def sync(
        self,
        server: Exchanger,
        *,
        pull: bool = True,
        push: bool = True,
        on_reset: OnReset = "reset",
        on_conflict: OnConflict | None = None,
        progress: Callable[[SyncReport], object] | None = None,
    ) -> SyncReport:
        """Synchronise with a server until both sides are drained.

        Conflicts are resolved in the server's favour; overwritten local changes are kept in the
        conflict journal, unless ``on_conflict`` settles them. Safe to interrupt and to retry.
        Concurrent calls for one client run one after the other, also those of several processes
        with one SQLite store.

        Args:
            server: A level in SERVER mode, a ``RemoteServer``, or any object with an ``exchange``
                method.
            pull: True to pull all changes; ``False`` pulls only as many as the push needs.
            push: True to push the dirty changes.
            on_reset: The reaction to a server that was restored from a backup, or has dropped
                deletes that this client has not seen. ``"reset"`` pulls everything again and keeps
                dirty changes; ``"raise"`` raises StoreMismatchError before anything is written.
            on_conflict: A function that settles conflicts, ``on_conflict(conflict)``: it returns
                the value to write instead, ``MISSING`` to delete the key, ``KEEP_SERVER`` to drop
                the local change, or ``JOURNAL`` to keep it in the journal, as without the function.
                See `treehub_level.merge`. The value is written as a new local change, in the batch
                that takes the server's value, and is pushed then. The function runs inside the
                write transaction, with asyncio in another thread, and may be called again for the
                same conflict: it must be quick, and must not use this level. If it raises, or its
                answer is illegal, the conflict is journaled: see `SyncReport.failed_merges`.
            progress: Called after each exchange with the report so far.

        Returns:
            The counts of pulled and pushed changes, and the conflicts.

        Raises:
            StoreMismatchError: This client has synchronised with another server: see `rebind`.
            ProtocolError: The server's reply is impossible. Nothing of it was written.
            TransportError: The server could not be reached. Other errors of the server come
                through.
            ForbiddenError: The token may not push: everything was pulled, and the error's ``keys``
                stay dirty. Or it may not pull either.
            ValueError: ``pull`` and ``push`` are both false, or ``on_reset`` is unknown.
            TypeError: ``on_conflict`` is no function of one conflict, or an async one.
            StateError: ``progress``, the server or a signal handler called it within a sync.
            LockedError: Another process has been synchronising the same SQLite store for 30
                seconds.
        """
        report = SyncReport()
        session = sync_session(
            self._store.step,
            self._store.client("sync"),
            pull=pull,
            push=push,
            on_reset=on_reset,
            report=report,
            on_conflict=require_on_conflict(on_conflict),
        )
        exchange = blocking_exchange_of(server)
        with self._sync_lock.entry(), sync_lock(self._store, "sync") as lock, sync_span(exchange, report):
            _acquire(lock)
            return drive(session, exchange, _nothing if progress is None else lambda: progress(report))

    def rebind(self, server: Exchanger) -> None:
        """Make this client follow another server.

        The next ``sync`` pulls everything from the new server, and pushes the dirty changes.

        Args:
            server: The new server, which is asked for its id.

        Raises:
            TransportError: The server could not be reached. Nothing was changed.
        """
        session = rebind_session(self._store.step, self._store.client("rebind"))
        exchange = blocking_exchange_of(server)
        with self._sync_lock.entry(), sync_lock(self._store, "sync") as lock:
            _acquire(lock)
            drive(session, exchange, _nothing)

    def follow(self, prefix: str, *prefixes: str) -> None:
        """Follow the keys that begin with a prefix, from the next sync on.

        That sync fetches the server's entries of the range, except those of ranges that are
        followed already. Following a prefix again is harmless. After an error nothing is changed.

        Args:
            prefix: The prefix; ``""`` for all keys.
            *prefixes: Further prefixes.

        Raises:
            InvalidKeyError: No key can begin with a prefix.
            ValueError: The client would follow more than 256 prefixes, or more than 16 KiB of them.
            StateError: The level is open for reading only.
        """
        self._store.step(follow_step(self._store.client("follow"), (prefix, *prefixes)))

    def unfollow(self, prefix: str, *prefixes: str) -> None:
        """Stop to follow the keys that begin with a prefix, and remove them here, in batches.

        The server and other clients keep the keys. A local change that is not pushed yet stays
        until it is pushed. Keys of another followed prefix stay. After an interruption, the next
        sync removes the rest. A prefix that is not followed is ignored.

        Args:
            prefix: A prefix that is followed.
            *prefixes: Further ones.

        Raises:
            InvalidKeyError: No key can begin with a prefix.
            StateError: The level is open for reading only.
        """
        mode = self._store.client("unfollow")
        for step in [unfollow_step(mode, given) for given in (prefix, *prefixes)]:  # all are valid
            self._store.step(step)
        while self._store.step(evict_step(mode)):
            pass

    def followed(self) -> list[Followed]:
        """Return the prefixes that the client follows, in order.

        Returns:
            The prefixes, each with the answer if all its keys are here. A client that follows all
            keys has the prefix ``""``.
        """
        mode = self._store.client("followed")
        return self._store.read_step(lambda reader, cid: read_followed(reader, mode.records, cid))

    def conflicts(self, *, prefix: str | None = None) -> list[Conflict]:
        """Return the conflicts in the journal, oldest first.

        The journal is in the order of time, so the whole of it is read and decoded, with or without
        a prefix.

        Args:
            prefix: Only conflicts over keys that begin with this; ``None`` for all.
        """
        mode = self._store.client("conflicts")
        beginning = check_prefix(prefix)
        with self._store.guard.thread.lock:
            return read_conflicts(self._store.reader(), mode.records, beginning)

    def restore(self, conflict: Conflict) -> None:
        """Write the local change of a conflict again, and remove the conflict from the journal.

        Raises:
            StateError: The conflict is not in the journal.
        """
        self._store.step(restore_step(self._store.client("restore"), conflict))

    def dismiss(self, conflict: Conflict) -> None:
        """Remove a conflict from the journal. Doing so again is harmless."""
        self._store.step(dismiss_step(self._store.client("dismiss"), conflict))

    def dismiss_all(self, *, prefix: str | None = None) -> int:
        """Remove the conflicts from the journal that it holds now, in batches and bounded memory.

        The whole journal is read, with or without a prefix. A conflict that is journaled during the
        call stays.

        Args:
            prefix: Only conflicts over keys that begin with this; ``None`` for all.

        Returns:
            The number of conflicts removed.
        """
        mode, store = self._store.client("dismiss_all"), self._store
        store.require_writable()
        beginning = check_prefix(prefix)
        start, stop = journal_bounds(mode.space)
        removed = 0
        with closing(store.snapshot()) as snapshot:
            while True:
                with (
                    store.guard.thread.lock,
                    snapshot.guard.thread.lock,
                    closing(snapshot.reader.scan(start, stop)) as cursor,
                ):
                    found = cursor.fetch(_JOURNAL_FETCH)
                if not found:
                    return removed
                removed += store.step(dismiss_rows_step(mode, found, beginning))
                start = found[-1][0] + b"\0"


def blocking_exchange_of(server: object) -> Callable[..., Any]:
    """Return a function that sends a request to a blocking server: see `driver.exchange_of`.

    Raises:
        TypeError: ``server`` has no ``exchange`` method, or an asyncio one.
    """
    if inspect.iscoroutinefunction(exchange_verb(server)):
        raise TypeError(
            f"{server!r:.80} is an asyncio level: a blocking one synchronises with its blocking counterpart"
        )
    return exchange_of(server)


def _target_cid(cid: object) -> int:
    """Return a CID to move to.

    A negative one is allowed here, and the step refuses it as too low.
    """
    return cid if type(cid) is int and cid < 0 else check_cid(cid)


def _nothing() -> None:
    pass


def _acquire(lock: SyncLock) -> None:
    """Wait for the lock of a sync.

    Raises:
        LockedError: Another process has had the lock for `PATIENCE` seconds.
    """
    attempts = Attempts(lock, PATIENCE)
    while not attempts.succeed():
        time.sleep(PAUSE)
