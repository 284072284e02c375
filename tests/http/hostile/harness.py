"""Measures the cost of a hostile load for the honest clients and the server."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from certificates import make_certificate
from server_process import ServerProcess

from treehub_level import Level, LevelError
from treehub_level.blocking import Level as BlockingLevel
from treehub_level.http import RemoteServer, Tokens

from .attacks import Attack, attack

#: Seconds between two requests of an honest client, and between two samples of the memory.
INTERVAL = 0.05

#: Seconds after which an honest request counts as failed.
TIMEOUT = 10.0

#: The same for the control, which ends with the first bound that is broken.
CONTROL_TIMEOUT = 3.0

#: The longest duration of the control, in seconds.
CONTROL_SECONDS = 30.0


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
        seconds: The duration of the attack. The control lasts until a bound is broken.
        defended: False to remove the defence from the server (the control).
    """
    bounds = attack(name)
    seconds = seconds if defended else max(seconds, bounds.control_seconds)
    tokens = Tokens(folder / "tokens")
    others = [f"other-{number}" for number in range(bounds.databases)]
    hostile = tokens.add(databases=["notes", *others], write=bounds.write, name="hostile")
    writer = tokens.add(databases=["*"], write=True, name="honest")
    stores = folder / "stores"
    stores.mkdir()
    with BlockingLevel(str(stores / "notes"), mode=BlockingLevel.SERVER) as level:
        level.load((f"{number:08}", "x" * bounds.record_bytes) for number in range(bounds.seed))
    for other in others:
        with BlockingLevel(str(stores / other), mode=BlockingLevel.SERVER):
            pass
    arguments = ["--tokens", str(folder / "tokens"), *bounds.arguments]
    context = None
    if bounds.tls:
        files = make_certificate(folder)
        arguments += files.options
        context = files.trusting()
    timeout = TIMEOUT if defended else CONTROL_TIMEOUT
    server = ServerProcess(stores, *arguments, prelude="" if defended else bounds.control)
    figures, stopped = Figures(), asyncio.Event()
    try:
        clients = [_honest(server.url, writer, number, context, timeout, figures, stopped) for number in range(3)]
        honest = asyncio.gather(*clients, _supervise(server.port, context, timeout, figures, stopped))
        while len(figures.latencies) < 4 * len(clients):  # noqa: ASYNC110  # no event reports this
            await asyncio.sleep(INTERVAL)
        rest = server.memory or 0.0
        command = [sys.executable, "-m", "tests.http.hostile.attacker", name, str(server.port), hostile]
        process = await asyncio.to_thread(subprocess.Popen, command)
        end = time.monotonic() + (seconds if defended else CONTROL_SECONDS)
        figures.memory = (rest, rest)
        try:
            while time.monotonic() < end and (defended or not figures.violations(bounds)):
                await asyncio.sleep(INTERVAL)
                figures.memory = (rest, max(figures.memory[1], server.memory or 0.0))
            if process.poll() is not None:
                figures.failures.append(f"the attack ended by itself, with exit code {process.returncode}")
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
            stopped.set()
            await honest
    finally:
        await asyncio.to_thread(server.kill)
    return figures


async def _honest(
    url: str,
    token: str,
    number: int,
    context: ssl.SSLContext | None,
    timeout: float,
    figures: Figures,
    stopped: asyncio.Event,
) -> None:
    """Write, read and synchronise as ordinary applications do, and record each duration."""
    level = Level(f"honest-{number}", backend="memory", mode=Level.CLIENT)
    async with level, RemoteServer(url, token=token, timeout=timeout, ssl_context=context) as server:
        while not stopped.is_set():
            for call in (
                lambda: server.put(f"honest/{number}", time.monotonic()),
                lambda: server.get("00000001"),
                lambda: level.sync(server),
            ):
                start = time.monotonic()
                try:
                    await asyncio.wait_for(call(), timeout)
                except (LevelError, TimeoutError, asyncio.TimeoutError) as error:
                    figures.failures.append(f"{type(error).__name__}: {error}")
                figures.latencies.append(time.monotonic() - start)
                await asyncio.sleep(INTERVAL)


async def _supervise(
    port: int, context: ssl.SSLContext | None, timeout: float, figures: Figures, stopped: asyncio.Event
) -> None:
    """Ask for the health on a new connection each time, as a supervisor does."""
    while not stopped.is_set():
        start = time.monotonic()
        try:
            answer = await asyncio.wait_for(_health(port, context), timeout)
            if not answer.startswith(b"HTTP/1.1 200 "):
                figures.failures.append(f"/healthz: {answer[:80]!r}")
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            figures.failures.append(f"/healthz: {type(error).__name__}: {error}")
        figures.latencies.append(time.monotonic() - start)
        await asyncio.sleep(INTERVAL)


async def _health(port: int, context: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return await reader.read(1000)
    finally:
        writer.close()
