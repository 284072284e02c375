"""T13: many clients of one server, a process of its own. One in ten misbehaves, which is nobody else's business.

    python -m tests.http.many_clients --clients 200 --seconds 60

Honest clients put, and synchronise after each put, so many times a second altogether: what the server answers is on its
disk. Requests are counted by the server, in `treehub_level_http_requests_total` of the route of exchanges, whatever
became of them. Only honest clients use that route.
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

from treehub_level import Level
from treehub_level.http import RemoteServer

from .processes import ServerProcess

#: Keys that a client writes over and over.
OWN_KEYS = 10
#: Rows and bytes of what a client asks for and never reads: more than sockets hold.
ROWS, ROW_BYTES = 1000, 8000
#: Bytes that a client sends in one body, if it is let; a server takes half of that.
FLOOD = 32 << 20
PIECE = b"x" * (1 << 20)
#: Megabytes that the server may have more at rest than it had when everybody had come once …
GROWN = 32
#: … and for each that misbehaves: the largest body that is taken, since memory that was used is not always given back.
BODY = 16
#: Seconds between two things that one of them does, on average.
REST = 2
#: Exchanges for each put, at most.
REQUESTS = 1.1
#: Seconds within which 99 of 100 puts are on the server's disk, where that is judged.
P99 = 0.25
#: A server that hangs up soon on who reads nothing.
IMPATIENT = "from treehub_level.http.server.connections import TimedConnection as C; C.stall_seconds = 0.3; "
_REQUESTS = re.compile(r'^treehub_level_http_requests_total\{route="[^"]*/exchange",status="\d+"\} (\S+)$', re.M)


@dataclass(frozen=True)
class Crowd:
    """Who comes, and what for.

    Attributes:
        clients: How many there are; one in ten of them misbehaves.
        seconds: How long.
        rate: Puts a second, of all of them.
        seed: Decides when.
        prelude: Statements that the server's process runs first.
        greedy: Whether the honest ones pull before each push, as the seed has it.
        rest: Seconds between two things that a hostile one does, on average.
    """

    clients: int = 20
    seconds: float = 4
    rate: float = 40
    seed: int = 13
    prelude: str = IMPATIENT
    greedy: bool = False
    rest: float = REST

    @property
    def hostile(self) -> int:
        """How many misbehave."""
        return self.clients // 10


@dataclass
class Outcome:
    """What became of it.

    Attributes:
        requests: Exchanges that the server counted.
        latencies: Seconds that each put took to be on the server's disk.
        written: What each honest client wrote last, by key.
        stores: What each honest client has in the end.
        refused: For each kind of misbehaviour how often it was refused …
        tolerated: … and how often not.
        grown: Megabytes that the server has more at rest than after everybody had come once, where the system tells …
        allowed: … and how many are well.
    """

    allowed: float = GROWN
    requests: float = 0
    latencies: list[float] = field(default_factory=list)
    written: dict[str, Any] = field(default_factory=dict)
    stores: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    grown: float | None = None

    @property
    def p99(self) -> float:
        """Seconds within which 99 of 100 puts are on the server's disk."""
        return quantiles(self.latencies, n=100)[98]

    def faults(self) -> list[str]:
        """What is wrong with it, but for how long it took."""
        writes = len(self.latencies)
        wrong = [f"{kind} was let pass {count} times" for kind, count in self.tolerated.items()]
        wrong += [f"nobody came to {kind}" for kind in MISBEHAVIOUR if not self.refused[kind] + self.tolerated[kind]]
        if any(store != self.stores[0] for store in self.stores):
            wrong.append("clients differ")
        lost = [key for key, value in self.written.items() if self.stores[0].get(key) != value]
        if lost:
            wrong.append(f"{len(lost)} of {len(self.written)} keys are not as they were written, {lost[0]} among them")
        if self.requests > REQUESTS * writes:
            wrong.append(f"{self.requests:.0f} requests for {writes} writes")
        if self.grown is not None and self.grown > self.allowed:
            wrong.append(f"the server has grown by {self.grown:.0f} MB")
        return wrong

    def __str__(self) -> str:
        writes, grown = len(self.latencies), "?" if self.grown is None else f"{self.grown:.0f}"
        return (
            f"{writes} writes, {self.requests / writes:.2f} requests each; on disk within {self.p99 * 1000:.0f} ms "
            f"(99 of 100), {sorted(self.latencies)[writes // 2] * 1000:.0f} ms (half); the server has {grown} MB more; "
            f"refused: {dict(self.refused)}"
        )


async def come(crowd: Crowd, folder: Path) -> Outcome:
    """Let them all at a server over stores in this folder."""
    outcome = Outcome(allowed=GROWN + BODY * crowd.hostile)
    server = ServerProcess(folder, "--create", "large", prelude=crowd.prelude)
    try:
        async with _filled(server.beside("large")), _clients(server, crowd.clients - crowd.hostile) as clients:
            await asyncio.gather(
                *(misbehave(server, n, outcome) for n in range(crowd.hostile)),
                *(level.sync(remote) for level, remote in clients),
            )
            memory, requests = await _at_rest(server), await exchanges(server)

            until = monotonic() + crowd.seconds
            await asyncio.gather(
                *(misbehave(server, n, outcome, until, crowd.rest) for n in range(crowd.hostile)),
                *(write(crowd, number, *client, outcome, until) for number, client in enumerate(clients)),
            )
            outcome.requests = await exchanges(server) - requests
            after = await _at_rest(server)
            if memory is not None and after is not None:
                outcome.grown = after - memory
            for level, remote in clients:
                await level.sync(remote)
            outcome.stores = [dict(await level.query()) for level, _ in clients]
    finally:
        server.stop()
    return outcome


@asynccontextmanager
async def _filled(url: str) -> AsyncIterator[None]:
    """A database full of rows."""
    async with Level("rows", backend="memory", mode=Level.CLIENT) as level, RemoteServer(url) as remote:
        await level.load((f"row{n}", "x" * ROW_BYTES) for n in range(ROWS))
        await level.sync(remote)
    yield


@asynccontextmanager
async def _clients(server: ServerProcess, count: int) -> AsyncIterator[list[tuple[Level, RemoteServer]]]:
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            level = Level(f"client{number}", backend="memory", mode=Level.CLIENT)
            remote = await stack.enter_async_context(RemoteServer(server.url))
            clients.append((await stack.enter_async_context(level), remote))
        yield clients


async def _at_rest(server: ServerProcess) -> float | None:
    """The server's memory once it has let go of what it held for those who left."""
    await asyncio.sleep(0.5)
    return server.memory


async def exchanges(server: ServerProcess) -> float:
    """How many exchanges the server has counted."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{server.port}/metrics")).text
    return sum(map(float, _REQUESTS.findall(text)))


# ------------------------------------------------------------------------------------------------- the honest


async def write(crowd: Crowd, number: int, level: Level, remote: RemoteServer, outcome: Outcome, until: float) -> None:
    """Put, and synchronise after each put, at random times."""
    rng = random.Random(f"{crowd.seed} {number}")
    pause = 2 * (crowd.clients - crowd.hostile) / crowd.rate
    count = 0
    while True:
        await asyncio.sleep(pause * rng.random())
        if monotonic() > until:
            return
        count += 1
        key = f"client{number}/{rng.randrange(OWN_KEYS)}"
        await level.put(key, [number, count])
        outcome.written[key] = [number, count]
        start = monotonic()
        if crowd.greedy:
            await level.sync(remote, push=False)
        await level.sync(remote)
        outcome.latencies.append(monotonic() - start)


# ------------------------------------------------------------------------------------------------- misbehaviour


async def send_garbage(server: ServerProcess) -> bool:
    """Send what is no JSON, and what is no HTTP."""
    async with httpx.AsyncClient() as client:
        reply = await client.post(
            f"{server.url}/change", content=b"\xff{", headers={"content-type": "application/json"}
        )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01\x00\xf4" * 20 + b"\r\n\r\n")
    answer = await _read_all(reader)
    writer.close()
    return reply.status_code == 400 and (answer == b"" or answer.startswith(b"HTTP/1.1 400 "))


async def drop_in_the_middle(server: ServerProcess) -> bool:
    """Leave in the middle of a push: nothing of it may be there."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    whole = json.dumps({"cid": 0, "changes": [["half", 1]]}).encode()
    writer.write(_head(server, f"Content-Length: {len(whole)}") + whole[:-1])
    await writer.drain()
    writer.close()
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{server.url}/entries/half")).status_code == 404


async def never_read(server: ServerProcess) -> bool:
    """Ask for much and take nothing: whoever reads after all finds that the server hung up."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(peer, ("127.0.0.1", server.port))
        await loop.sock_sendall(peer, b"GET /v1/large/entries?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(1)
        received = 0
        with suppress(ConnectionError):
            while data := await asyncio.wait_for(loop.sock_recv(peer, 1 << 16), 10):
                received += len(data)
        return received < ROWS * ROW_BYTES


async def flood(server: ServerProcess) -> bool:
    """Send a body without end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = asyncio.ensure_future(_read_all(reader))
    with suppress(ConnectionError):
        writer.write(_head(server, "Transfer-Encoding: chunked"))
        for _ in range(FLOOD // len(PIECE)):
            if answer.done():
                break
            writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
            await writer.drain()
    refused = answer.done() or (await asyncio.wait({answer}, timeout=1))[0] != set()
    writer.close()
    said = await answer
    return refused and (said == b"" or said.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 503 ")))


def _head(server: ServerProcess, header: str) -> bytes:
    return (
        f"POST /v1/notes/change HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
        f"Content-Type: application/json\r\n{header}\r\n\r\n"
    ).encode()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the peer has said its first words, or hangs up."""
    with suppress(ConnectionError):
        return await reader.read(4096)
    return b""


MISBEHAVIOUR = {
    "garbage": send_garbage,
    "dropping": drop_in_the_middle,
    "not reading": never_read,
    "flooding": flood,
}
#: What each of them does in turn.
_TURNS = ["flooding", "garbage", "flooding", "dropping", "flooding", "not reading"]


async def misbehave(server: ServerProcess, number: int, outcome: Outcome, until: float = 0, rest: float = 0) -> None:
    """Do everything at least once, and again until it is over."""
    rng = random.Random(number)
    turns = _TURNS[number % len(_TURNS) :] + _TURNS[: number % len(_TURNS)]
    while True:
        for kind in turns:
            refused = await MISBEHAVIOUR[kind](server)
            (outcome.refused if refused else outcome.tolerated)[kind] += 1
            await asyncio.sleep(2 * rest * rng.random())
        if monotonic() > until:
            return


# ------------------------------------------------------------------------------------------------- by hand


def main() -> None:
    """Let them come as the command line says: what became of it, and whether that is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200, help="how many; one in ten misbehaves")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    parser.add_argument("--rate", type=float, default=60, help="puts a second, of all of them")
    parser.add_argument("--seed", type=int, default=13)
    crowd = Crowd(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(come(crowd, Path(folder)))
    print(
        f"{crowd.clients} clients, {crowd.hostile} of them hostile, {crowd.seconds:.0f} s, seed {crowd.seed}: {outcome}"
    )
    faults = outcome.faults()
    if outcome.p99 > P99:
        faults.append(f"99 of 100 puts took up to {outcome.p99 * 1000:.0f} ms, and should {P99 * 1000:.0f}")
    for fault in faults:
        print(f"  {fault}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
