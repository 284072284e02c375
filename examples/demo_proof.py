"""The proof of the demo: all stores are equal, and each edit is in the log or in a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson
from demo_output import console, new_table, print_claim

from treehub_level import Change, Level

ContentsByClient = dict[str, "StoreContents"]


@dataclass(frozen=True)
class StoreContents:
    """A summary of the contents of a store.

    Attributes:
        records: The number of records.
        sha256: The SHA-256 of all records, as ``treehub-level dump`` writes them.
        cid: The CID of the last change of the server that the store has.
        pending: The number of dirty changes of a client.
        journal: The local changes in the conflict journal of a client.
    """

    records: int
    sha256: str
    cid: int
    pending: int = 0
    journal: tuple[Change, ...] = ()

    @classmethod
    async def of(cls, level: Level, prefixes: Sequence[str] = ("",)) -> StoreContents:
        """Read the store, or the keys with some prefixes, in bounded memory."""
        sha256, records = hashlib.sha256(), 0
        for prefix in sorted(prefixes):
            async for key, value in level.scan(prefix=prefix):
                sha256.update(orjson.dumps({"key": key, "value": value}, option=orjson.OPT_APPEND_NEWLINE))
                records += 1
        if level.mode is Level.SERVER:
            return cls(records, sha256.hexdigest(), level.cid)
        journal = tuple(conflict.local for conflict in await level.conflicts())
        return cls(records, sha256.hexdigest(), level.cid, await level.pending(), journal)


def prove(
    server: StoreContents, clients: ContentsByClient, edits: dict[str, list[Change]], logged: Iterable[Change]
) -> bool:
    """Print the contents of each store. Return True if they are equal and no edit is lost.

    Args:
        server: The contents of the server.
        clients: The contents of each client, by name.
        edits: The offline edits of each client, by name.
        logged: The changes in the server's log since the edits.
    """
    table = new_table("The proof", ["store", "SHA-256 of all keys and values"], ["records", "CID", "not pushed"])
    table.add_row("server", server.sha256, f"{server.records:,}", f"{server.cid:,}", "-")
    for name, contents in clients.items():
        table.add_row(name, contents.sha256, f"{contents.records:,}", f"{contents.cid:,}", str(contents.pending))
    console.print(table)

    arrived = {encoded(change) for change in logged}
    offline = unaccounted = 0
    for name, contents in clients.items():
        journal = {encoded(change) for change in contents.journal}
        made = {encoded(change) for change in edits[name]}
        offline += len(made)
        unaccounted += len(made - arrived - journal)

    equal = {contents.sha256 for contents in clients.values()} == {server.sha256}
    print_claim(equal, f"the three stores have {'the same data' if equal else 'DIFFERENT data'}")
    accounted = (
        f"{offline - unaccounted:,} of {offline:,} offline edits are in the server's log or in a client's journal"
    )
    print_claim(not unaccounted, accounted)
    return equal and not unaccounted


def prove_watch(watch: StoreContents, followed: StoreContents, prefixes: Sequence[str]) -> bool:
    """Print the claim that the watch has all that it follows, and nothing else. Return True if so.

    Args:
        watch: The contents of the watch.
        followed: The contents of the server with the prefixes.
        prefixes: The prefixes that the watch follows.
    """
    holds = watch.sha256 == followed.sha256
    names = " and ".join(prefixes)
    print_claim(holds, f"the watch has the {followed.records:,} records of {names}, and no others")
    return holds


def encoded(change: Change) -> bytes:
    """Return a change as bytes, which can be looked up in a set."""
    return orjson.dumps(list(change))
