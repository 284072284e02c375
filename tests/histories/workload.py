"""Runs recorded sessions in processes over a bad network, and collects their history."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from databases import Database, open_folder
from fault_proxy import FaultProxy, Faults
from replicas.balancer import Balancer
from replicas.processes import Replica
from server_process import ServerProcess

from treehub_level import TransportError
from treehub_level.http import RemoteServer

from .history import History, Version, count_operations, load
from .recorded_sessions import GROUP_KEYS, id_of

ROOT: Final = Path(__file__).parents[2]
STYLES: Final = ("sync", "direct", "live", "ranges")
#: Seconds in which a session must end once the network is well.
_END: Final = 60.0
#: The changes that a client asks for at a time: as few as hold the largest group.
_PAGE: Final = GROUP_KEYS
_REPLICAS: Final = 3
#: Seconds between two looks at the number of operations.
_POLL: Final = 0.1
#: Seconds in which a session must call an operation.
_STALL: Final = 60.0


class Pausable(Protocol):
    """A process of a server."""

    def start(self) -> None:
        """Start the process on the port that it had."""

    def kill(self) -> None:
        """Kill the process."""

    def pause(self) -> None:
        """Stop the process with SIGSTOP."""

    def resume(self) -> None:
        """Resume the stopped process."""


class Servers(NamedTuple):
    """The servers of a run.

    Attributes:
        processes: Their processes.
        port: The port to which clients connect.
        url: The URL of the database at one of the servers, without a network in between.
    """

    processes: list[Pausable]
    port: int
    url: str


@asynccontextmanager
async def one_server(prelude: str) -> AsyncIterator[Servers]:
    """Run one server over LevelDB."""
    with open_folder() as folder:
        server = await asyncio.to_thread(lambda: ServerProcess(folder, prelude=prelude))
        try:
            yield Servers([server], server.port, server.url)
        finally:
            server.kill()


@asynccontextmanager
async def replicas(prelude: str) -> AsyncIterator[Servers]:
    """Run several servers over one PostgreSQL, behind a load balancer."""
    with open_folder() as folder:
        database = await asyncio.to_thread(Database, folder, "fsync=off")
        await asyncio.to_thread(database.start)
        started: list[Replica] = []
        try:
            for _ in range(_REPLICAS):
                started.append(await asyncio.to_thread(lambda: Replica(database.url, prelude=prelude)))
            async with Balancer([it.port for it in started], random.Random(0)) as balancer:
                yield Servers([*started], balancer.port, started[0].url)
        finally:
            for replica in started:
                replica.kill()
            database.stop()


class SessionProcess:
    """The process of a recorded session.

    Args:
        options: The options of ``session_process``.

    Attributes:
        name: The name of the session.
    """

    def __init__(self, options: dict[str, str]) -> None:
        self.name = options["name"]
        self._options = options
        self._starts = 0
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start the process. A session with a store continues."""
        self._starts += 1
        options = {**self._options, "seed": f"{self._options['seed']} {self._starts}"}
        paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.histories.session_process", json.dumps(options)),
            stdin=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths},
        )

    async def kill_and_start(self) -> None:
        """Kill the process, and start it again."""
        self._process.kill()
        await self._process.wait()
        await self.start()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask the session to end."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def check(self) -> None:
        """Check that the session has not failed.

        Raises:
            AssertionError: It has failed.
        """
        code = self._process.returncode
        assert not code, f"the session {self.name} has failed: exit code {code}"

    async def has_ended(self) -> bool:
        """Wait until the session has ended, and kill it if it does not.

        Raises:
            AssertionError: It has failed.
        """
        try:
            await asyncio.wait_for(self._process.wait(), _END)
        except asyncio.TimeoutError:
            await self.kill()
            return False
        self.check()
        return True

    async def kill(self) -> None:
        """Kill the process if it runs."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Workload:
    """One run.

    Args:
        folder: The folder for the stores and the histories.
        operations: The number of operations after which the sessions end.
        styles: The style of each session.
        seed: Seeds all random decisions.
        pace: The mean of the seconds between two operations of a session.
        topology: Runs the servers: `one_server` or `replicas`.
        server_prelude: The fault of the servers.
        client_prelude: The fault of the clients that follow everything.
        disturb: The number of operations between two faults of processes; ``None`` for no fault.
        faults: The faults of the network.

    Attributes:
        counts: The number of faults of each kind.
    """

    def __init__(
        self,
        folder: Path,
        *,
        operations: int,
        styles: Sequence[str] = STYLES,
        seed: int = 0,
        pace: float = 0.02,
        topology: Callable[[str], object] = one_server,
        server_prelude: str = "",
        client_prelude: str = "",
        disturb: int | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._folder = folder
        self._operations = operations
        self._seed = seed
        self._pace = pace
        self._topology = topology
        self._server_prelude = server_prelude
        self._client_prelude = client_prelude
        self._disturb = disturb
        self._faults = faults or Faults()
        self._rng = random.Random(seed)
        self._sessions = [(style, f"{style}{number}") for number, style in enumerate(styles)]
        self.counts: Counter[str] = Counter()

    async def run(self) -> History:
        """Run the sessions, and return their history.

        Raises:
            AssertionError: A session has failed.
        """
        histories = self._folder / "histories"
        for folder in (histories, self._folder / "stores"):
            folder.mkdir()
        async with self._topology(self._server_prelude) as servers, AsyncExitStack() as stack:  # type: ignore[attr-defined]
            proxies = [self._proxy(servers.port, direct=direct) for direct in (False, True)]
            for proxy in proxies:
                await proxy.start()
                stack.push_async_callback(proxy.close)
            sessions = [self._session(style, name, proxies[style == "direct"].port) for style, name in self._sessions]
            for session in sessions:
                await session.start()
                stack.push_async_callback(session.kill)
            await self._work(servers, sessions)
            for session in sessions:
                session.stop()
            for proxy in proxies:
                await proxy.heal()
                self.counts += proxy.counts
            undrained = [session.name for session in sessions if not await session.has_ended()]
            async with RemoteServer(servers.url) as server:
                try:
                    changes = (await server.changes(0, limit=None)).changes
                except TransportError as error:
                    return load(histories, [], undrained, str(error))
        return load(histories, [Version(it.cid or 0, it.key, id_of(it.value)) for it in changes], undrained)

    def _proxy(self, port: int, *, direct: bool) -> FaultProxy:
        """Return a proxy. It repeats no request of a session without a store.

        An exchange can be repeated; a repeated PUT is a second write.
        """
        faults = self._faults
        if direct:
            faults = Faults(**{**vars(faults), "duplicate": 0})
        return FaultProxy(port, faults, random.Random(self._rng.random()))

    def _session(self, style: str, name: str, port: int) -> SessionProcess:
        return SessionProcess(
            {
                "style": style,
                "name": name,
                "url": f"http://127.0.0.1:{port}/v1/notes",
                "stores": str(self._folder / "stores"),
                "histories": str(self._folder / "histories"),
                "seed": f"{self._seed} {name}",
                "pace": str(self._pace),
                "page": str(_PAGE),
                "prelude": self._client_prelude if style in ("sync", "live") else "",
            }
        )

    async def _work(self, servers: Servers, sessions: list[SessionProcess]) -> None:
        """Wait until the sessions have called enough operations, and disturb processes."""
        deadline = time.monotonic() + _STALL
        recorded = disturbed = 0
        while recorded < self._operations:
            await asyncio.sleep(_POLL)
            now = count_operations(self._folder / "histories")
            if now > recorded:
                recorded, deadline = now, time.monotonic() + _STALL
            assert time.monotonic() < deadline, f"no session has called an operation for {_STALL:.0f} s"
            for session in sessions:
                session.check()
            if self._disturb is not None and recorded > disturbed + self._disturb:
                disturbed = recorded
                await self._disturb_one(self._rng.choice(servers.processes), self._rng.choice(sessions))

    async def _disturb_one(self, server: Pausable, session: SessionProcess) -> None:
        """Kill or pause a server or a session."""
        kind = self._rng.choice(["server killed", "server paused", "session killed", "session paused"])
        self.counts[kind] += 1
        pause = self._rng.uniform(0.1, 2)
        match kind:
            case "server killed":
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(pause / 4)
                await asyncio.to_thread(server.start)
            case "server paused":
                server.pause()
                await asyncio.sleep(pause)
                server.resume()
            case "session killed":
                await session.kill_and_start()
            case "session paused":
                session.send_signal(signal.SIGSTOP)
                await asyncio.sleep(pause)
                session.send_signal(signal.SIGCONT)
