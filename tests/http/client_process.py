"""A client in its own process: it writes and synchronises until told to stop, then reports.

    python client_process.py FOLDER NAME URL sync|live [options]

It writes keys of its own, under ``NAME/``, keys that all clients share, and pairs of changes that
the server refuses. It follows other ranges all the time, beside its own keys, unless ``--all`` is
given.

The client reads a line from stdin before each of two steps. Step 1: stop writing, synchronise, and
print "drained". Step 2: synchronise once more, and print the report as JSON: the CID, the followed
prefixes, all entries, the entries written under ``NAME/``, the keys of conflicts and of refused
changes, the number of refused pairs, and the torn batches that it has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import ssl
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the shared helpers

from broken_clients import inject
from refusing import refused_pair

from treehub_level import Level, Put, SyncError
from treehub_level.http import RemoteServer


class Client:
    """A client that writes and synchronises.

    Args:
        level: Its store.
        name: Its name, and the prefix of its own keys.
        remote: The server.

    Attributes:
        pairs: The number of refused pairs that it has written.
        torn: Descriptions of batches of which it has seen a part.
    """

    def __init__(self, level: Level, name: str, remote: RemoteServer) -> None:
        self._level = level
        self._name = name
        self._remote = remote
        self._rng = random.Random(name)
        self.pairs = 0
        self.torn: list[str] = []

    async def write(self, stop: asyncio.Event) -> None:
        """Overwrite and delete a few keys in random order until ``stop`` is set."""
        level, name, rng = self._level, self._name, self._rng
        count = 0
        while not stop.is_set():
            count += 1
            own_key = f"{name}/{rng.randrange(4)}"
            if rng.random() < 0.15:
                await level.delete(own_key)
            else:
                await level.put(own_key, [name, count])
            if count % 3 == 0:
                await level.batch([Put(f"{name}/left", count), Put(f"{name}/right", count)])
            if count % 5 == 0:
                await level.put(f"shared/{rng.randrange(4)}", [name, count, "x" * rng.randrange(20_000)])
            if count % 20 == 1:
                await level.batch(refused_pair(name, self.pairs))
                self.pairs += 1
            await asyncio.sleep(0.004)

    async def wander(self, prefixes: list[str], stop: asyncio.Event) -> None:
        """Follow other ranges until ``stop`` is set."""
        while not stop.is_set():
            change = self._level.follow if self._rng.random() < 0.6 else self._level.unfollow
            await change(self._rng.choice(prefixes))
            await asyncio.sleep(self._rng.uniform(0, 0.2))

    async def synchronise(self, style: str, stop: asyncio.Event) -> None:
        """Synchronise until ``stop`` is set: in a live session, or by repeated calls."""
        if style == "live":
            async with self._level.live(self._remote, interval=0.2):
                await stop.wait()
        while not stop.is_set():
            with suppress(SyncError):
                await self._sync()
            await asyncio.sleep(0.01)

    async def _sync(self) -> None:
        report = await self._level.sync(self._remote)
        entries = dict(await self._level.query(prefix="client"))
        if not report.consistent:  # else nothing is pulled until the next call
            return
        for key in entries:
            client, _, side = key.rpartition("/")
            other = f"{client}/right"
            if side == "left" and client != self._name and entries.get(other, entries[key]) != entries[key]:
                self.torn.append(f"{key} is {entries[key]}, {other} is {entries[other]}")

    async def drain(self) -> None:
        """Retry ``sync()`` until it succeeds."""
        while True:
            try:
                await self._level.sync(self._remote)
                return
            except SyncError:
                await asyncio.sleep(0.05)


async def main(arguments: argparse.Namespace) -> None:
    """Run the client, as the docstring of the module describes."""
    name, certificate, token_file = arguments.name, arguments.certificate, arguments.token_file
    stop = asyncio.Event()
    async with (
        Level(arguments.folder, mode=Level.CLIENT, follow=None if arguments.all else [f"{name}/"]) as level,
        RemoteServer(
            arguments.url,
            token=None if token_file is None else lambda: Path(token_file).read_text().strip(),
            timeout=1.5,
            ssl_context=None if certificate is None else ssl.create_default_context(cafile=certificate),
        ) as remote,
    ):
        client = Client(level, name, remote)
        tasks = [asyncio.create_task(client.write(stop))]
        tasks += [asyncio.create_task(client.synchronise(arguments.style, stop))]
        if not arguments.all:
            tasks.append(asyncio.create_task(client.wander(arguments.ranges.split(","), stop)))
        await asyncio.to_thread(sys.stdin.readline)
        stop.set()
        await asyncio.gather(*tasks)
        written = await level.query(prefix=f"{name}/")
        await client.drain()
        print("drained", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await client.drain()
        conflicts = await level.conflicts()
        report = {
            "cid": level.cid,
            "followed": [item.prefix for item in await level.followed()],
            "entries": await level.query(),
            "written": written,
            "conflicts": [conflict.key for conflict in conflicts if conflict.kind != "refused"],
            "refused": [conflict.key for conflict in conflicts if conflict.kind == "refused"],
            "pairs": client.pairs,
            "torn": client.torn,
        }
        print(json.dumps(report), flush=True)


def parsed_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("folder", "name", "url", "style"):
        parser.add_argument(argument)
    parser.add_argument("--all", action="store_true", help="follow all keys")
    parser.add_argument("--ranges", default=",shared/,client,client0/", help="the prefixes to choose from")
    parser.add_argument("--certificate", help="the certificate of the server")
    parser.add_argument("--token-file", help="the file with the token, which may be replaced")
    parser.add_argument("--fault", default="none", help="a fault to put in, see broken_clients.py")
    return parser.parse_args()


if __name__ == "__main__":
    given = parsed_arguments()
    inject(given.fault)
    asyncio.run(main(given))
