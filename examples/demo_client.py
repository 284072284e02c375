"""A client of the demo, in a process of its own: it works offline, and syncs over HTTP when it is told to."""

from __future__ import annotations

import asyncio
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from demo_proof import Holding

from treehub_level import Change, Level, SyncReport
from treehub_level.http import RemoteServer


def run(orders: Connection, folder: Path, url: str, token: str) -> None:
    """Do as the demo says until it says "end": the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the demo, which ends this process
    asyncio.run(obey(orders, folder, url, token))


async def obey(orders: Connection, folder: Path, url: str, token: str) -> None:
    """Answer each order. Nothing but "sync" needs the server."""

    def show(report: SyncReport) -> None:
        orders.send(("progress", report.pulled))

    async with Level(folder, mode=Level.CLIENT) as level, RemoteServer(url, token=token) as server:
        while True:
            answer: object = None
            match orders.recv():
                case ["sync"]:
                    answer = await level.sync(server, progress=show)
                case ["edit", changes]:
                    await edit(level, changes)
                case ["get", key]:
                    answer = await level.get(key)
                case ["restore", key]:
                    await restore(level, key)
                case ["show"]:
                    answer = await Holding.of(level)
                case ["end"]:
                    return
            orders.send(("answer", answer))


async def edit(level: Level, changes: list[Change]) -> None:
    """Make all these changes, in one atomic batch."""
    async with level.write_batch() as batch:
        for change in changes:
            if change.deleted:
                batch.delete(change.key)
            else:
                batch.put(change.key, change.value)


async def restore(level: Level, key: str) -> None:
    """What lost stays in the client's journal until it is restored or dismissed: write it once more."""
    conflict = next(conflict for conflict in await level.conflicts() if conflict.key == key)
    await level.restore(conflict)
