"""The verbs of SERVER mode: the change log, and the server's half of replication."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ..engine.codec import Codec
from ..engine.log import Compaction
from ..engine.store import Store
from ..errors import NotOpenError
from ..locks import WakeUp
from ..replication.clients import clients_of, forget_step
from ..replication.endpoint import answer, changes_after, check_wait, history_of
from ..replication.manual import change_step, check_cid
from ..replication.messages import Reply, Request
from ..types import Change, Changes, ClientInfo

T = TypeVar("T")


@contextmanager
def commit_event(store: Store) -> Iterator[WakeUp]:
    """Provide an event that is set after each commit, and when the store closes."""
    event = WakeUp()
    store.add_listener(event.set)
    try:
        yield event
    finally:
        store.remove_listener(event.set)


def wait_for_commit(store: Store, attempt: Callable[[], tuple[T, bool]], wait: float) -> T:
    """Repeat a call after each commit until it has something to report, and return its last result.

    Args:
        store: The store.
        attempt: The call: returns a result, and True if there is nothing to report.
        wait: Seconds to wait at most. Closing the store ends the wait.
    """
    result, nothing = attempt()
    if not wait or not nothing:
        return result
    deadline = time.monotonic() + wait
    with commit_event(store) as committed:
        while nothing:
            committed.clear()
            try:
                result, nothing = attempt()
            except NotOpenError:
                return result
            if nothing and not committed.wait(max(0, deadline - time.monotonic())):
                return result
    return result


class ServerVerbs:
    """The verbs of a level in SERVER mode, which its clients call.

    All verbs raise:
        NotOpenError: The level is not open.
        ModeError: The level is open in another mode.
        TypeError: An argument is of a wrong type. A CID is an ``int``, not a ``bool``.
        StorageError, CorruptionError: The backend could not read or write.
    """

    _store: Store
    _codec: Codec

    def changes(self, cid: int, limit: int | None = 100, *, wait: float = 0) -> Changes:
        """Return the changes after ``cid``, in CID order. It is the first half of a manual pull.

        Args:
            cid: The CID that the caller has reached.
            limit: The largest number of changes; ``None`` for all.
            wait: Seconds to wait for a change if there is none yet, 0 to 60. Closing the level ends
                the wait.

        Raises:
            ValueError: ``cid`` is negative or above 2^53 - 1, ``limit`` is negative, or ``wait`` is
                out of range.
            CIDMismatchError: The server has not reached ``cid``, or has dropped deletes above it.
        """
        return wait_for_commit(self._store, lambda: changes_after(self._store, cid, limit), check_wait(wait))

    def change(self, cid: int, changes: Any) -> int:
        """Apply changes of a client whose CID is ``cid``, atomically.

        It is the first half of a manual push.

        `sync` uses `exchange` instead, which is safer. A manual push fails for as long as others
        write in between, and after a lost reply the client pushes the same changes twice.

        Args:
            cid: The CID of the client.
            changes: A sequence of `Change`, ``[key, value]`` or ``[key]``, each key at most once.

        Returns:
            The new CID.

        Raises:
            CIDMismatchError: ``cid`` is not this server's CID.
            ProtocolError: A change is malformed. Nothing was written.
        """
        mode = self._store.server("change")
        if type(cid) is not int:
            raise TypeError(f"a CID is an int, not {cid!r:.80}")
        return self._store.step(change_step(mode, cid, self._codec.encoder.changes(changes)))

    def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """Pull and push in one atomic step: the server's half of `sync`.

        The rules are in ``docs/protocol.md``, "One exchange".

        Args:
            request: The client's message, as decoded from JSON.
            wait: Seconds to wait for a commit if the reply would be empty, 0 to 60. Closing the
                level ends the wait.

        Returns:
            The reply, ready to be encoded as JSON.

        Raises:
            ValueError: ``wait`` is out of range.
            ProtocolError: The request is malformed, or exceeds a limit. Nothing was written.
            StoreMismatchError: The client has synchronised with another server.
        """
        seconds = check_wait(wait)
        return wait_for_commit(self._store, lambda: answer(self._store, request), seconds).to_dict()

    def exchange_encoded(self, request: Request, *, wait: float = 0) -> Reply:
        """Answer a client in this process: `exchange` without decoding the changes.

        See `EncodedExchanger`.
        """
        return wait_for_commit(self._store, lambda: answer(self._store, request), check_wait(wait))

    def history(self, key: str) -> list[Change]:
        """Return the changes of a key that the log still holds, oldest first.

        Each `Change` has its ``cid``, and ``by`` and ``at`` where they are known. The log is read
        once, in bounded memory, so the call takes as long as the log.

        Args:
            key: The key.

        Raises:
            InvalidKeyError: A server cannot hold the key.
        """
        self._store.server("history")
        return history_of(self._store, self._codec.encoder.key(key))

    def clients(self) -> list[ClientInfo]:
        """Return the clients that have pushed to this server, in the order of their ids.

        A client that only pulls is not among them.

        Raises:
            CorruptionError: A record is damaged.
        """
        return clients_of(self._store)

    def forget_client(self, id: str) -> bool:
        """Remove the server's records of a client.

        Use it for a client that is gone for good. One that comes back goes on, as one that has not
        pushed before: its id belongs to the caller that pushes with it next, and a push whose reply
        it has not received is decided on again, so that its changes may conflict with themselves.

        Args:
            id: The id of the client: see `clients`.

        Returns:
            False if there were no records.

        Raises:
            TypeError: ``id`` is no str.
        """
        return self._store.step(forget_step(self._store, id))

    def compact_log(self, *, drop_deletes_before: int | None = None) -> int:
        """Drop superseded changes from the log: those with a later change of the same key.

        Clients may synchronise meanwhile. CIDs keep their numbers, and the newest change stays. The
        compaction runs in small batches and may be interrupted. Memory grows with the number of
        distinct keys in the log.

        Args:
            drop_deletes_before: Drop also the deletes with a CID below this one. Clients that have
                not pulled them yet reset at their next `sync`.

        Returns:
            The number of changes dropped.

        Raises:
            ValueError: ``drop_deletes_before`` is negative or above 2^53 - 1.
        """
        mode = self._store.server("compact_log")
        compaction = Compaction(
            mode, drop_deletes_before=0 if drop_deletes_before is None else check_cid(drop_deletes_before)
        )
        return compaction.run(self._store.step)
