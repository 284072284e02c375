"""The server's calls: what both façades and the HTTP server ask of a store in SERVER mode.

No call here waits for a commit. A caller that wants to wait calls again after each commit, while
the second item of the result says that there is nothing to report.
"""

from __future__ import annotations

import math
from typing import Final

from ..backends.base import Reader
from ..engine.access import FULL, Access
from ..engine.as_of import changes_of
from ..engine.commits import commits_between
from ..engine.modes import Server
from ..engine.ranges import check_limit
from ..engine.store import Store
from ..types import Change, Changes
from .manual import check_cid, decode_changes, read_changes
from .messages import LogPage, Reply, Request
from .server import answer_pull, exchange_step, is_idle
from .waiting import Interest, log_position, unread_after, wanted_prefixes

#: The most seconds that a call may wait for a commit.
MAX_WAIT: Final = 60


def check_wait(wait: object) -> float:
    """Return ``wait`` if it is a number of seconds from 0 to `MAX_WAIT`.

    Raises:
        TypeError: ``wait`` is not a number.
        ValueError: ``wait`` is out of range.
    """
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise TypeError(f"wait is a number of seconds, not {wait!r:.80}")
    if not 0 <= wait <= MAX_WAIT or math.isnan(wait):
        raise ValueError(f"wait is 0 to {MAX_WAIT} seconds, not {wait!r:.80}")
    return wait


def answer(store: Store, request: object, access: Access = FULL, max_bytes: int | None = None) -> tuple[Reply, bool]:
    """Answer a request of the exchange: a push under the write lock, all others from a snapshot.

    Args:
        store: A store in SERVER mode.
        request: A `Request`, or one as decoded from JSON.
        access: The rights of the caller.
        max_bytes: The most bytes of records in a page, unless its only record is larger; ``None``
            for the limit of the protocol.

    Returns:
        The reply, and True if it brings the client nothing.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        ProtocolError: The request is malformed. Nothing was written.
        StoreMismatchError: The client has synchronised with another server.
        ForbiddenError: ``access`` does not allow it.
    """
    mode = store.server("exchange")
    parsed = request if isinstance(request, Request) else Request.from_dict(request)
    if parsed.is_push:
        reply = store.step(exchange_step(parsed, mode, access, max_bytes))
    else:
        reply = store.read_step(lambda reader, head: answer_pull(parsed, mode, access, reader, head, max_bytes))
    note_client(mode, parsed, reply, access)
    return reply, is_idle(reply)


def note_client(mode: Server, request: Request, reply: Reply, access: Access) -> None:
    """Note the client of an exchange, if the server remembers its clients.

    A client that holds no data yet needs no delete from before its first page.
    """
    if mode.sightings is not None and isinstance(reply, LogPage):
        cid = request.cid if request.holds_data else reply.cid
        mode.sightings.note(request.client, access.principal, cid, reply.cid)


def answer_or_wait(
    store: Store, request: Request, access: Access, max_bytes: int, passed: Interest | None = None
) -> tuple[Reply, Interest | None]:
    """Answer a request without a push, and name the changes to wait for if the reply is idle.

    The other arguments and the errors are those of `answer`.

    Args:
        store: A store in SERVER mode.
        request: The request.
        access: The rights of the caller.
        max_bytes: The most bytes of records in a page.
        passed: The changes that the request has waited for; ``None`` if it has not waited.

    Returns:
        The reply, and the changes that would bring something; ``None`` if the reply does.
    """
    mode = store.server("exchange")
    prefixes = wanted_prefixes(request, access)

    def read(reader: Reader, head: int) -> tuple[Reply, Interest | None]:
        after = unread_after(reader, mode, head, request.cid, prefixes, passed)
        reply = answer_pull(request, mode, access, reader, head, max_bytes, after)
        note_client(mode, request, reply, access)
        if not is_idle(reply):
            return reply, None
        return reply, Interest(prefixes, log_position(reader, mode, head))

    return store.read_step(read)


def changes_after(store: Store, cid: int, limit: int | None) -> tuple[Changes, bool]:
    """Return the changes with CIDs above ``cid``, and True if there are none.

    Args:
        store: A store in SERVER mode.
        cid: The CID.
        limit: The largest number of changes; ``None`` for all.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        TypeError, ValueError: ``cid`` or ``limit`` is not a number in range.
        CIDMismatchError: The server has not reached ``cid``, or has dropped deletes above it.
    """
    mode = store.server("changes")
    check_cid(cid)
    check_limit(limit)
    page = store.read_step(lambda reader, head: read_changes(reader, mode, head, cid, head if limit is None else limit))
    return page, not (page.changes or page.has_more)


def history_of(store: Store, key: bytes) -> list[Change]:
    """Return the changes of a stored key that the log still holds, in CID order.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        CorruptionError: A record is damaged.
    """
    records = store.server("history").records

    def read(reader: Reader, head: int) -> list[Change]:
        found = changes_of(reader, records, key)
        commits = [commit for cid, _ in found for commit in commits_between(reader, records, head, cid, cid)]
        return decode_changes(found, dict.fromkeys(commits))

    return store.read_step(read)


def watch_start(store: Store, since: int | None) -> int:
    """Return the CID after which a watcher starts: ``since``, or the current CID for ``None``.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        TypeError, ValueError: ``since`` is not a CID.
        CIDMismatchError: The server has not reached ``since``, or has dropped deletes above it.
    """
    store.server("watch")
    if since is None:
        return store.cid
    changes_after(store, since, 0)
    return since
