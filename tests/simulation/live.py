"""Live sessions of the product over bad networks and crashing disks, in virtual time (T2).

    python -m tests.simulation.live --schedules 1000
    python -m tests.simulation.live --seed 42

``product.py`` decides on each message. This module runs whole programs instead: tasks, backoff and
long polls. It uses the tools that `treehub_level.testing` offers to applications.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Final
from unittest import mock

from treehub_level import Level, LevelError, NotOpenError, StorageError, blocking
from treehub_level.testing import CrashError, CrashingDisk, FlakyServer, assert_converged
from treehub_level.testing.crashing import CrashingBackend
from treehub_level.types import Mode, Put

from .configuration import BASE
from .faults import FAULTS
from .invariants import Oracle
from .merging import RandomMerger
from .processes import Client, Server, on_conflict_of
from .runner import main
from .schedule import BEYOND_FFFF, Trace
from .sides import Content
from .versions import Logged
from .virtual import in_order, virtual_time

#: Seconds between two syncs with a server that does not support long polling.
_INTERVAL: Final = 5.0
#: Virtual seconds within which sessions must be in sync after all faults have stopped.
_PATIENCE: Final = 600.0


class _Node:
    """An asyncio level on a disk that crashes.

    Attributes:
        disk: The disk.
        running: The level, while a process has it open, even if it has crashed.
        level: Its blocking counterpart, which schedules use.
    """

    level: blocking.Level

    def __init__(self, name: str, mode: Mode, rng: random.Random) -> None:
        self._name = name
        self._mode = mode
        self.disk: Any = CrashingDisk(seed=rng.getrandbits(32))
        self.running: Level | None = None

    async def start(self) -> None:
        """Start a process over the stored data."""
        await self.stop()
        level = Level(self._name, backend=self.disk, mode=self._mode, keep_base=self._mode is Mode.CLIENT)
        in_order(level)
        await level.open()
        self.running, self.level = level, level._blocking

    async def stop(self) -> None:
        if self.running is not None:
            level, self.running = self.running, None
            await level.close()

    @property
    def opened(self) -> Level:
        """The running level."""
        assert self.running is not None
        return self.running


class _LiveServer(_Node, Server):
    def __init__(self, rng: random.Random) -> None:
        _Node.__init__(self, "server", Mode.SERVER, rng)

    @property
    def is_alive(self) -> bool:
        """True if the server is running, and has not crashed in a write."""
        backend = self._backend
        assert isinstance(backend, CrashingBackend)
        return self.running is not None and not backend.has_crashed


class _Network:
    """The connection from the clients to the running server, which can be cut."""

    def __init__(self, server: _LiveServer) -> None:
        self._server = server
        self.is_cut = False

    async def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """See `Level.exchange`."""
        if self.is_cut or self._server.running is None:
            raise ConnectionRefusedError("the server is down")
        try:
            return await self._server.running.exchange(request, wait=wait)
        except (CrashError, NotOpenError, StorageError) as error:
            raise ConnectionResetError("the server crashed") from error


class _LiveClient(_Node, Client):
    """A client with its live session."""

    def __init__(self, name: str, rng: random.Random, network: _Network) -> None:
        _Node.__init__(self, name, Mode.CLIENT, rng)
        self._has_wrong_server = False
        self.network = FlakyServer(network, seed=rng.getrandbits(32), delay=rng.choice([0.0, 0.05, 2.0]))
        self.session: Any = None
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.on_commit: Callable[[], None] = _nothing

    async def start(self) -> None:
        await super().start()
        self.level._store.listeners.add(self.on_commit)
        self._leaving = asyncio.Event()
        self._task = asyncio.create_task(self._stay_in_sync())
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self._leaving.set()
        if self._task is not None:
            await self._task
        await super().stop()

    async def _stay_in_sync(self) -> None:
        with suppress(CrashError):
            on_conflict = on_conflict_of(self.merger)
            async with self.opened.live(self.network, interval=_INTERVAL, on_conflict=on_conflict) as self.session:
                await self._leaving.wait()


def _nothing() -> None:
    pass


class LiveRun:
    """One run.

    Args:
        rng: Makes all random decisions, except those of mergers.
        trace: Called with a line for each event.
        merger_rng: Makes the random decisions of mergers.
    """

    def __init__(self, rng: random.Random, trace: Trace | None, merger_rng: random.Random) -> None:
        self._rng = rng
        self._merger_rng = merger_rng
        self._trace_line = trace
        self.counts: Counter[str] = Counter()
        self._server = _LiveServer(rng)
        self._network = _Network(self._server)
        self._clients = {
            name: _LiveClient(name, rng, self._network) for name in (f"c{i}" for i in range(rng.choice([1, 2, 3])))
        }
        self._keys = [BEYOND_FFFF, *(f"k{i}" for i in range(rng.choice([1, 2, 4])))]
        self._backups: list[tuple[Any, dict[int, Logged]]] = []
        self._writes = 0
        self._may_reset = False

    async def run(self) -> Counter[str]:
        """Run random events, then stop all faults and check that all stores become equal.

        Raises:
            InvariantError: An invariant was violated.
        """
        try:
            await self._run()
        finally:
            for node in (*self._clients.values(), self._server):
                await node.stop()
        return self.counts

    async def _run(self) -> None:
        merges = self._merger_rng.choice([0, 0, 0.5, 1])
        await self._server.start()
        self._oracle = Oracle(self._server, self._clients, replace(BASE, merges=merges))
        for name, client in self._clients.items():
            if merges:
                self._let_merge(name, client, merges)
            await client.start()
        self._listen_to_commits()
        acts = [self._write_on_client, self._write_on_server, self._rest, self._cut_or_mend, self._restart_server]
        acts += [self._restart_client, self._compact, self._back_up, self._restore, self._pause_or_resume]
        acts += [self._settle_conflict, self._arm, self._write_batch_on_client]
        weights = [22, 6, 10, 4, 3, 4, 3, 2, 2, 4, 4, 2, 3]
        for _ in range(self._rng.choice([20, 60, 120])):
            await asyncio.sleep(self._rng.expovariate(2))
            act = self._rng.choices(acts, weights)[0]
            await act()
            self.counts[act.__name__.strip("_").replace("_", " ")] += 1
            self._check()
        await self._converge()

    def _trace(self, what: str) -> None:
        if self._trace_line is not None:
            self._trace_line(f"{asyncio.get_running_loop().time():9.3f}  {what}")

    def _check(self) -> None:
        if self._server.is_alive:
            for name in self._clients:
                if self._may_reset:  # a reset may have begun and ended since the last check
                    self._oracle.expected[name].cid = 0
                self._oracle.check(name)

    def _let_merge(self, name: str, client: _LiveClient, share: float) -> None:
        """Let a client settle losses, and record each answer when it is committed."""
        client.merger = merger = RandomMerger(name, self._oracle.expected[name], share, self._merger_rng)

        def on_commit() -> None:
            answers = merger.take()
            if answers:
                self._oracle.record_settlements(name, answers, client.commits)
                self.counts["merged"] += len(answers)

        client.on_commit = on_commit

    def _listen_to_commits(self) -> None:
        """Record each commit of the server before it can be compacted away."""

        def on_commit() -> None:
            if self._server.is_alive:
                self._oracle.record_log(None)

        self._server.level._store.listeners.add(on_commit)

    async def _converge(self) -> None:
        self._trace("--- all faults have stopped")
        self._network.is_cut = False
        self._server.disk.crash_at(0)
        if not self._server.is_alive:
            await self._start_server()
        for client in self._clients.values():
            client.network.heal()
            client.session.resume()
        for _ in range(2):  # the second time to pull the changes that others pushed after the first
            for client in self._clients.values():
                await client.session.in_sync(within=_PATIENCE)
        self._trace(f"--- all sessions are in sync, at CID {self._server.head}")
        self._check()
        assert_converged(self._server.opened, *(client.opened for client in self._clients.values()))
        self._oracle.compare()

    # ------------------------------------------------------------------------------------ events

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
        expected = self._oracle.expected[name]
        expected.count += 1
        key, content = self._rng.choice(self._keys), None if self._rng.random() < 0.2 else (name, expected.count)
        await self._write(client.opened, key, content)
        expected.record_write(client, key, content)
        self._trace(f"{name} writes {content} to {key}; its session is {client.session.state}")

    async def _write_batch_on_client(self) -> None:
        name, client = self._any_client()
        expected = self._oracle.expected[name]
        changes: dict[str, Content] = {}
        for key in self._rng.sample(self._keys, min(2, len(self._keys))):
            expected.count += 1
            changes[key] = name, expected.count
        await client.opened.batch([Put(key, content) for key, content in changes.items()])
        expected.record_batch(client, changes)
        self._trace(f"{name} writes {[*changes.values()]} to {[*changes]} in one batch")

    async def _write_on_server(self) -> None:
        if not self._server.is_alive:
            return
        self._writes += 1
        key = self._rng.choice(self._keys)
        try:
            await self._write(self._server.opened, key, ("server", self._writes))
        except (CrashError, LevelError):
            await self._stop_server()
        else:
            self._trace(f"the server writes ('server', {self._writes}) to {key}, CID {self._server.head}")

    async def _rest(self) -> None:
        seconds = self._rng.choice([1, 10, 100])
        self._trace(f"nothing happens for {seconds} s")
        await asyncio.sleep(seconds)

    async def _cut_or_mend(self) -> None:
        self._network.is_cut = not self._network.is_cut
        self._trace(f"the network is {'cut' if self._network.is_cut else 'open'}")

    async def _arm(self) -> None:
        """Make the server crash in one of its next writes."""
        self._server.disk.crash_at(
            self._rng.randint(1, 3), before=self._rng.random() < 0.5, power=self._rng.random() < 0.5
        )

    async def _stop_server(self) -> None:
        self._trace("the server has crashed in a write")
        await self._server.stop()

    async def _restart_server(self) -> None:
        power = self._rng.random() < 0.5
        self._server.disk.crash(power=power)
        await self._start_server()
        self._trace(f"the server crashes{' with the power' if power else ''}, and starts at CID {self._server.head}")

    async def _start_server(self) -> None:
        await self._server.start()
        self._may_reset = True
        self._oracle.drop_lost_changes()
        self._listen_to_commits()
        self._oracle.record_log(None)

    async def _restart_client(self) -> None:
        name, client = self._any_client()
        power = self._rng.random() < 0.5
        client.disk.crash(power=power)
        await client.start()
        expected = self._oracle.expected[name]
        expected.drop_lost_commits(client)
        expected.cid = client.cid
        self._trace(f"{name} crashes{' with the power' if power else ''}, and starts at CID {client.cid}")

    async def _compact(self) -> None:
        if not self._server.is_alive:
            return
        cid = self._rng.choice([None, None, self._rng.randint(0, self._server.head)])
        self._may_reset = self._may_reset or cid is not None
        with suppress(CrashError):
            await self._server.opened.compact_log(drop_deletes_before=cid)
        self._trace(f"the server compacts its log, and forgets deletes before {cid}")

    async def _back_up(self) -> None:
        self._backups.append((self._server.disk.backup("server"), dict(self._oracle.history)))
        self._trace("the server is backed running")

    async def _restore(self) -> None:
        if not self._backups:
            return
        backup, history = self._rng.choice(self._backups)
        self._server.disk.restore("server", backup)
        await self._server.stop()
        self._oracle.replace_history(history)
        await self._start_server()
        self._trace(f"the server is restored from a backup, to CID {self._server.head}")

    async def _pause_or_resume(self) -> None:
        name, client = self._any_client()
        if client.session.state == "stopped":
            client.session.resume()
        else:
            client.session.pause()
        self._trace(f"the session of {name} is {client.session.state}")

    async def _settle_conflict(self) -> None:
        name, client = self._any_client()
        losses = client.journal()
        if not losses:
            return
        loss, expected = self._rng.choice(losses), self._oracle.expected[name]
        if self._rng.random() < 0.5:
            await client.opened.restore(client._conflict(loss))
            expected.record_restoration(client, loss)
        else:
            await client.opened.dismiss(client._conflict(loss))
            expected.record_dismissal(client, loss)
        self._trace(f"{name} settles the conflict over {loss.key}, where it lost {loss.local}")


def run(seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None) -> Counter[str]:
    """Run the live sessions of one seed.

    Args:
        seed: A random seed, which decides everything.
        without: A fault to inject.
        focus: Ignored: nothing is stressed here.
        trace: Called with a line for each event.

    Raises:
        InvariantError: An invariant was violated. Any other exception is a failure, too.
    """
    rng = random.Random(f"live {seed}")
    with virtual_time(rng) as loop, ExitStack() as stack:
        for target, name, value in FAULTS.get(without or "", []):
            stack.enter_context(mock.patch.object(target, name, value))

        async def run_all() -> Counter[str]:
            return await LiveRun(rng, trace, random.Random(f"mergers {seed}")).run()

        return loop.run_until_complete(run_all())


if __name__ == "__main__":
    main(run, __doc__ or "", faults=FAULTS)
