"""The verbs of SERVER mode: the change log, and the server's half of replication."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ..engine.access import FULL, Access
from ..engine.codec import Codec
from ..engine.log import Compaction, read_log
from ..engine.modes import Server
from ..engine.store import Store
from ..errors import ModeError, NotOpenError
from ..replication.manual import change_step, check_cid, decode_record, read_changes
from ..replication.messages import Reply, Request
from ..replication.server import answer_pull, exchange_step, is_idle
from ..types import Change, Changes
from .reads import CHUNK, check_limit

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: The most seconds that a call may be kept waiting for news.
MAX_WAIT = 60
#: Bytes of records that `watch` reads at a time.
_WATCH_BYTES = 8 << 20


def check_wait(wait: object) -> float:
    """Seconds to wait for news.

    Raises:
        TypeError: Not a number.
        ValueError: Not one from 0 to 60.
    """
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise TypeError(f"wait is a number of seconds, not {wait!r:.80}")
    if not 0 <= wait <= MAX_WAIT or math.isnan(wait):
        raise ValueError(f"wait is 0 to {MAX_WAIT} seconds, not {wait!r:.80}")
    return wait


@contextmanager
def commit_event(store: Store) -> Iterator[threading.Event]:
    """An event that is set after each commit, and when the store closes."""
    news = threading.Event()
    store.add_listener(news.set)
    try:
        yield news
    finally:
        store.remove_listener(news.set)


def carries_bytes(carrier: str) -> Callable[[F], F]:
    """Say of an ``exchange`` that messages go over another verb as they are, where both sides know what they are.

    A verb that overrides this one says nothing of the kind, and so is called.

    Args:
        carrier: The name of that verb. It takes a `Request`, and returns what `decode_reply` takes.
    """

    def mark(exchange: F) -> F:
        exchange.carrier = carrier  # type: ignore[attr-defined]
        return exchange

    return mark


class ServerVerbs:
    """What a store in SERVER mode offers to its clients.

    All of them raise:
        NotOpenError: The level is not open.
        ModeError: The level is open in another mode.
        TypeError: An argument of a wrong type (a CID is an ``int``; a ``bool`` is none).
        StorageError, CorruptionError: The engine could not read or write.
    """

    _store: Store
    _codec: Codec

    def _server(self, verb: str) -> Server:
        mode = self._store.mode
        if not isinstance(mode, Server):
            raise ModeError(f"{verb}() is a verb of SERVER mode; this level is open in {mode.mode.name} mode")
        return mode

    def changes(self, cid: int, limit: int | None = 100, *, wait: float = 0) -> Changes:
        """Return the changes after ``cid``, in CID order: the first half of the seed's pull.

        Args:
            cid: The CID up to which the caller knows the log.
            limit: The most changes to return; ``None`` for all there are.
            wait: Seconds to wait for a change if there is none yet, 0 to 60. Closing the level ends it.

        Raises:
            ValueError: A negative CID or limit, a CID beyond 2^53 - 1, or a ``wait`` out of bounds.
            CIDMismatchError: A CID that this server has not reached, or one so old that deletes after it are forgotten.
        """
        return self._wait_for_commit(lambda: self._changes(cid, limit), check_wait(wait))

    def _changes(self, cid: int, limit: int | None) -> tuple[Changes, bool]:
        """The changes now, and whether there are none."""
        mode = self._server("changes")
        check_cid(cid)
        check_limit(limit)
        page = self._store.look(
            lambda reader, head: read_changes(reader, mode.space, head, cid, head if limit is None else limit)
        )
        return page, not (page.changes or page.has_more)

    def change(self, cid: int, changes: Any) -> int:
        """Take changes from a client whose CID is ``cid``: the seed's push. Atomic; returns the new CID.

        Prefer `exchange`, which `sync` uses: this verb starves while others write, and a lost answer makes the client
        push twice.

        Args:
            cid: The CID of the client.
            changes: A sequence of `Change`, ``[key, value]`` or ``[key]``, no key twice.

        Raises:
            CIDMismatchError: ``cid`` is not this server's CID.
            ProtocolError: A malformed change. Nothing was written.
        """
        mode = self._server("change")
        if type(cid) is not int:
            raise TypeError(f"a CID is an int, not {cid!r:.80}")
        return self._store.step(change_step(mode, cid, self._codec.encoder.changes(changes)))

    @carries_bytes("_reply")
    def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """Pull and push in one atomic step: the server's half of `sync` (``protocol.md``, "One exchange").

        Args:
            request: The client's message, as decoded from JSON.
            wait: Seconds to wait for news if there is nothing to say to this client yet, 0 to 60. Closing the level
                ends it.

        Returns:
            The reply, ready to be encoded as JSON.

        Raises:
            ValueError: A ``wait`` out of bounds.
            ProtocolError: A malformed request, or one over a limit. Nothing was written.
            StoreMismatchError: The client has synchronised with another server.
        """
        return self._wait_for_commit(lambda: self._exchange(request), check_wait(wait))

    def _reply(self, request: Request, *, wait: float = 0) -> Reply:
        """The same for a client in this process: messages as they are."""
        return self._wait_for_commit(lambda: self._answer(request), wait)

    def _exchange(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The reply now, and whether it brings the client nothing."""
        reply, nothing = self._answer(request)
        return reply.to_dict(), nothing

    def _answer(self, request: object, access: Access = FULL) -> tuple[Reply, bool]:
        """The reply as it is inside, where changes are bytes, and whether it brings the client nothing.

        The request may be one of a client in this process.
        """
        mode = self._server("exchange")
        asked = request if isinstance(request, Request) else Request.from_dict(request)
        if not self._store.backend.supports.shared or asked.keys:
            reply = self._store.step(exchange_step(asked, mode, access))
        else:
            reply = self._store.look(lambda reader, head: answer_pull(asked, mode, access, reader, head))
        return reply, is_idle(reply)

    def _wait_for_commit(self, look: Callable[[], tuple[T, bool]], wait: float) -> T:
        """What ``look`` finds, as soon as that is something, or at the end of the wait, or of the level."""
        found, nothing = look()
        if not wait or not nothing:
            return found
        deadline = time.monotonic() + wait
        with commit_event(self._store) as news:
            while nothing:
                news.clear()
                try:
                    found, nothing = look()
                except NotOpenError:
                    return found
                if nothing and not news.wait(max(0, deadline - time.monotonic())):
                    return found
        return found

    def watch(self, *, since: int | None = None) -> Iterator[Change]:
        """Iterate over changes as they happen: first those after ``since``, then live, no gap and no repeat.

        Waits for the next change as long as it takes, and ends when the level is closed. Each `Change` carries its
        ``cid``.
        Changes that `compact_log` dropped before they were reached do not appear.

        Args:
            since: The CID after which to begin; ``None`` for now.

        Raises:
            ValueError: A negative CID, or one beyond 2^53 - 1.
            CIDMismatchError: A CID that this server has not reached, or one so old that deletes after it are forgotten.
        """
        start = self._watch_start(since)
        return self._watch(start)

    def _watch_start(self, since: int | None) -> int:
        self._server("watch")
        if since is None:
            return self._store.cid
        self._changes(since, 0)
        return since

    def _watch(self, since: int) -> Iterator[Change]:
        with commit_event(self._store) as news:
            while True:
                news.clear()
                try:
                    page = self._watch_page(since)
                except NotOpenError:
                    return
                for change in page:
                    assert change.cid is not None
                    since = change.cid
                    yield change
                if not page:
                    news.wait()

    def _watch_page(self, since: int) -> list[Change]:
        mode = self._server("watch")
        with self._store.current_reader as reader:
            page = read_log(reader, mode.space, since, CHUNK, _WATCH_BYTES)
        return [decode_record(record, cid) for cid, record in page]

    def compact_log(self, *, drop_deletes_before: int | None = None) -> int:
        """Drop from the log the changes that a later change of the same key supersedes. Safe while clients sync.

        CIDs keep their numbers, and the newest change always stays. It runs in small batches beside live traffic and
        may be interrupted. Memory grows with the number of distinct keys in the log.

        Args:
            drop_deletes_before: Also forget deletes with a CID below this one. Clients that had not pulled them yet
                will reset at their next `sync`.

        Returns:
            The number of changes dropped.

        Raises:
            ValueError: A negative CID, or one beyond 2^53 - 1.
        """
        mode = self._server("compact_log")
        compaction = Compaction(
            mode, drop_deletes_before=0 if drop_deletes_before is None else check_cid(drop_deletes_before)
        )
        while self._store.step(compaction.step):
            pass
        return compaction.dropped
