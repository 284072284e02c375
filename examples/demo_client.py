"""A client of the demo, in its own process. It works offline, and syncs over HTTP on request."""

from __future__ import annotations

import asyncio
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from demo_proof import StoreContents

from treehub_level import Change, Level, SyncReport
from treehub_level.http import RemoteServer


def run(pipe: Connection, folder: Path, url: str, token: str, follow: list[str] | None) -> None:
    """Serve requests of the demo until "end": the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the demo, which ends this process
    asyncio.run(serve(pipe, folder, url, token, follow))


async def serve(pipe: Connection, folder: Path, url: str, token: str, follow: list[str] | None) -> None:
    """Answer each request. Only "sync" needs the server."""

    def send_progress(report: SyncReport) -> None:
        pipe.send(("progress", report.pulled))

    async with (
        Level(folder, mode=Level.CLIENT, follow=follow) as level,
        RemoteServer(url, token=token) as server,
    ):
        while True:
            result: object = None
            match pipe.recv():
                case ["sync"]:
                    result = await level.sync(server, progress=send_progress)
                case ["edit", changes, together]:
                    await edit(level, changes, together=together)
                case ["follow", prefix]:
                    await level.follow(prefix)
                case ["get", key]:
                    result = await level.get(key)
                case ["restore", key]:
                    await restore(level, key)
                case ["contents"]:
                    result = await StoreContents.of(level)
                case ["end"]:
                    return
            pipe.send(("result", result))


async def edit(level: Level, changes: list[Change], *, together: bool) -> None:
    """Write all changes in one atomic batch. Without ``together``, each may be lost alone."""
    async with level.write_batch(together=together) as batch:
        for change in changes:
            if change.deleted:
                batch.delete(change.key)
            else:
                batch.put(change.key, change.value)


async def restore(level: Level, key: str) -> None:
    """Write an overwritten change again, from the conflict journal of the client."""
    conflict = next(conflict for conflict in await level.conflicts() if conflict.key == key)
    await level.restore(conflict)
