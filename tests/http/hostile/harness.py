"""Measures the cost of a hostile load for the honest clients and the server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from treehub_level import Level, LevelError
from treehub_level.blocking import Level as BlockingLevel
from treehub_level.http import RemoteServer, Tokens

from ..processes import ServerProcess
from .attacks import Attack, attack

#: Seconds between two requests of an honest client, and between two samples of the memory.
INTERVAL = 0.05

#: Seconds after which an honest request counts as failed.
TIMEOUT = 10.0


@dataclass
class Figures:
    """The measurements of one attack.

    Attributes:
        latencies: Seconds of each honest request.
        failures: The errors of honest requests.
        memory: Resident memory of the server at rest, and its peak, in MiB.
    """

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    memory: tuple[float, float] = (0.0, 0.0)

    @property
    def p99(self) -> float:
        """The time within which 99 of 100 honest requests were answered, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else float("inf")

    @property
    def growth(self) -> float:
        """The memory by which the server grew, in MiB."""
        return self.memory[1] - self.memory[0]

    def violations(self, bounds: Attack) -> list[str]:
        """Return a sentence for each bound that was broken."""
        found = [f"an honest request failed: {failure}" for failure in self.failures[:3]]
        if self.growth > bounds.memory:
            found.append(f"the server grew by {self.growth:.0f} MiB, and may grow by {bounds.memory:.0f}")
        return found


async def measure(name: str, folder: Path, seconds: float, *, defended: bool = True) -> Figures:
    """Run an attack against a server in its own process, beside honest clients, and measure.

    Args:
        name: The name of the attack.
        folder: An empty folder for the stores.
        seconds: The duration of the attack.
        defended: False to remove the defence from the server (the control).
    """
    bounds = attack(name)
    tokens = Tokens(folder / "tokens")
    reader = tokens.add(databases=["notes"], write=False, name="hostile")
    writer = tokens.add(databases=["*"], write=True, name="honest")
    stores = folder / "stores"
    stores.mkdir()
    with BlockingLevel(str(stores / "notes"), mode=BlockingLevel.SERVER) as level:
        level.load((f"{number:08}", "x" * 1024) for number in range(bounds.seed))
    arguments = ["--tokens", str(folder / "tokens"), *bounds.arguments]
    server = ServerProcess(stores, *arguments, prelude="" if defended else bounds.control)
    figures, stopped = Figures(), asyncio.Event()
    try:
        clients = [_honest(server.url, writer, number, figures, stopped) for number in range(3)]
        honest = asyncio.gather(*clients)
        await asyncio.sleep(1)
        rest = server.memory or 0.0
        command = [sys.executable, "-m", "tests.http.hostile.attacker", name, str(server.port), reader]
        process = await asyncio.to_thread(subprocess.Popen, command)
        peak, end = rest, time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                await asyncio.sleep(INTERVAL)
                peak = max(peak, server.memory or 0.0)
            if process.poll() is not None:
                figures.failures.append(f"the attack ended by itself, with exit code {process.returncode}")
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
            stopped.set()
            await honest
        figures.memory = (rest, peak)
    finally:
        await asyncio.to_thread(server.kill)
    return figures


async def _honest(url: str, token: str, number: int, figures: Figures, stopped: asyncio.Event) -> None:
    """Write, read and synchronise as ordinary applications do, and record each duration."""
    level = Level(f"honest-{number}", backend="memory", mode=Level.CLIENT)
    async with level, RemoteServer(url, token=token, timeout=TIMEOUT) as server:
        while not stopped.is_set():
            for call in (
                lambda: server.put(f"honest/{number}", time.monotonic()),
                lambda: server.get("00000001"),
                lambda: level.sync(server),
            ):
                start = time.monotonic()
                try:
                    await asyncio.wait_for(call(), TIMEOUT)
                except (LevelError, TimeoutError, asyncio.TimeoutError) as error:
                    figures.failures.append(f"{type(error).__name__}: {error}")
                figures.latencies.append(time.monotonic() - start)
                await asyncio.sleep(INTERVAL)
