"""A client in a process of its own: it writes and synchronises until it is told to stop, then says what it has.

    python client_process.py FOLDER NAME URL sync|live [CERTIFICATE]

It reads a line from stdin at each turn. After the first it writes no more, drains, and says so; after the second it
synchronises once more and prints what it has. Keys that begin with its name are written by nobody else.
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
    """Write the same few keys over and over."""
    rng = random.Random(name)
    count = 0
    while not stop.is_set():
        count += 1
        own = f"{name}/{rng.randrange(4)}"
        if rng.random() < 0.15:
            await level.delete(own)
        else:
            await level.put(own, [name, count])
        if count % 5 == 0:
            await level.put(f"shared/{rng.randrange(4)}", [name, count, "x" * rng.randrange(20_000)])
        await asyncio.sleep(0.004)


async def synchronise(level: Level, remote: RemoteServer, style: str, stop: asyncio.Event) -> None:
    """Stay in touch with the server as well as that goes."""
    if style == "live":
        async with level.live(remote, interval=0.2):
            await stop.wait()
    while not stop.is_set():
        with suppress(SyncError):
            await level.sync(remote)
        await asyncio.sleep(0.01)


async def drain(level: Level, remote: RemoteServer) -> None:
    """Synchronise until that succeeds."""
    while True:
        try:
            await level.sync(remote)
            return
        except SyncError:
            await asyncio.sleep(0.05)


async def main(folder: str, name: str, url: str, style: str, certificate: str | None = None) -> None:
    """See above."""
    trusted = None if certificate is None else ssl.create_default_context(cafile=certificate)
    stop = asyncio.Event()
    async with (
        Level(folder, mode=Level.CLIENT) as level,
        RemoteServer(url, timeout=1.5, ssl_context=trusted) as remote,
    ):
        work = [asyncio.create_task(write(level, name, stop))]
        work += [asyncio.create_task(synchronise(level, remote, style, stop))]
        await asyncio.to_thread(sys.stdin.readline)
        stop.set()
        await asyncio.gather(*work)
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
