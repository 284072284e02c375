"""Prints the transcript of a server and two clients: each message, each report, and the data.

    python -m tests.clock.transcript FOLDER [--with-time]

Random ids are replaced by numbers in the order of their appearance, and the times of conflicts and
commits, which inform only, are left out, so that transcripts can be compared. `--with-time` adds a
value with the current time, a fault that the comparison must find.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treehub_level import Delete, Level, Put

_ID = re.compile(r"\b[0-9a-f]{32}\b")
#: The time of a conflict, and that of a commit in a message: after the client and the principal.
_TIMES = re.compile(r"(?<=at=)datetime\.datetime\([^)]*\)|(?<=, None, )1\d{12}(?=, \[)")


class Transcript:
    """A printer of lines with numbered ids."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def write(self, *parts: object) -> None:
        """Print a line."""
        line = _TIMES.sub("…", " ".join(part if isinstance(part, str) else repr(part) for part in parts))
        print(_ID.sub(lambda id: self._numbers.setdefault(id[0], f"id-{len(self._numbers)}"), line))


class RecordedServer:
    """A server whose messages are written to a transcript."""

    def __init__(self, server: Level, transcript: Transcript) -> None:
        self._server = server
        self._transcript = transcript

    async def exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """See `Level.exchange`."""
        self._transcript.write("->", dict(request))
        reply = await self._server.exchange(request)
        self._transcript.write("<-", reply)
        return reply


async def run(folder: Path, *, with_time: bool) -> None:
    """Run the server and the clients, over stores in a folder."""
    transcript = Transcript()
    first = Level(str(folder / "first"), mode=Level.CLIENT, keep_base=True)
    second = Level(str(folder / "second"), mode=Level.CLIENT)
    async with first, second:
        for opening in range(3):  # each begins an epoch
            async with Level(str(folder / "server"), mode=Level.SERVER) as server:
                await _diverge(server, first, second, opening)
                if with_time:
                    await server.put("now", time.time())
                for client in (first, second, first):
                    transcript.write(await client.sync(RecordedServer(server, transcript)))
                transcript.write(await second.conflicts())
                await _run_live(server, first, second, opening)
                await server.compact_log(drop_deletes_before=server.cid if opening else None)
                transcript.write(await server.changes(server.cid - 3))
                for level in (server, first, second):
                    transcript.write(await level.query())


async def _diverge(server: Level, first: Level, second: Level, opening: int) -> None:
    await server.batch([Put(f"key {n}", [opening, n]) for n in range(20)])
    await first.batch([Put("key 1", "first"), Put("mine", opening), Delete("key 2")])
    await second.batch([Put("key 1", "second"), Put("😀", {"of": opening}), Delete("key 3")])


async def _run_live(server: Level, first: Level, second: Level, opening: int) -> None:
    """Synchronise in live sessions, which use timers. Only their effect is written."""
    async with first.live(server, interval=0.05) as one, second.live(server, interval=0.05) as other:
        await first.put(f"live {opening}", opening)
        await one.in_sync()
        await other.in_sync()


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--with-time", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.folder, with_time=arguments.with_time))


if __name__ == "__main__":
    main()
