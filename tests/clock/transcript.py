"""A story of a server and its clients, told line by line: each message, each report, and what the stores hold.

    python -m tests.clock.transcript FOLDER [--stamped]

Ids, which are random, are numbered as they appear, so that two tellings can be compared. `--stamped` is the fault that
the comparison has to find: a value with the time in it.
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


class Telling:
    """What has been told, with ids numbered."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def say(self, *what: object) -> None:
        """Tell a line."""
        line = " ".join(repr(each) if not isinstance(each, str) else each for each in what)
        print(_ID.sub(lambda id: self._numbers.setdefault(id[0], f"id-{len(self._numbers)}"), line))


class Overheard:
    """A server whose messages are told."""

    def __init__(self, server: Level, telling: Telling) -> None:
        self._server = server
        self._telling = telling

    async def exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """See `Level.exchange`."""
        self._telling.say("->", dict(request))
        reply = await self._server.exchange(request)
        self._telling.say("<-", reply)
        return reply


async def tell(folder: Path, stamped: bool) -> None:
    """Tell the story, over stores in a folder."""
    telling = Telling()
    first = Level(str(folder / "first"), mode=Level.CLIENT)
    second = Level(str(folder / "second"), mode=Level.CLIENT)
    async with first, second:
        for opening in range(3):  # each begins an epoch
            async with Level(str(folder / "server"), mode=Level.SERVER) as server:
                await _work_apart(server, first, second, opening)
                if stamped:
                    await server.put("now", time.time())
                for client in (first, second, first):
                    telling.say(await client.sync(Overheard(server, telling)))
                telling.say(await second.conflicts())
                await _stay_in_touch(server, first, second, opening)
                await server.compact_log(drop_deletes_before=server.cid if opening else None)
                telling.say(await server.changes(server.cid - 3))
                for level in (server, first, second):
                    telling.say(await level.query())


async def _work_apart(server: Level, first: Level, second: Level, opening: int) -> None:
    await server.batch([Put(f"key {n}", [opening, n]) for n in range(20)])
    await first.batch([Put("key 1", "first"), Put("mine", opening), Delete("key 2")])
    await second.batch([Put("key 1", "second"), Put("😀", {"of": opening}), Delete("key 3")])


async def _stay_in_touch(server: Level, first: Level, second: Level, opening: int) -> None:
    """Live, where waits and pauses count. How often they speak is their affair; what comes of it is told."""
    async with first.live(server, interval=0.05) as one, second.live(server, interval=0.05) as other:
        await first.put(f"live {opening}", opening)
        await one.in_sync()
        await other.in_sync()


def main() -> None:
    """Tell the story of the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stamped", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(tell(arguments.folder, arguments.stamped))


if __name__ == "__main__":
    main()
