"""A server, clients in processes of their own, and a network between them that is as bad as it gets (T8).

    python -m tests.http.chaos --seconds 3600 --clients 8 --seed 1

The server is killed half-way. At the end the network is well again, and all must soon be equal, with nothing lost.
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

from waiting import until

from .fault_proxy import FaultProxy, Faults
from .processes import ServerProcess

#: Seconds in which all must be equal again once the network is well: on a machine that has other things to do.
PATIENCE: Final = 60.0
#: The same, where somebody looks at the figure.
HEALED: Final = 10.0


class ClientProcess:
    """A client in a process of its own: see ``client_process.py``."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name

    @classmethod
    async def start(cls, folder: Path, name: str, url: str, *arguments: str) -> ClientProcess:
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

    def tell(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def answer(self) -> str:
        """What it says."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def end(self) -> None:
        """Wait until it has ended; kill it if it does not by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


@dataclass
class Outcome:
    """What there is in the end.

    Attributes:
        reports: What each client says that it has, by its name.
        seconds: How long it took, once the network was well, until nobody had anything left to send.
    """

    reports: dict[str, Any]
    seconds: float


async def turmoil(
    folder: Path,
    server: ServerProcess,
    proxy: FaultProxy,
    url: str,
    *arguments: str,
    seconds: float,
    clients: int = 4,
    restart: bool = False,
) -> Outcome:
    """Let clients write and synchronise through the proxy, every other one live, then heal it.

    Args:
        folder: Where the clients' stores go.
        server: The server.
        proxy: What stands before it.
        url: The database's address, through the proxy.
        *arguments: Further ones of ``client_process.py``.
        seconds: How long the network is bad, once it was bad to somebody.
        clients: How many there are.
        restart: Whether the server is killed half-way, and started anew.
    """
    started = [
        await ClientProcess.start(folder, f"client{number}", url, "sync" if number % 2 else "live", *arguments)
        for number in range(clients)
    ]
    try:
        await until(lambda: proxy.happened)
        await asyncio.sleep(seconds / 2)
        if restart:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(seconds / 2)
        for client in started:
            client.tell()
        healed = time.monotonic()
        await proxy.heal()
        drained = await asyncio.wait_for(asyncio.gather(*(client.answer() for client in started)), PATIENCE)
        took = time.monotonic() - healed
        assert drained == ["drained\n"] * clients
        for client in started:
            client.tell()
        reports = await asyncio.wait_for(asyncio.gather(*(client.answer() for client in started)), PATIENCE)
        names = [client.name for client in started]
        return Outcome(dict(zip(names, map(json.loads, reports), strict=True)), took)
    finally:
        for client in started:
            await client.end()


def faults_in(outcome: Outcome) -> list[str]:
    """What is wrong with what the clients have in the end."""
    wrong = []
    first, *_ = outcome.reports.values()
    for name, report in outcome.reports.items():
        if (report["cid"], report["entries"]) != (first["cid"], first["entries"]):
            wrong.append(f"{name} differs from the first")
        own = [entry for entry in report["entries"] if entry[0].startswith(f"{name}/")]
        if own != report["written"]:
            wrong.append(f"{name} wrote {report['written']}, and there is {own}")
        if any(key.startswith(f"{name}/") for key in report["conflicts"]):
            wrong.append(f"{name} lost to itself")
    return wrong


async def run(folder: Path, seconds: float, clients: int, seed: int) -> bool:
    """One run, told on stdout; whether all went well."""
    server = ServerProcess(folder / "stores")
    proxy = FaultProxy(server.port, Faults(), random.Random(seed))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        outcome = await turmoil(folder, server, proxy, url, seconds=seconds, clients=clients, restart=True)
    finally:
        await proxy.close()
        server.stop()
    wrong = faults_in(outcome)
    if outcome.seconds > HEALED:
        wrong.append(f"it took more than {HEALED:.0f} s")
    (cid,) = {report["cid"] for report in outcome.reports.values()}
    print(f"seed {seed}: {clients} clients, {seconds:.0f} s, {cid} changes; {dict(proxy.happened)}")
    print(f"equal {outcome.seconds:.1f} s after the network was well; " + ("; ".join(wrong) or "nothing is wrong"))
    return not wrong


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long the network is bad")
    parser.add_argument("--clients", type=int, default=8, help="how many there are; every other one is live")
    parser.add_argument("--seed", type=int, default=8, help="decides on the faults")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not asyncio.run(run(Path(folder), arguments.seconds, arguments.clients, arguments.seed)))


if __name__ == "__main__":
    main()
