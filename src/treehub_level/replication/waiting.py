"""Waiting for changes: the keys that a request waits for, and a search of the log for all requests.

A server with many waiting clients reads the log once after a commit, and not once for each of them.
A request that brings nothing has an `Interest`. `search_log` then tells which of the awaited
prefixes have changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from ..backends.base import Reader
from ..engine.access import Access
from ..engine.log import keys_of, read_log
from ..engine.modes import Server
from ..engine.records import Epoch
from ..engine.store import Store
from .messages import Request

#: Records, and their bytes in memory, that one call of `search_log` reads.
_RECORDS: Final = 4096
_BYTES: Final = 8 << 20


class LogPosition(NamedTuple):
    """A position in the log of a server, and the history that the log belongs to.

    Attributes:
        cid: The CID up to which the log was read.
        epoch: The last epoch of the server; ``None`` before its first write.
        floor: The highest CID of a delete that was dropped from the log.
    """

    cid: int
    epoch: Epoch | None
    floor: int

    def has_history(self, other: LogPosition) -> bool:
        """Return True if another position belongs to the same epoch, with the same floor."""
        return self[1:] == other[1:]

    def continues_in(self, epochs: Sequence[Epoch], floor: int, head: int) -> bool:
        """Return True if a server with these epochs, floor and CID has the log up to here.

        It has not if it was restored from a backup, and a client may have missed a delete if the
        floor has risen.
        """
        ends = dict(zip(epochs, [*(epoch.start for epoch in epochs[1:]), head], strict=False))
        first = epochs[0].start if epochs else head
        end = first if self.epoch is None else ends.get(self.epoch, -1)
        return self.floor == floor and self.cid <= end


class Interest(NamedTuple):
    """The changes that a request waits for: those of some keys after a position.

    Attributes:
        prefixes: Stored prefixes: changes of keys that begin with one of them end the wait. Each
            key that the request wants begins with one; ``b""`` stands for all keys.
        position: A position in the log. The log from the CID of the request up to there has no
            change of these keys.
    """

    prefixes: frozenset[bytes]
    position: LogPosition


class FoundChanges(NamedTuple):
    """The result of `search_log`.

    Attributes:
        prefixes: The awaited prefixes with a changed key; ``None`` if the server has another
            history than before, which concerns all.
        position: The position up to which the log was searched.
        has_more: True if the log continues after it.
    """

    prefixes: set[bytes] | None
    position: LogPosition
    has_more: bool


def wanted_prefixes(request: Request, access: Access) -> frozenset[bytes]:
    """Return the prefixes of the keys that a valid request wants to know of, and the caller may.

    Every key in the log ranges of `requested_ranges` begins with one of them.
    """
    filled = () if request.fill is None else (request.fill.prefix,)
    wanted = [prefix.encode() for prefix in (*request.complete, *request.partial, *filled)]
    # Two prefixes have common keys if one of them begins with the other.
    encoded = {
        max(prefix, own, key=len)
        for prefix in wanted
        for own in access.prefixes
        if prefix.startswith(own) or own.startswith(prefix)
    }
    shortest: list[bytes] = []
    for prefix in sorted(encoded):
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return frozenset(shortest)


def log_position(reader: Reader, mode: Server, head: int) -> LogPosition:
    """Return the position at the end of the log.

    Raises:
        CorruptionError: The record of epochs, or of the floor, is damaged.
    """
    epochs = mode.records.epochs(reader, head)
    return LogPosition(head, epochs[-1] if epochs else None, mode.records.floor(reader, head).floor)


def unread_after(
    reader: Reader, mode: Server, head: int, since: int, prefixes: frozenset[bytes], passed: Interest | None
) -> int:
    """Return the CID after which a request has to read the log, because it may find something.

    Args:
        reader: The store to read from.
        mode: The server.
        head: The server's CID.
        since: The CID of the request.
        prefixes: The prefixes of the wanted keys.
        passed: The changes that the request has waited for; ``None`` if it has not waited.

    Raises:
        CorruptionError: The record of epochs, or of the floor, is damaged.
    """
    if passed is None or passed.prefixes != prefixes or passed.position.cid <= since:
        return since
    epochs, floor = mode.records.epochs(reader, head), mode.records.floor(reader, head).floor
    return passed.position.cid if passed.position.continues_in(epochs, floor, head) else since


def search_log(store: Store, since: LogPosition, matching: Callable[[Iterable[bytes]], set[bytes]]) -> FoundChanges:
    """Search the log after a position for changes that are waited for.

    One call reads one snapshot, in bounded memory.

    Args:
        store: A store in SERVER mode.
        since: The position.
        matching: Returns the awaited prefixes with which at least one of these stored keys begins.

    Raises:
        NotOpenError: The store is closed.
        StorageError, CorruptionError: The log cannot be read, or is damaged.
    """
    mode = store.server("watch")

    def read(reader: Reader, head: int) -> FoundChanges:
        epochs, floor = mode.records.epochs(reader, head), mode.records.floor(reader, head).floor
        here = LogPosition(head, epochs[-1] if epochs else None, floor)
        if not since.continues_in(epochs, floor, head):
            return FoundChanges(None, here, False)
        records = read_log(reader, mode, since.cid, _RECORDS, _BYTES)
        last = records[-1][0] if records else head
        return FoundChanges(matching(keys_of(mode, records)), here._replace(cid=last), last < head)

    return store.read_step(read)
