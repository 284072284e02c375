"""T9: three replicas over one PostgreSQL, fifty clients before a load balancer, and everything that can fail.

    python -m tests.replicas.soak --seconds 3600
    python -m tests.replicas.soak --seconds 60 --seed 7

Replicas are killed and frozen, the database is stopped hard and killed, its files are copied and, later, restored. In
the end all clients must be equal, and nothing that was acknowledged may be lost, as far as the restores allow.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final

from databases import Database, open_folder

from treehub_level import Change, Level, blocking
from treehub_level.http import RemoteServer

from .balancer import HOST, Balancer
from .clients import Client, Content, content_of
from .processes import Replica

REPLICAS: Final = 3
CLIENTS: Final = 50
#: How many of them stay in touch by `live`.
LIVE: Final = 10
#: Seconds in which each client goes on, whatever fails.
_PATIENCE: Final = 120.0

#: One of each.
EACH: Final = ("copy", "kill", "freeze", "stop the database", "kill the database", "restore")
_WEIGHTS: Final = {"kill": 4, "freeze": 4, "stop the database": 2, "kill the database": 2, "copy": 1, "restore": 1}


class Soak:
    """One run.

    Args:
        folder: Where the database is.
        seed: Decides what happens, and when.
        prelude: Statements that each replica runs first.
        healed: Seconds in which all must have synchronised once nothing fails any more.

    Attributes:
        counts: What happened, and how often.
    """

    def __init__(self, folder: Path, seed: int, *, prelude: str = "", healed: float = 120) -> None:
        self._rng = random.Random(seed)
        self._folder = folder
        self._prelude = prelude
        self._healed = healed
        self._replicas: list[Replica] = []
        self._clients: list[Client] = []
        self._lost: set[tuple[str, Content]] = set()  # what stood in logs that a restore has taken away
        self._has_backup = False
        self.counts: Counter[str] = Counter()

    async def run(self, faults: Iterable[str]) -> list[str]:
        """Let clients write while one thing fails after the other: what is wrong in the end."""
        with ExitStack() as processes:
            self._database = await asyncio.to_thread(Database, self._folder)
            await asyncio.to_thread(self._database.start)
            processes.callback(self._database.stop)
            for _ in range(REPLICAS):
                self._replicas.append(await asyncio.to_thread(self._replica))
                processes.callback(self._replicas[-1].kill)
            async with AsyncExitStack() as stack:
                ports = [replica.port for replica in self._replicas]
                balancer = self._balancer = await stack.enter_async_context(Balancer(ports, self._rng))
                for number in range(CLIENTS):
                    client = Client(
                        f"c{number}",
                        f"http://{HOST}:{balancer.port}/v1/notes",
                        live=number < LIVE,
                        rng=random.Random(self._rng.random()),
                    )
                    self._clients.append(await stack.enter_async_context(client))
                try:
                    await self._turmoil(faults)
                except AssertionError as violation:
                    return [str(violation)]
                return self._surprises() or await self._heal() or self._surprises() or await self._compare()

    def _replica(self) -> Replica:
        return Replica(self._database.url, prelude=self._prelude)

    async def _turmoil(self, faults: Iterable[str]) -> None:
        happenings: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "stop the database": self._stop_database,
            "kill the database": self._kill_database,
            "copy": self._copy,
            "restore": self._restore,
        }
        stop = asyncio.Event()
        work = [asyncio.create_task(client.work(stop)) for client in self._clients]
        try:
            for fault in faults:
                await self._pause(1.5)
                if fault == "restore" and not self._has_backup:
                    continue
                self.counts[fault] += 1
                await happenings[fault]()
            await self._pause(1.5)
        finally:
            stop.set()
            await asyncio.gather(*work)

    def _surprises(self) -> list[str]:
        return [surprise for client in self._clients for surprise in client.surprises]

    async def _heal(self) -> list[str]:
        """Nothing fails any more, and nobody writes: who cannot synchronise even so."""
        for _ in range(2):  # the first time everybody gives what it has, the second time everybody gets it
            drains = {asyncio.create_task(client.drain()): client.name for client in self._clients}
            _, pending = await asyncio.wait(drains, timeout=self._healed)
            for task in pending:
                task.cancel()
            await asyncio.gather(*drains, return_exceptions=True)
            if pending:
                return [f"{drains[task]} cannot synchronise" for task in pending]
        return []

    # ------------------------------------------------------------------------------------------- what happens

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(self._rng.uniform(most / 3, most))

    async def _kill(self) -> None:
        replica = self._rng.choice(self._replicas)
        await asyncio.to_thread(replica.kill)
        await self._pause(1)
        await asyncio.to_thread(replica.start)

    async def _freeze(self) -> None:
        replica = self._rng.choice(self._replicas)
        replica.freeze()
        await self._pause(4)
        replica.thaw()

    async def _stop_database(self) -> None:
        await asyncio.to_thread(self._database.stop)
        await self._pause(1)
        await asyncio.to_thread(self._database.start)

    async def _kill_database(self) -> None:
        await asyncio.to_thread(self._database.kill)
        await asyncio.to_thread(self._database.start)

    async def _copy(self) -> None:
        for client in self._clients:
            client.note_backup()
        await asyncio.to_thread(self._database.stop)
        await asyncio.to_thread(self._database.copy, "backup")
        await asyncio.to_thread(self._database.start)
        self._has_backup = True

    async def _restore(self) -> None:
        """Replicas go on as if nothing were, and one of them sleeps through it."""
        await _until(lambda: any(client.is_ahead_of_backup for client in self._clients))
        sleeper = self._rng.choice(self._replicas)
        sleeper.freeze()
        await asyncio.to_thread(self._database.stop)
        # What is under way may have got its reply already. What begins now cannot get one.
        begun = {client: client.begun for client in self._clients}
        await _until(lambda: all(client.is_live or client.ended >= begun[client] for client in self._clients))
        self._lost |= await asyncio.to_thread(self._read_aside)
        for client in self._clients:
            await client.note_restore()
        await asyncio.to_thread(self._database.restore, "backup")
        await asyncio.to_thread(self._database.start)
        sleeper.thaw()

    def _read_aside(self) -> set[tuple[str, Content]]:
        """What stands in the log while nobody serves it."""
        with (
            self._database.on_another_port() as url,
            blocking.Level(url, backend="postgres", store="notes", mode=Level.SERVER) as level,
        ):
            return _contents(level.changes(0, limit=None).changes)

    # ------------------------------------------------------------------------------------- what must hold then

    async def _compare(self) -> list[str]:
        wrong = [f"replica {number} has ended" for number, it in enumerate(self._replicas) if not it.is_running]
        wrong += [f"the replica on port {port} got no request" for port, n in self._balancer.carried.items() if not n]
        async with RemoteServer(self._replicas[0].url) as server:
            head, log, _ = await server.changes(0, limit=None)
        replayed: dict[str, Any] = {}
        for change in log:
            replayed[change.key] = change.value
        expected = sorted((key, value) for key, value in replayed.items() if value is not None)
        if len(log) != head:
            wrong.append(f"the log has {len(log)} changes, and the CID is {head}")
        for replica in self._replicas:
            async with RemoteServer(replica.url) as server, Level("new", backend="memory", mode=Level.CLIENT) as new:
                await new.sync(server)
                wrong += await _differences("a new client", new, head, expected)
        restored = self.counts["restore"] > 0
        for client in self._clients:
            wrong += await _differences(client.name, client.level, head, expected)
            wrong += await client.faults(self._lost | _contents(log), restored=restored)
            for figure in ("writes", "acknowledged", "resets", "failures"):
                self.counts[figure] += getattr(client, figure)
        self.counts["changes logged"] = head
        self.counts["requests"] = sum(self._balancer.carried.values())
        return wrong


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():  # what the clients do is no event
        assert time.monotonic() < deadline, "the clients do not go on"
        await asyncio.sleep(0.1)


def _contents(changes: Iterable[Change]) -> set[tuple[str, Content]]:
    return {(change.key, content_of(change)) for change in changes}


async def _differences(name: str, level: Level, head: int, expected: list[tuple[str, Any]]) -> list[str]:
    found = sorted((key, value) for key, value in await level.query())
    if (level.cid, found) == (head, expected):
        return []
    rows = [row for row in found if row not in expected]
    return [
        f"{name} is at CID {level.cid} of {head}, has {len(found)} entries of {len(expected)}, and these: {rows!r:.300}"
    ]


def drawn(seconds: float, seed: int) -> Iterator[str]:
    """Faults, one after the other, for so long."""
    rng = random.Random(f"faults {seed}")
    end = time.monotonic() + seconds
    yield "copy"
    while time.monotonic() < end:
        yield rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]


def main() -> None:
    """Run as the command line says, and print what happened and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=0, help="decides what happens, and when")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # in order: it has started many processes
    with open_folder() as path:
        soak = Soak(path, arguments.seed)
        wrong = asyncio.run(soak.run(drawn(arguments.seconds, arguments.seed)))
    print(f"seed {arguments.seed}, {REPLICAS} replicas, {CLIENTS} clients: {len(wrong)} violations")
    print(f"  {dict(soak.counts)}")
    print("\n".join(wrong[:20]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
