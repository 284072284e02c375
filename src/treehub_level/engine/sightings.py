"""Sightings: when a server has seen each client last, and how far that client had come.

An exchange notes its client in memory. `run_retention` writes the notes once in a while, and so
does closing the store: an exchange that only pulls costs no write. After a crash the last notes are
missing, so a client may seem further behind, or away for longer, than it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from . import clock
from .records import ID, OwnRecords, is_cid
from .scan import rows_in

#: The most clients of one principal that are remembered: a client chooses its id, so a caller could
#: fill the store.
MAX_OF_PRINCIPAL: Final = 10_000


class Sighting(NamedTuple):
    """The last exchange of a client.

    Attributes:
        cid: The CID that the client had at its last request. It has all deletes up to there.
        told: The CID that it has after the reply, if it has received it.
        ms: The time by the server's clock, in milliseconds since 1970.
        elapsed: The time as retention counts it: see `RetentionState`.
        principal: The name of the caller; ``None`` without authentication.
    """

    cid: int
    told: int
    ms: int
    elapsed: int
    principal: str | None

    def to_stored(self) -> bytes:
        """Return the sighting as it is stored."""
        return orjson.dumps([*self])


class Sightings:
    """The clients that one opening of a server has seen, and that are not recorded yet.

    Args:
        is_whole: True if the store was new when it was opened: there are no other clients.
    """

    def __init__(self, *, is_whole: bool = False) -> None:
        self.is_whole = is_whole
        self._noted: dict[str | None, dict[str, Sighting]] = {}

    def note(self, client: str, principal: str | None, cid: int, told: int) -> None:
        """Note an exchange. Any thread may call this: each statement is one step of a dict."""
        clients = self._noted.setdefault(principal, {})
        if client in clients or len(clients) < MAX_OF_PRINCIPAL:
            clients[client] = Sighting(cid, told, clock.now() or 0, 0, principal)

    def take(self) -> dict[str, Sighting]:
        """Return the notes by client, and forget them."""
        noted, self._noted = self._noted, {}
        return {client: sighting for clients in tuple(noted.values()) for client, sighting in tuple(clients.items())}


def sighting_key(space: _core.KeySpace, client: str) -> bytes:
    """Return the key of the record of a client."""
    return space.own_key(f"seen/{client}")


def sighting_entries(space: _core.KeySpace, sightings: Iterable[tuple[str, Sighting]]) -> list[Entry]:
    """Return the entries that record some sightings."""
    return [(sighting_key(space, client), sighting.to_stored()) for client, sighting in sightings]


def read_sightings(reader: Reader, records: OwnRecords, head: int) -> Iterator[tuple[str, Sighting]]:
    """Yield the id and the last sighting of each client that is recorded.

    Args:
        reader: The reader.
        records: The own records of the server.
        head: The CID of the server in the same state.

    Raises:
        CorruptionError: A record is malformed.
    """
    for key, record in rows_in(reader, sighting_key(records.space, "")):
        yield parse_sighting(records, key, record, head)


def parse_sighting(records: OwnRecords, key: bytes, record: bytes, head: int) -> tuple[str, Sighting]:
    """Decode the record of a client: see `read_sightings`.

    Raises:
        CorruptionError: The record is malformed.
    """
    client = key[len(sighting_key(records.space, "")) :].decode(errors="replace")
    match records.decode(key, record):
        case [cid, told, ms, elapsed, None | str() as principal] if all(map(is_cid, (cid, told, ms, elapsed))):
            if ID.fullmatch(client) and cid <= head and told <= head and ms <= clock.MAX_MS:
                return client, Sighting(cid, told, ms, elapsed, principal)
    raise records.damaged(key, f"is not [CID, CID, ms, ms, principal] of a client, with CIDs up to {head}", record)
