"""The product at work: live sessions of asyncio over bad networks and disks that crash, in virtual time (T2).

    python -m tests.simulation.live --schedules 1000
    python -m tests.simulation.live --seed 42

Where `product` decides on each message, this lets whole programs run: tasks, pauses, backing off, questions that the
server keeps waiting. It uses what `treehub_level.testing` offers to applications.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final
from unittest import mock

from treehub_level import Level, LevelError, NotOpenError, StorageError, blocking
from treehub_level.testing import CrashError, CrashingDisk, FlakyServer, assert_converged
from treehub_level.testing.crashing import CrashingBackend
from treehub_level.types import Mode

from .faults import FAULTS
from .invariants import Oracle
from .processes import Client, Server
from .runner import main
from .schedule import BEYOND_FFFF, Say
from .sides import Content
from .virtual import in_order, virtual_time

#: Seconds between two looks at a server that cannot keep a question waiting.
_INTERVAL: Final = 5.0
#: Virtual seconds after which sessions must be in sync, once all is repaired.
_PATIENCE: Final = 600.0


class _Site:
    """A level of asyncio on a disk that crashes.

    Attributes:
        disk: The disk.
        up: The level, while a process has it open, dead or alive.
        level: Its blocking twin, by which schedules see it.
    """

    level: blocking.Level

    def __init__(self, name: str, mode: Mode, rng: random.Random) -> None:
        self._name = name
        self._mode = mode
        self.disk: Any = CrashingDisk(seed=rng.getrandbits(32))
        self.up: Level | None = None

    async def boot(self) -> None:
        """Start over what is there."""
        await self.stop()
        level = Level(self._name, backend=self.disk, mode=self._mode)
        in_order(level)
        await level.open()
        self.up, self.level = level, level._blocking

    async def stop(self) -> None:
        if self.up is not None:
            level, self.up = self.up, None
            await level.close()

    @property
    def opened(self) -> Level:
        """The level, which a process has open."""
        assert self.up is not None
        return self.up


class _LiveServer(_Site, Server):
    def __init__(self, rng: random.Random) -> None:
        _Site.__init__(self, "server", Mode.SERVER, rng)

    @property
    def is_alive(self) -> bool:
        """Whether a process has it open, and has not died over a write."""
        backend = self._backend
        assert isinstance(backend, CrashingBackend)
        return self.up is not None and not backend.has_crashed


class _Road:
    """What clients call: the server, whichever process that is now, unless the road is cut."""

    def __init__(self, server: _LiveServer) -> None:
        self._server = server
        self.is_cut = False

    async def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """See `Level.exchange`."""
        if self.is_cut or self._server.up is None:
            raise ConnectionRefusedError("the server is down")
        try:
            return await self._server.up.exchange(request, wait=wait)
        except (CrashError, NotOpenError, StorageError) as error:
            raise ConnectionResetError("the server died over it") from error


class _LiveClient(_Site, Client):
    """A client with its session."""

    def __init__(self, name: str, rng: random.Random, road: _Road) -> None:
        _Site.__init__(self, name, Mode.CLIENT, rng)
        self._is_refused = False
        self.network = FlakyServer(road, seed=rng.getrandbits(32), delay=rng.choice([0.0, 0.05, 2.0]))
        self.session: Any = None
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def boot(self) -> None:
        await super().boot()
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._stay_in_sync())
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self._leave.set()
        if self._task is not None:
            await self._task
        await super().stop()

    async def _stay_in_sync(self) -> None:
        with suppress(CrashError):
            async with self.opened.live(self.network, interval=_INTERVAL) as self.session:
                await self._leave.wait()


class Play:
    """One run.

    Args:
        rng: Decides everything.
        say: Is told what happens.
    """

    def __init__(self, rng: random.Random, say: Say | None) -> None:
        self._rng = rng
        self._tell = say
        self.counts: Counter[str] = Counter()
        self._server = _LiveServer(rng)
        self._road = _Road(self._server)
        self._clients = {
            name: _LiveClient(name, rng, self._road) for name in (f"c{i}" for i in range(rng.choice([1, 2, 3])))
        }
        self._keys = [BEYOND_FFFF, *(f"k{i}" for i in range(rng.choice([1, 2, 4])))]
        self._backups: list[tuple[Any, dict[int, tuple[str, str]]]] = []
        self._writes = 0
        self._may_reset = False

    async def run(self) -> Counter[str]:
        """Let everything happen, then repair everything, and see that all become equal.

        Raises:
            InvariantError: Something that must hold did not.
        """
        try:
            await self._run()
        finally:
            for site in (*self._clients.values(), self._server):
                await site.stop()
        return self.counts

    async def _run(self) -> None:
        for site in (self._server, *self._clients.values()):
            await site.boot()
        self._oracle = Oracle(self._server, self._clients)
        self._listen()
        acts = [self._write_on_client, self._write_on_server, self._rest, self._cut_or_mend, self._restart_server]
        acts += [self._restart_client, self._compact, self._back_up, self._restore, self._pause_or_resume]
        acts += [self._settle_a_loss, self._arm]
        weights = [22, 6, 10, 4, 3, 4, 3, 2, 2, 4, 4, 2]
        for _ in range(self._rng.choice([20, 60, 120])):
            await asyncio.sleep(self._rng.expovariate(2))
            act = self._rng.choices(acts, weights)[0]
            await act()
            self.counts[act.__name__.strip("_").replace("_", " ")] += 1
            self._check()
        await self._converge()

    def _say(self, what: str) -> None:
        if self._tell is not None:
            self._tell(f"{asyncio.get_running_loop().time():9.3f}  {what}")

    def _check(self) -> None:
        if self._server.is_alive:
            for name in self._clients:
                if self._may_reset:  # it may have begun and ended since the last look
                    self._oracle.ghosts[name].cid = 0
                self._oracle.check(name)

    def _listen(self) -> None:
        """Hear of each commit of the server, before it can be compacted away."""

        def hear() -> None:
            if self._server.is_alive:
                self._oracle.note_log(None)

        self._server.level._store.listeners.add(hear)

    async def _converge(self) -> None:
        self._say("--- everything is repaired")
        self._road.is_cut = False
        self._server.disk.crash_at(0)
        if not self._server.is_alive:
            await self._boot_server()
        for client in self._clients.values():
            client.network.heal()
            client.session.resume()
        for _ in range(2):  # the second time for what the others pushed after the first
            for client in self._clients.values():
                await client.session.in_sync(within=_PATIENCE)
        self._say(f"--- all say that they are in sync, at CID {self._server.head}")
        self._check()
        assert_converged(self._server.opened, *(client.opened for client in self._clients.values()))
        self._oracle.compare()

    # ------------------------------------------------------------------------------------------- what happens

    def _any_client(self) -> tuple[str, _LiveClient]:
        name = self._rng.choice(list(self._clients))
        return name, self._clients[name]

    async def _write(self, level: Level, key: str, content: Content) -> None:
        if content is None:
            await level.delete(key)
        else:
            await level.put(key, [*content])

    async def _write_on_client(self) -> None:
        name, client = self._any_client()
        ghost = self._oracle.ghosts[name]
        ghost.count += 1
        key, content = self._rng.choice(self._keys), None if self._rng.random() < 0.2 else (name, ghost.count)
        await self._write(client.opened, key, content)
        ghost.wrote(client, key, content)
        self._say(f"{name} writes {content} to {key}; its session is {client.session.state}")

    async def _write_on_server(self) -> None:
        if not self._server.is_alive:
            return
        self._writes += 1
        key = self._rng.choice(self._keys)
        try:
            await self._write(self._server.opened, key, ("server", self._writes))
        except (CrashError, LevelError):
            await self._bury_server()
        else:
            self._say(f"the server writes ('server', {self._writes}) to {key}, CID {self._server.head}")

    async def _rest(self) -> None:
        seconds = self._rng.choice([1, 10, 100])
        self._say(f"nothing happens for {seconds} s")
        await asyncio.sleep(seconds)

    async def _cut_or_mend(self) -> None:
        self._road.is_cut = not self._road.is_cut
        self._say(f"the road to the server is {'cut' if self._road.is_cut else 'open'}")

    async def _arm(self) -> None:
        """The server dies over one of its next writes."""
        self._server.disk.crash_at(
            self._rng.randint(1, 3), before=self._rng.random() < 0.5, power=self._rng.random() < 0.5
        )

    async def _bury_server(self) -> None:
        self._say("the server has died over a write")
        await self._server.stop()

    async def _restart_server(self) -> None:
        power = self._rng.random() < 0.5
        self._server.disk.crash(power=power)
        await self._boot_server()
        self._say(f"the server crashes{' with the power' if power else ''}, and starts at CID {self._server.head}")

    async def _boot_server(self) -> None:
        await self._server.boot()
        self._may_reset = True
        self._oracle.server_fell_back()
        self._listen()
        self._oracle.note_log(None)

    async def _restart_client(self) -> None:
        name, client = self._any_client()
        power = self._rng.random() < 0.5
        client.disk.crash(power=power)
        await client.boot()
        ghost = self._oracle.ghosts[name]
        ghost.fell_back(client)
        ghost.cid = client.cid
        self._say(f"{name} crashes{' with the power' if power else ''}, and starts at CID {client.cid}")

    async def _compact(self) -> None:
        if not self._server.is_alive:
            return
        cid = self._rng.choice([None, None, self._rng.randint(0, self._server.head)])
        self._may_reset = self._may_reset or cid is not None
        with suppress(CrashError):
            await self._server.opened.compact_log(drop_deletes_before=cid)
        self._say(f"the server compacts its log, and forgets deletes before {cid}")

    async def _back_up(self) -> None:
        self._backups.append((self._server.disk.backup("server"), dict(self._oracle.history)))
        self._say("the server is backed up")

    async def _restore(self) -> None:
        if not self._backups:
            return
        backup, history = self._rng.choice(self._backups)
        self._server.disk.restore("server", backup)
        await self._server.stop()
        self._oracle.server_became_another(history)
        await self._boot_server()
        self._say(f"the server is restored from a backup, to CID {self._server.head}")

    async def _pause_or_resume(self) -> None:
        name, client = self._any_client()
        if client.session.state == "stopped":
            client.session.resume()
        else:
            client.session.pause()
        self._say(f"the session of {name} is {client.session.state}")

    async def _settle_a_loss(self) -> None:
        name, client = self._any_client()
        losses = client.journal()
        if not losses:
            return
        loss, ghost = self._rng.choice(losses), self._oracle.ghosts[name]
        if self._rng.random() < 0.5:
            await client.opened.restore(client._conflict(loss))
            ghost.wrote(client, loss.key, loss.local)
        else:
            await client.opened.dismiss(client._conflict(loss))
            ghost.dismissed(client, loss)
        self._say(f"{name} settles that it lost {loss.local} on {loss.key}")


def run(seed: int, without: str | None = None, focus: str | None = None, say: Say | None = None) -> Counter[str]:
    """Run the play of one seed.

    Args:
        seed: Decides everything.
        without: A fault to put in.
        focus: Nothing is stressed here.
        say: Is told what happens.

    Raises:
        InvariantError: Something that must hold did not. Anything else that is raised is a failure too.
    """
    rng = random.Random(f"live {seed}")
    with virtual_time(rng) as loop, ExitStack() as stack:
        for target, name, value in FAULTS.get(without or "", []):
            stack.enter_context(mock.patch.object(target, name, value))

        async def play() -> Counter[str]:
            return await Play(rng, say).run()

        return loop.run_until_complete(play())


if __name__ == "__main__":
    main(run, __doc__ or "", faults=FAULTS)
