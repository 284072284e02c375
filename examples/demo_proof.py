"""What the demo proves: all stores hold the same, and no edit is lost without a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import orjson
from demo_output import console, new_table, say

from treehub_level import Change, Level

Holdings = dict[str, "Holding"]


@dataclass(frozen=True)
class Holding:
    """What a store holds.

    Attributes:
        records: How many records.
        sha256: Of all keys and values, in key order, as ``treehub-level dump`` writes them.
        cid: The last change of the server's log that it has.
        pending: Changes that a client has not pushed yet.
        journal: Changes of a client that have lost in a conflict.
    """

    records: int
    sha256: str
    cid: int
    pending: int = 0
    journal: tuple[Change, ...] = ()

    @classmethod
    async def of(cls, level: Level) -> Holding:
        """Read all of it, streamed."""
        sha256, records = hashlib.sha256(), 0
        async for key, value in level.scan():
            sha256.update(orjson.dumps({"key": key, "value": value}, option=orjson.OPT_APPEND_NEWLINE))
            records += 1
        if level.mode is Level.SERVER:
            return cls(records, sha256.hexdigest(), level.cid)
        journal = tuple(conflict.local for conflict in await level.conflicts())
        return cls(records, sha256.hexdigest(), level.cid, await level.pending(), journal)


def prove(server: Holding, clients: Holdings, edits: dict[str, list[Change]], logged: Iterable[Change]) -> bool:
    """Show what each store holds, and tell whether that is the same and every edit is accounted for.

    Args:
        server: What the server holds.
        clients: What each client holds.
        edits: What was changed offline on each client.
        logged: What the server's log has gained since then.
    """
    table = new_table("The proof", ["store", "SHA-256 of all keys and values"], ["records", "CID", "not pushed"])
    table.add_row("server", server.sha256, f"{server.records:,}", f"{server.cid:,}", "-")
    for name, holding in clients.items():
        table.add_row(name, holding.sha256, f"{holding.records:,}", f"{holding.cid:,}", str(holding.pending))
    console.print(table)

    arrived = {frozen(change) for change in logged}
    offline = unaccounted = 0
    for name, holding in clients.items():
        journal = {frozen(change) for change in holding.journal}
        made = {frozen(change) for change in edits[name]}
        offline += len(made)
        unaccounted += len(made - arrived - journal)

    same = {holding.sha256 for holding in clients.values()} == {server.sha256}
    say(same, f"the three stores hold {'the same data' if same else 'DIFFERENT data'}")
    accounted = (
        f"{offline - unaccounted:,} of {offline:,} offline edits are in the server's log or in a client's journal"
    )
    say(not unaccounted, accounted)
    return same and not unaccounted


def frozen(change: Change) -> bytes:
    """A change as bytes, to be looked up in a set."""
    return orjson.dumps(list(change))
