"""T9: three replicas over one PostgreSQL, fifty clients, a load balancer, and fault injection.

    python -m tests.replicas.soak --seconds 3600
    python -m tests.replicas.soak --seconds 60 --seed 7

Replicas are killed and paused; the database is stopped, killed, backed up, and later restored. In
the end all clients must be equal, and no acknowledged write may be lost, unless a restore has
taken it back.
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
from .clients import TWINS, Client, Content, content_of
from .processes import Replica

REPLICAS: Final = 3
CLIENTS: Final = 50
#: Seconds in which each client must make progress, even while faults are injected.
_PROGRESS_SECONDS: Final = 120.0

#: A schedule with one fault of each kind.
EVERY_FAULT: Final = ("backup", "kill", "pause", "stop the database", "kill the database", "restore")
#: The relative frequency of each kind of fault in a random schedule.
_WEIGHTS: Final = {"kill": 4, "pause": 4, "stop the database": 2, "kill the database": 2, "backup": 1, "restore": 1}


class Soak:
    """One run of the soak test.

    Args:
        folder: The folder of the database.
        seed: Seeds all random decisions.
        prelude: Python statements that each replica runs first.
        recovery_seconds: Seconds in which all clients must have synchronised after the last fault.
        clients: The number of clients. A fifth of them use live sessions.

    Attributes:
        counts: The number of injected faults, writes, resets and other events, by name.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        prelude: str = "",
        recovery_seconds: float = 120,
        clients: int = CLIENTS,
    ) -> None:
        self._client_count = clients
        self._rng = random.Random(seed)
        self._folder = folder
        self._prelude = prelude
        self._recovery_seconds = recovery_seconds
        self._replicas: list[Replica] = []
        self._clients: list[Client] = []
        #: Changes of logs that a restore has taken back.
        self._taken_back: set[tuple[str, Content]] = set()
        self._has_backup = False
        self.counts: Counter[str] = Counter()

    async def run(self, faults: Iterable[str]) -> list[str]:
        """Inject faults while clients write, and return the violations found in the end."""
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
                for number in range(self._client_count):
                    client = Client(
                        f"c{number}",
                        f"http://{HOST}:{balancer.port}/v1/notes",
                        live=number < self._client_count // 5,
                        rng=random.Random(self._rng.random()),
                    )
                    self._clients.append(await stack.enter_async_context(client))
                try:
                    await self._inject(faults)
                except AssertionError as violation:
                    return [str(violation)]
                return (
                    self._unexpected_errors()
                    or await self._recover()
                    or self._unexpected_errors()
                    or await self._violations()
                )

    def _replica(self) -> Replica:
        return Replica(self._database.url, prelude=self._prelude)

    async def _inject(self, faults: Iterable[str]) -> None:
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "stop the database": self._stop_database,
            "kill the database": self._kill_database,
            "backup": self._backup,
            "restore": self._restore,
        }
        stop = asyncio.Event()
        clients = [asyncio.create_task(client.run(stop)) for client in self._clients]
        try:
            for fault in faults:
                await self._sleep(1.5)
                if fault == "restore" and not self._has_backup:
                    continue
                self.counts[fault] += 1
                await actions[fault]()
            await self._sleep(1.5)
        finally:
            stop.set()
            await asyncio.gather(*clients)

    def _unexpected_errors(self) -> list[str]:
        return [error for client in self._clients for error in client.unexpected_errors]

    async def _recover(self) -> list[str]:
        """Synchronise all clients after the last fault and the last write."""
        # The first round pushes the changes of all clients; the second round pulls them.
        for _ in range(2):
            syncs = {asyncio.create_task(client.sync_until_success()): client.name for client in self._clients}
            _, pending = await asyncio.wait(syncs, timeout=self._recovery_seconds)
            for task in pending:
                task.cancel()
            await asyncio.gather(*syncs, return_exceptions=True)
            if pending:
                return [f"{syncs[task]} cannot synchronise" for task in pending]
        return []

    # -------------------------------------------------------------------------------------- faults

    async def _sleep(self, longest: float) -> None:
        await asyncio.sleep(self._rng.uniform(longest / 3, longest))

    async def _kill(self) -> None:
        replica = self._rng.choice(self._replicas)
        await asyncio.to_thread(replica.kill)
        await self._sleep(1)
        await asyncio.to_thread(replica.start)

    async def _pause(self) -> None:
        replica = self._rng.choice(self._replicas)
        replica.pause()
        await self._sleep(4)
        replica.resume()

    async def _stop_database(self) -> None:
        await asyncio.to_thread(self._database.stop)
        await self._sleep(1)
        await asyncio.to_thread(self._database.start)

    async def _kill_database(self) -> None:
        await asyncio.to_thread(self._database.kill)
        await asyncio.to_thread(self._database.start)

    async def _backup(self) -> None:
        for client in self._clients:
            client.record_backup()
        await asyncio.to_thread(self._database.stop)
        await asyncio.to_thread(self._database.copy, "backup")
        await asyncio.to_thread(self._database.start)
        self._has_backup = True

    async def _restore(self) -> None:
        """Restore the database while replicas run, one of which is paused the whole time."""
        await _until(lambda: any(client.is_ahead_of_backup for client in self._clients))
        paused = self._rng.choice(self._replicas)
        paused.pause()
        await asyncio.to_thread(self._database.stop)
        # A `sync` that started before the stop may have received its reply already, so wait for it.
        # One that starts from now on cannot receive a reply.
        started = {client: client.syncs_started for client in self._clients}
        await _until(lambda: all(client.is_live or client.syncs_ended >= started[client] for client in self._clients))
        self._taken_back |= await asyncio.to_thread(self._read_log)
        for client in self._clients:
            await client.record_restore()
        await asyncio.to_thread(self._database.restore, "backup")
        await asyncio.to_thread(self._database.start)
        paused.resume()

    def _read_log(self) -> set[tuple[str, Content]]:
        """Read the change log of the stopped database, on a port that replicas do not know."""
        with (
            self._database.on_another_port() as url,
            blocking.Level(url, backend="postgres", store="notes", mode=Level.SERVER) as level,
        ):
            return _contents(level.changes(0, limit=None).changes)

    # -------------------------------------------------------------------------------------- checks

    async def _violations(self) -> list[str]:
        """Compare replicas, clients and logs, and return descriptions of the violations."""
        found = [f"replica {number} has ended" for number, it in enumerate(self._replicas) if not it.is_running]
        found += [
            f"the replica on port {port} got no request" for port, n in self._balancer.request_counts.items() if not n
        ]
        async with RemoteServer(self._replicas[0].url) as server:
            head, log, _ = await server.changes(0, limit=None)
        replayed: dict[str, Any] = {}
        for change in log:
            replayed[change.key] = change.value
        expected = sorted((key, value) for key, value in replayed.items() if value is not None)
        if len(log) != head:
            found.append(f"the log has {len(log)} changes, and the CID is {head}")
        for replica in self._replicas:
            async with RemoteServer(replica.url) as server, Level("new", backend="memory", mode=Level.CLIENT) as new:
                await new.sync(server)
                found += await _differences("a new client", new, head, expected)
        restored = self.counts["restore"] > 0
        for client in self._clients:
            followed = tuple(item.prefix for item in await client.level.followed())
            seen = [entry for entry in expected if entry[0].startswith(followed)]
            found += await _differences(client.name, client.level, head, seen)
            found += _torn_batches(client.name, log)
            found += await client.violations(self._taken_back | _contents(log), restored=restored)
            for name in ("writes", "acknowledged", "resets", "failures", "pairs"):
                self.counts[name] += getattr(client, name)
        self.counts["changes logged"] = head
        self.counts["requests"] = sum(self._balancer.request_counts.values())
        return found


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PROGRESS_SECONDS
    while not condition():  # there is no event for the progress of clients
        assert time.monotonic() < deadline, "the clients make no progress"
        await asyncio.sleep(0.1)


def _contents(changes: Iterable[Change]) -> set[tuple[str, Content]]:
    return {(change.key, content_of(change)) for change in changes}


def _torn_batches(name: str, log: Iterable[Change]) -> list[str]:
    """Return a description if the log has only a part of a client's batch."""
    left, right = ([change.value for change in log if change.key == f"{name}/{twin}"] for twin in TWINS)
    return [] if left == right else [f"the log has parts of batches of {name}: {left!r:.200} and {right!r:.200}"]


async def _differences(name: str, level: Level, head: int, expected: list[tuple[str, Any]]) -> list[str]:
    found = sorted((key, value) for key, value in await level.query())
    if (level.cid, found) == (head, expected):
        return []
    rows = [row for row in found if row not in expected]
    return [
        f"{name} is at CID {level.cid} of {head}, and has {len(found)} entries of {len(expected)}; "
        f"these are wrong: {rows!r:.300}"
    ]


def random_faults(seconds: float, seed: int) -> Iterator[str]:
    """Iterate over random faults for so many seconds, beginning with a backup."""
    rng = random.Random(f"faults {seed}")
    end = time.monotonic() + seconds
    yield "backup"
    while time.monotonic() < end:
        yield rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]


def main() -> None:
    """Run the soak test with the options of the command line, and print counts and violations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600, help="the time for which faults are injected")
    parser.add_argument("--seed", type=int, default=0, help="the seed of all random decisions")
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("stopped")
    )  # an exception, so that the started processes are stopped
    with open_folder() as path:
        soak = Soak(path, arguments.seed)
        violations = asyncio.run(soak.run(random_faults(arguments.seconds, arguments.seed)))
    print(f"seed {arguments.seed}, {REPLICAS} replicas, {CLIENTS} clients: {len(violations)} violations")
    print(f"  {dict(soak.counts)}")
    print("\n".join(violations[:20]))
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
