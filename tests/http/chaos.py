"""T8: a server, client processes, and a network with random faults between them.

    python -m tests.http.chaos --seconds 3600 --clients 8 --seed 1

The server has a rule that refuses some changes. All clients but the first follow other ranges all
the time. Half-way through, the server is killed and started again, and the token of the last client
is replaced by one for its own keys only. At the end the faults stop: within seconds all clients
must hold the same entries of their ranges, and no write may be lost.
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
from refusing import pair_violations
from server_process import ServerProcess
from waiting import until

from treehub_level.http import Tokens

#: Seconds to wait for convergence after the faults stop, generous enough for a loaded machine.
CONVERGENCE_TIMEOUT: Final = 60.0
#: Seconds that convergence may take in a run from the command line.
CONVERGENCE_TARGET: Final = 10.0


def start_server(folder: Path, *arguments: str, prelude: str = "") -> ServerProcess:
    """Start a server with the rule of ``refusing.py``. The other arguments: see `ServerProcess`."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
    return ServerProcess(folder / "stores", "--check", "refusing:check", *arguments, prelude=path + prelude)


class ClientTokens:
    """The tokens of the clients: for all keys first, and later for fewer.

    Args:
        folder: The folder of the token files: that of the server, and one of each client.
        clients: The number of clients.
    """

    def __init__(self, folder: Path, clients: int) -> None:
        self._folder = folder
        self.path = folder / "tokens"
        self._tokens = Tokens(self.path)
        self._ids: dict[str, str] = {}
        for number in range(clients):
            self._give(f"client{number}", "")

    def file_of(self, name: str) -> Path:
        """Return the token file of a client."""
        return self._folder / f"{name}.token"

    def narrow(self, name: str) -> None:
        """Replace the token of a client by one for its own keys only."""
        before = self._ids[name]
        self._give(name, f"{name}/")
        self._tokens.revoke(before)

    def _give(self, name: str, prefix: str) -> None:
        token = self._tokens.add(databases=["notes"], write=True, name=name, prefix=prefix)
        self._ids[name] = token.partition(".")[0]
        scratch = self._folder / "token"
        scratch.write_text(token, encoding="ascii")
        scratch.replace(self.file_of(name))


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
        visible: The prefix of the keys that a client may see, if not all.
    """

    reports: dict[str, Any]
    seconds: float
    visible: dict[str, str]


async def run_chaos(
    folder: Path,
    server: ServerProcess,
    proxy: FaultProxy,
    url: str,
    *arguments: str,
    seconds: float,
    clients: int = 4,
    restart: bool = False,
    tokens: ClientTokens | None = None,
) -> Outcome:
    """Let clients write and synchronise through the proxy, then stop the faults.

    Clients with an even number run live sessions, the others call ``sync()`` in a loop. The first
    client follows all keys.

    Args:
        folder: The folder for the clients' stores.
        server: The server.
        proxy: The proxy in front of it.
        url: The URL of the database, through the proxy.
        *arguments: Further arguments of ``client_process.py``.
        seconds: Seconds for which the faults go on after the first one.
        clients: Number of clients.
        restart: True to kill the server half-way and start it again.
        tokens: The tokens of the clients, if the server requires any: half-way, that of the last
            client is narrowed.
    """
    last = f"client{clients - 1}"
    started = []
    for number in range(clients):
        name = f"client{number}"
        options = [] if number else ["--all"]
        if tokens is not None:
            options += ["--token-file", str(tokens.file_of(name))]
            if name == last:  # the ranges in which it may see a key
                options += ["--ranges", f",client,{name}/l"]
        style = "sync" if number % 2 else "live"
        started.append(await ClientProcess.start(folder, name, url, style, *options, *arguments))
    try:
        await until(lambda: proxy.counts)
        await asyncio.sleep(seconds / 2)
        if restart:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
        if tokens is not None:
            tokens.narrow(last)
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
        reports = dict(zip(names, map(json.loads, lines), strict=True))
        return Outcome(reports, elapsed, {} if tokens is None else {last: f"{last}/"})
    finally:
        for client in started:
            await client.stop()


def violations(outcome: Outcome) -> list[str]:
    """Return descriptions of differences between clients, of lost writes and of torn batches."""
    found = []
    first, *_ = outcome.reports.values()
    for name, report in outcome.reports.items():
        followed, visible = tuple(report["followed"]), outcome.visible.get(name, "")
        expected = [entry for entry in first["entries"] if entry[0].startswith(followed)]
        ours, theirs = (
            [entry for entry in entries if entry[0].startswith(visible)] for entries in (report["entries"], expected)
        )
        if (report["cid"], ours) != (first["cid"], theirs):
            found.append(f"{name} differs from the first client")
        own_entries = [entry for entry in report["entries"] if entry[0].startswith(f"{name}/")]
        if own_entries != report["written"]:
            found.append(f"{name} wrote {report['written']}, but holds {own_entries}")
        if any(key.startswith(f"{name}/") for key in [*report["conflicts"], *report["refused"]]):
            found.append(f"{name} has a conflict on a key that only it writes")
        present = {key for key, _ in [*report["entries"], *first["entries"]]}
        found += pair_violations(name, report["pairs"], {*report["refused"]}, present)
        found += [f"{name} has seen a torn batch: {torn}" for torn in report["torn"]]
    return found


async def run(folder: Path, seconds: float, clients: int, seed: int) -> bool:
    """Run once, and print the outcome. Return True if there is no violation."""
    tokens = ClientTokens(folder, clients)
    server = start_server(folder, "--tokens", str(tokens.path))
    proxy = FaultProxy(server.port, Faults(), random.Random(seed))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        outcome = await run_chaos(
            folder, server, proxy, url, seconds=seconds, clients=clients, restart=True, tokens=tokens
        )
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
