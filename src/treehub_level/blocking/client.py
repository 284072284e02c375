"""The verbs of CLIENT mode: the dirty set, the conflict journal, and ``sync``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, Protocol

from .. import _core
from ..engine.codec import Codec
from ..engine.modes import Client
from ..engine.store import Store
from ..errors import ModeError
from ..replication.driver import drive, exchange_of, exchange_verb
from ..replication.journal import dismiss_step, read_conflicts, restore_step
from ..replication.limits import PushLimits
from ..replication.manual import apply_step, check_cid, clean_step, decode_record, read_dirty
from ..replication.messages import Request
from ..replication.schedule import PollResult
from ..replication.session import poll_session, rebind_session, sync_session
from ..types import Change, Changes, Conflict, SyncReport
from .reads import CHUNK, check_limit


class Exchanger(Protocol):
    """What `ClientVerbs.sync` needs of a server: this one verb."""

    def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
        """See `ServerVerbs.exchange`."""


class ClientVerbs:
    """What a store in CLIENT mode does with its server.

    All of them raise:
        NotOpenError: The level is not open.
        ModeError: The level is open in another mode.
        TypeError: An argument of a wrong type (a CID is an ``int``; a ``bool`` is none).
        StorageError, CorruptionError: The engine could not read or write.
    """

    _store: Store
    _codec: Codec

    def __init__(self) -> None:
        self._sync_lock = threading.Lock()
        self._handed_out: dict[bytes, bytes] = {}

    def _client(self, verb: str) -> Client:
        mode = self._store.mode
        if not isinstance(mode, Client):
            raise ModeError(f"{verb}() is a verb of CLIENT mode; this level is open in {mode.mode.name} mode")
        return mode

    def apply(self, cid: int | Changes, changes: Any = None) -> int:
        """Write a page of a server's changes: the second half of the seed's pull.

        One batch makes the changes, drops the dirty changes of their keys (the server wins; those that differ are
        journaled, see `conflicts`), and moves the CID. The same page twice is harmless.

        Args:
            cid: The CID of the page, or what ``changes()`` returned.
            changes: Its changes: a sequence of `Change`, ``[key, value]`` or ``[key]``.

        Returns:
            The new CID.

        Raises:
            CIDMismatchError: The page ends below this client's CID: it came late.
            ValueError: A CID beyond 2^53 - 1.
            ProtocolError: A malformed change. Nothing was written.
            StateError: A ``sync`` that was interrupted has a push under way: let ``sync`` finish.
        """
        mode = self._client("apply")
        if isinstance(cid, Changes):
            cid, changes = cid[:2]
        entries = self._codec.encoder.changes(changes)
        return self._store.step(apply_step(mode, _checked(cid), entries))

    def dirty(self, limit: int | None = 100) -> list[Change]:
        """Return the changes made here that no server has acknowledged, in key order.

        It is the first half of the seed's push.

        Args:
            limit: The most changes to return; ``None`` for all there are.

        Raises:
            ValueError: A negative limit.
        """
        mode = self._client("dirty")
        check_limit(limit)
        with self._store.current_reader as reader:
            rows = read_dirty(reader, mode.space, limit)
        self._handed_out.update(rows)
        return [decode_record(record) for _, record in rows]

    def clean(self, cid: int, keys: Iterable[Any]) -> int:
        """Forget dirty changes that a server took, and move the CID: the second half of the seed's push.

        A key rewritten since ``dirty()`` returned it stays dirty.

        Args:
            cid: The CID that the server answered.
            keys: The keys that were pushed, or the changes themselves.

        Returns:
            The new CID.

        Raises:
            CIDMismatchError: The CID lies below this client's: the answer came late.
            ValueError: A CID beyond 2^53 - 1.
            InvalidKeyError: A key that cannot be one.
            ProtocolError: A malformed change.
            StateError: See `apply`.
        """
        mode = self._client("clean")
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"clean() takes several keys, not the one key {keys!r:.80}")
        pushed: list[tuple[bytes, bytes | None]] = []
        for item in keys:
            if isinstance(item, str):
                key = self._codec.encoder.key(item)
                pushed.append((key, self._handed_out.get(key)))
            else:
                pushed.extend(
                    (key, _core.join_record(key, value)) for key, value in self._codec.encoder.changes([item])
                )
        after = self._store.step(clean_step(mode, _checked(cid), pushed))
        for key, _ in pushed:
            self._handed_out.pop(key, None)
        return after

    def pending(self) -> int:
        """Return how many dirty changes were not acknowledged by the server yet."""
        mode = self._client("pending")
        dirty = mode.space.dirty_start, mode.space.dirty_stop
        with self._store.current_reader as reader, closing(reader.scan(*dirty, values=False)) as cursor:
            return sum(iter(lambda: len(cursor.fetch_keys(CHUNK)), 0))

    def sync(
        self,
        server: Exchanger,
        *,
        pull: bool = True,
        push: bool = True,
        on_reset: str = "reset",
        progress: Callable[[SyncReport], object] | None = None,
    ) -> SyncReport:
        """Synchronise with a server until both sides are drained.

        The server wins, and nothing that lost is lost silently. It is safe to interrupt, to lose messages of, and to
        call again. Calls for one client queue up.

        Args:
            server: A level in SERVER mode, or whatever forwards ``exchange`` to one.
            pull: Whether to drain the server. ``False`` pulls only as much as the push needs.
            push: Whether to send what is dirty.
            on_reset: What to do when the server was restored from a backup, or has forgotten too much: ``"reset"``
                pulls everything anew and
                keeps what is dirty; ``"raise"`` raises StoreMismatchError before anything is touched.
            progress: Called after each exchange with the report so far.

        Returns:
            What was done, conflicts included.

        Raises:
            StoreMismatchError: The server is not the one that this client has synchronised with: see `rebind`.
            ProtocolError: The server answered something impossible. Nothing of it was written.
            TransportError: The server could not be reached. What it raises otherwise comes through.
            ForbiddenError: Pushing is not allowed: everything was pulled, and its ``keys`` stay dirty. Or not even
                that is.
            ValueError: Neither pull nor push, or an unknown ``on_reset``.
        """
        session, on_progress = self._session(pull, push, on_reset, progress)
        exchange = blocking_exchange_of(server)
        with self._sync_lock:
            return drive(session, exchange, on_progress)

    def _session(
        self,
        pull: bool,
        push: bool,
        on_reset: str,
        progress: Callable[[SyncReport], object] | None,
        limits: PushLimits | None = None,
        *,
        look_ahead: bool = False,
    ) -> tuple[Generator[Any, Any, SyncReport], Callable[[], object]]:
        report = SyncReport()
        session = sync_session(
            self._store.step,
            self._client("sync"),
            pull=pull,
            push=push,
            on_reset=on_reset,
            report=report,
            limits=limits,
            look_ahead=look_ahead,
        )
        return session, _nothing if progress is None else lambda: progress(report)

    def _follow(self, on_reset: str, limits: PushLimits) -> Generator[Request, Any, PollResult]:
        mode = self._client("live")
        return poll_session(self._store.step, mode, on_reset=on_reset, report=SyncReport(), limits=limits)

    def _has_to_push(self, limits: PushLimits) -> bool:
        """Whether there are changes that the server may take."""
        mode = self._client("live")
        with self._store.current_reader as reader:
            return limits.has_pushable(reader, mode.space)

    def rebind(self, server: Exchanger) -> None:
        """Take another server from now on: the next ``sync`` pulls everything from it, and pushes what is dirty here.

        Args:
            server: The new server; it is asked for its id.

        Raises:
            TransportError: The server could not be reached. Nothing was changed.
        """
        session = self._rebind_session()
        exchange = blocking_exchange_of(server)
        with self._sync_lock:
            drive(session, exchange, _nothing)

    def _rebind_session(self) -> Generator[Request, Any, None]:
        return rebind_session(self._store.step, self._client("rebind"))

    def conflicts(self) -> list[Conflict]:
        """Return the local changes that lost and were neither restored nor dismissed yet, oldest first."""
        mode = self._client("conflicts")
        with self._store.current_reader as reader:
            return read_conflicts(reader, mode.space)

    def restore(self, conflict: Conflict) -> None:
        """Write the change that lost again, as a new local change, and take it out of the journal.

        Raises:
            StateError: It is not in the journal any more.
        """
        self._store.step(restore_step(self._client("restore"), conflict))

    def dismiss(self, conflict: Conflict) -> None:
        """Take a change that lost out of the journal. Doing so twice is harmless."""
        self._store.step(dismiss_step(self._client("dismiss"), conflict))


def blocking_exchange_of(server: object) -> Callable[..., Any]:
    """See `exchange_of`; one that is awaited is none.

    Raises:
        TypeError: It has none, or is of asyncio.
    """
    if inspect.iscoroutinefunction(exchange_verb(server)):
        raise TypeError(f"{server!r:.80} is an asyncio level: a blocking one synchronises with its blocking twin")
    return exchange_of(server)


def _checked(cid: object) -> int:
    """A CID to move to. One below zero is below any client's own, which the step refuses."""
    return cid if type(cid) is int and cid < 0 else check_cid(cid)


def _nothing() -> None:
    pass
