"""A client in its own process: it writes and synchronises until told to stop, then reports.

    python client_process.py FOLDER NAME URL sync|live [CERTIFICATE]

The client reads a line from stdin before each of two steps. Step 1: stop writing, synchronise, and
print "drained". Step 2: synchronise once more, and print the report as JSON: the CID, all entries,
the entries written under ``NAME/``, and the keys of conflicts. No other client writes keys that
begin with ``NAME/``.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from contextlib import suppress

from treehub_level import Level, SyncError
from treehub_level.http import RemoteServer


async def write(level: Level, name: str, stop: asyncio.Event) -> None:
    """Overwrite and delete a few keys in random order until ``stop`` is set."""
    rng = random.Random(name)
    count = 0
    while not stop.is_set():
        count += 1
        own_key = f"{name}/{rng.randrange(4)}"
        if rng.random() < 0.15:
            await level.delete(own_key)
        else:
            await level.put(own_key, [name, count])
        if count % 5 == 0:
            await level.put(f"shared/{rng.randrange(4)}", [name, count, "x" * rng.randrange(20_000)])
        await asyncio.sleep(0.004)


async def synchronise(level: Level, remote: RemoteServer, style: str, stop: asyncio.Event) -> None:
    """Synchronise until ``stop`` is set, in a live session or by repeated calls of ``sync()``."""
    if style == "live":
        async with level.live(remote, interval=0.2):
            await stop.wait()
    while not stop.is_set():
        with suppress(SyncError):
            await level.sync(remote)
        await asyncio.sleep(0.01)


async def drain(level: Level, remote: RemoteServer) -> None:
    """Retry ``sync()`` until it succeeds."""
    while True:
        try:
            await level.sync(remote)
            return
        except SyncError:
            await asyncio.sleep(0.05)


async def main(folder: str, name: str, url: str, style: str, certificate: str | None = None) -> None:
    """Run the client, as the docstring of the module describes."""
    ssl_context = None if certificate is None else ssl.create_default_context(cafile=certificate)
    stop = asyncio.Event()
    async with (
        Level(folder, mode=Level.CLIENT) as level,
        RemoteServer(url, timeout=1.5, ssl_context=ssl_context) as remote,
    ):
        tasks = [asyncio.create_task(write(level, name, stop))]
        tasks += [asyncio.create_task(synchronise(level, remote, style, stop))]
        await asyncio.to_thread(sys.stdin.readline)
        stop.set()
        await asyncio.gather(*tasks)
        written = await level.query(prefix=f"{name}/")
        await drain(level, remote)
        print("drained", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await drain(level, remote)
        report = {
            "cid": level.cid,
            "entries": await level.query(),
            "written": written,
            "conflicts": [conflict.key for conflict in await level.conflicts()],
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
