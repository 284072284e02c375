"""T8: a server, client processes, and a network with random faults between them.

    python -m tests.http.chaos --seconds 3600 --clients 8 --seed 1

Half-way through, the server is killed and started again. At the end the faults stop: within
seconds all clients must hold the same entries, and no write may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fault_proxy import FaultProxy, Faults
from server_process import ServerProcess
from waiting import until

#: Seconds to wait for convergence after the faults stop, generous enough for a loaded machine.
CONVERGENCE_TIMEOUT: Final = 60.0
#: Seconds that convergence may take in a run from the command line.
CONVERGENCE_TARGET: Final = 10.0


class ClientProcess:
    """A client in its own process: see ``client_process.py``."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name

    @classmethod
    async def start(cls, folder: Path, name: str, url: str, *arguments: str) -> ClientProcess:
        """Start the process."""
        script = str(Path(__file__).with_name("client_process.py"))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            script,
            str(folder / name),
            name,
            url,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        return cls(process, name)

    def proceed(self) -> None:
        """Let the client proceed to its next step."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def read_line(self) -> str:
        """Return the next line that the client prints."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def stop(self) -> None:
        """Wait until the process has exited; kill it after 10 seconds."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


@dataclass
class Outcome:
    """The final state of a run.

    Attributes:
        reports: The report of each client (see ``client_process.py``), by its name.
        seconds: Seconds from the end of the faults until no client had changes to push.
    """

    reports: dict[str, Any]
    seconds: float


async def run_chaos(
    folder: Path,
    server: ServerProcess,
    proxy: FaultProxy,
    url: str,
    *arguments: str,
    seconds: float,
    clients: int = 4,
    restart: bool = False,
) -> Outcome:
    """Let clients write and synchronise through the proxy, then stop the faults.

    Clients with an even number run live sessions, the others call ``sync()`` in a loop.

    Args:
        folder: The folder for the clients' stores.
        server: The server.
        proxy: The proxy in front of it.
        url: The URL of the database, through the proxy.
        *arguments: Further arguments of ``client_process.py``.
        seconds: Seconds for which the faults go on after the first one.
        clients: Number of clients.
        restart: True to kill the server half-way and start it again.
    """
    started = [
        await ClientProcess.start(folder, f"client{number}", url, "sync" if number % 2 else "live", *arguments)
        for number in range(clients)
    ]
    try:
        await until(lambda: proxy.counts)
        await asyncio.sleep(seconds / 2)
        if restart:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(seconds / 2)
        for client in started:
            client.proceed()
        healed = time.monotonic()
        await proxy.heal()
        lines = await asyncio.wait_for(asyncio.gather(*(client.read_line() for client in started)), CONVERGENCE_TIMEOUT)
        elapsed = time.monotonic() - healed
        assert lines == ["drained\n"] * clients
        for client in started:
            client.proceed()
        lines = await asyncio.wait_for(asyncio.gather(*(client.read_line() for client in started)), CONVERGENCE_TIMEOUT)
        names = [client.name for client in started]
        return Outcome(dict(zip(names, map(json.loads, lines), strict=True)), elapsed)
    finally:
        for client in started:
            await client.stop()


def violations(outcome: Outcome) -> list[str]:
    """Return descriptions of differences between clients and of lost writes."""
    found = []
    first, *_ = outcome.reports.values()
    for name, report in outcome.reports.items():
        if (report["cid"], report["entries"]) != (first["cid"], first["entries"]):
            found.append(f"{name} differs from the first client")
        own_entries = [entry for entry in report["entries"] if entry[0].startswith(f"{name}/")]
        if own_entries != report["written"]:
            found.append(f"{name} wrote {report['written']}, but holds {own_entries}")
        if any(key.startswith(f"{name}/") for key in report["conflicts"]):
            found.append(f"{name} has a conflict on a key that only it writes")
    return found


async def run(folder: Path, seconds: float, clients: int, seed: int) -> bool:
    """Run once, and print the outcome. Return True if there is no violation."""
    server = ServerProcess(folder / "stores")
    proxy = FaultProxy(server.port, Faults(), random.Random(seed))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        outcome = await run_chaos(folder, server, proxy, url, seconds=seconds, clients=clients, restart=True)
    finally:
        await proxy.close()
        server.stop()
    found = violations(outcome)
    if outcome.seconds > CONVERGENCE_TARGET:
        found.append(f"convergence took more than {CONVERGENCE_TARGET:.0f} s")
    (cid,) = {report["cid"] for report in outcome.reports.values()}
    print(f"seed {seed}: {clients} clients, {seconds:.0f} s, {cid} changes; faults: {dict(proxy.counts)}")
    print(f"converged {outcome.seconds:.1f} s after the faults stopped; " + ("; ".join(found) or "no violations"))
    return not found


def main() -> None:
    """Run with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="duration of the faults (default: 60)")
    parser.add_argument("--clients", type=int, default=8, help="number of clients; every other one is live")
    parser.add_argument("--seed", type=int, default=8, help="seed of the random faults")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not asyncio.run(run(Path(folder), arguments.seconds, arguments.clients, arguments.seed)))


if __name__ == "__main__":
    main()
