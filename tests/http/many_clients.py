"""T13: one server with many clients, of which one in ten misbehaves.

    python -m tests.http.many_clients --clients 200 --seconds 60

Honest clients put, and synchronise after each put, at a given total rate. They must converge, lose
no write, and not be slowed down by the hostile clients. The server counts the exchanges, in
`treehub_level_http_requests_total`; only honest clients exchange.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import Any

import httpx
from server_process import ServerProcess

from treehub_level import Level
from treehub_level.http import RemoteServer

#: Keys that each honest client writes, again and again.
KEYS_PER_CLIENT = 10
#: Rows, and bytes of each, in the response that a hostile client never reads: more than the socket
#: buffers hold.
ROWS, ROW_BYTES = 1000, 8000
#: Bytes of the body that a flooding client sends: twice the server's limit.
FLOOD_BYTES = 32 << 20
FLOOD_CHUNK = b"x" * (1 << 20)
#: Maximum growth of the idle server's memory during the run, in MiB …
MAX_GROWTH = 32
#: … plus this for each hostile client: the maximum request body, because the allocator does not
#: return all freed memory to the system.
MAX_GROWTH_PER_HOSTILE = 16
#: Average seconds between two actions of a hostile client.
PAUSE = 2
#: Maximum exchanges per put.
MAX_REQUESTS_PER_PUT = 1.1
#: Maximum 99th percentile of the latency of a put, in seconds. Only the command line checks it.
MAX_P99 = 0.25
#: The prelude of a server that soon disconnects clients that do not read.
SHORT_STALL = "from treehub_level.http.server.connections import TimedConnection as C; C.stall_seconds = 0.3; "
_EXCHANGES = re.compile(r'^treehub_level_http_requests_total\{route="[^"]*/exchange",status="\d+"\} (\S+)$', re.M)


@dataclass(frozen=True)
class Load:
    """The load on the server.

    Attributes:
        clients: Number of clients; one in ten of them is hostile.
        seconds: Duration.
        rate: Puts per second of all honest clients together.
        seed: Seed of the random times.
        prelude: Statements that the server's process runs first.
        pull_first: True if honest clients pull before each push, which needs twice the requests.
        pause: Average seconds between two actions of a hostile client.
    """

    clients: int = 20
    seconds: float = 4
    rate: float = 40
    seed: int = 13
    prelude: str = SHORT_STALL
    pull_first: bool = False
    pause: float = PAUSE

    @property
    def hostile(self) -> int:
        """The number of hostile clients."""
        return self.clients // 10


@dataclass
class Outcome:
    """The measurements of a run.

    Attributes:
        requests: Exchanges that the server counted.
        latencies: Seconds from each put until it was on the server's disk.
        written: The last value of each key that an honest client wrote.
        stores: The entries of each honest client at the end.
        refused: The number of refused actions, for each kind of misbehaviour.
        tolerated: The number of actions that the server did not refuse, for each kind.
        growth: Growth of the idle server's memory in MiB; ``None`` if the system does not tell.
        max_growth: Maximum of `growth`.
    """

    max_growth: float = MAX_GROWTH
    requests: float = 0
    latencies: list[float] = field(default_factory=list)
    written: dict[str, Any] = field(default_factory=dict)
    stores: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    growth: float | None = None

    @property
    def p99(self) -> float:
        """The 99th percentile of `latencies`, in seconds."""
        return quantiles(self.latencies, n=100)[98]

    def violations(self) -> list[str]:
        """Return descriptions of everything that is wrong, except the latency."""
        writes = len(self.latencies)
        found = [f"{kind} was tolerated {count} times" for kind, count in self.tolerated.items()]
        found += [f"{kind} did not occur" for kind in MISBEHAVIOUR if not self.refused[kind] + self.tolerated[kind]]
        if any(store != self.stores[0] for store in self.stores):
            found.append("clients differ")
        lost = [key for key, value in self.written.items() if self.stores[0].get(key) != value]
        if lost:
            found.append(f"{len(lost)} of {len(self.written)} keys lack their last value, for example {lost[0]}")
        if self.requests > MAX_REQUESTS_PER_PUT * writes:
            found.append(f"{self.requests:.0f} requests for {writes} writes")
        if self.growth is not None and self.growth > self.max_growth:
            found.append(f"the server's memory grew by {self.growth:.0f} MiB")
        return found

    def __str__(self) -> str:
        writes, growth = len(self.latencies), "?" if self.growth is None else f"{self.growth:.0f}"
        return (
            f"{writes} writes, {self.requests / writes:.2f} requests each; latency p50 "
            f"{sorted(self.latencies)[writes // 2] * 1000:.0f} ms, p99 {self.p99 * 1000:.0f} ms; "
            f"memory grew by {growth} MiB; refused: {dict(self.refused)}"
        )


async def apply(load: Load, folder: Path) -> Outcome:
    """Apply a load to a server over stores in ``folder``, and return the measurements."""
    outcome = Outcome(max_growth=MAX_GROWTH + MAX_GROWTH_PER_HOSTILE * load.hostile)
    server = ServerProcess(folder, "--create", "large", prelude=load.prelude)
    try:
        await _fill(server.url_of("large"))
        async with _clients(server, load.clients - load.hostile) as clients:
            # Warm up, so that the measured growth excludes memory that is allocated once.
            await asyncio.gather(
                *(misbehave(server, n, outcome) for n in range(load.hostile)),
                *(level.sync(remote) for level, remote in clients),
            )
            memory, requests = await _idle_memory(server), await exchanges(server)

            deadline = monotonic() + load.seconds
            await asyncio.gather(
                *(misbehave(server, n, outcome, deadline, load.pause) for n in range(load.hostile)),
                *(write(load, n, *client, outcome, deadline) for n, client in enumerate(clients)),
            )
            outcome.requests = await exchanges(server) - requests
            memory_after = await _idle_memory(server)
            if memory is not None and memory_after is not None:
                outcome.growth = memory_after - memory
            for level, remote in clients:
                await level.sync(remote)
            outcome.stores = [dict(await level.query()) for level, _ in clients]
    finally:
        server.stop()
    return outcome


async def _fill(url: str) -> None:
    """Fill a database with rows."""
    async with Level("rows", backend="memory", mode=Level.CLIENT) as level, RemoteServer(url) as remote:
        await level.load((f"row{n}", "x" * ROW_BYTES) for n in range(ROWS))
        await level.sync(remote)


@asynccontextmanager
async def _clients(server: ServerProcess, count: int) -> AsyncIterator[list[tuple[Level, RemoteServer]]]:
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            level = Level(f"client{number}", backend="memory", mode=Level.CLIENT)
            remote = await stack.enter_async_context(RemoteServer(server.url))
            clients.append((await stack.enter_async_context(level), remote))
        yield clients


async def _idle_memory(server: ServerProcess) -> float | None:
    """Return the server's memory after it has freed the memory of closed connections."""
    await asyncio.sleep(0.5)
    return server.memory


async def exchanges(server: ServerProcess) -> float:
    """Return the number of exchanges that the server has counted."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{server.port}/metrics")).text
    return sum(map(float, _EXCHANGES.findall(text)))


# --------------------------------------------------------------------------------- honest clients


async def write(load: Load, number: int, level: Level, remote: RemoteServer, outcome: Outcome, deadline: float) -> None:
    """Put, and synchronise after each put, at random times until the deadline."""
    rng = random.Random(f"{load.seed} {number}")
    max_pause = 2 * (load.clients - load.hostile) / load.rate
    count = 0
    while True:
        await asyncio.sleep(max_pause * rng.random())
        if monotonic() > deadline:
            return
        count += 1
        key = f"client{number}/{rng.randrange(KEYS_PER_CLIENT)}"
        await level.put(key, [number, count])
        outcome.written[key] = [number, count]
        start = monotonic()
        if load.pull_first:
            await level.sync(remote, push=False)
        await level.sync(remote)
        outcome.latencies.append(monotonic() - start)


# -------------------------------------------------------------------------------- hostile clients
# Each function returns True if the server refused the action properly.


async def send_garbage(server: ServerProcess) -> bool:
    """Send a body that is not JSON, and bytes that are not HTTP."""
    async with httpx.AsyncClient() as client:
        response = await client.post(
            f"{server.url}/change", content=b"\xff{", headers={"content-type": "application/json"}
        )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01\x00\xf4" * 20 + b"\r\n\r\n")
    raw_response = await _read_some(reader)
    writer.close()
    return response.status_code == 400 and (raw_response == b"" or raw_response.startswith(b"HTTP/1.1 400 "))


async def drop_connection(server: ServerProcess) -> bool:
    """Close the connection in the middle of a push, of which nothing must be written."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps({"cid": 0, "changes": [["half", 1]]}).encode()
    writer.write(_request_head(server, f"Content-Length: {len(body)}") + body[:-1])
    await writer.drain()
    writer.close()
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{server.url}/entries/half")).status_code == 404


async def never_read(server: ServerProcess) -> bool:
    """Request a large response and do not read it. The server must close the connection."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", server.port))
        await loop.sock_sendall(connection, b"GET /v1/large/entries?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(1)
        received = 0
        with suppress(ConnectionError):
            while data := await asyncio.wait_for(loop.sock_recv(connection, 1 << 16), 10):
                received += len(data)
        return received < ROWS * ROW_BYTES


async def flood(server: ServerProcess) -> bool:
    """Send a chunked body that exceeds the server's limit."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    response = asyncio.ensure_future(_read_some(reader))
    with suppress(ConnectionError):
        writer.write(_request_head(server, "Transfer-Encoding: chunked"))
        for _ in range(FLOOD_BYTES // len(FLOOD_CHUNK)):
            if response.done():
                break
            writer.write(b"%x\r\n%b\r\n" % (len(FLOOD_CHUNK), FLOOD_CHUNK))
            await writer.drain()
    is_refused = response.done() or (await asyncio.wait({response}, timeout=1))[0] != set()
    writer.close()
    raw_response = await response
    return is_refused and (raw_response == b"" or raw_response.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 503 ")))


def _request_head(server: ServerProcess, header: str) -> bytes:
    return (
        f"POST /v1/notes/change HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
        f"Content-Type: application/json\r\n{header}\r\n\r\n"
    ).encode()


async def _read_some(reader: asyncio.StreamReader) -> bytes:
    """Return the first bytes that the server sends; none if it closes the connection."""
    with suppress(ConnectionError):
        return await reader.read(4096)
    return b""


MISBEHAVIOUR = {
    "garbage": send_garbage,
    "dropping": drop_connection,
    "not reading": never_read,
    "flooding": flood,
}
#: The actions of a hostile client, in this order. Client ``n`` begins at position ``n``.
_ACTIONS = ["flooding", "garbage", "flooding", "dropping", "flooding", "not reading"]


async def misbehave(
    server: ServerProcess, number: int, outcome: Outcome, deadline: float = 0, pause: float = 0
) -> None:
    """Perform every action once, and repeat until the deadline."""
    rng = random.Random(number)
    start = number % len(_ACTIONS)
    while True:
        for kind in _ACTIONS[start:] + _ACTIONS[:start]:
            is_refused = await MISBEHAVIOUR[kind](server)
            (outcome.refused if is_refused else outcome.tolerated)[kind] += 1
            await asyncio.sleep(2 * pause * rng.random())
        if monotonic() > deadline:
            return


# ----------------------------------------------------------------------------------- command line


def main() -> None:
    """Run with the options of the command line, and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200, help="number of clients; one in ten is hostile")
    parser.add_argument("--seconds", type=float, default=60, help="duration")
    parser.add_argument("--rate", type=float, default=60, help="puts per second of all clients together")
    parser.add_argument("--seed", type=int, default=13, help="seed of the random times")
    load = Load(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(apply(load, Path(folder)))
    print(f"{load.clients} clients, {load.hostile} of them hostile, {load.seconds:.0f} s, seed {load.seed}: {outcome}")
    found = outcome.violations()
    if outcome.p99 > MAX_P99:
        found.append(f"the p99 latency is {outcome.p99 * 1000:.0f} ms, and the maximum {MAX_P99 * 1000:.0f} ms")
    for violation in found:
        print(f"  {violation}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
