"""T13: many clients of one server, a process of its own. One in ten misbehaves, which is nobody else's business.

Requests are counted by the server: `treehub_level_http_requests_total` of the route of exchanges, whatever became of
them. Only honest clients use that route.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from treehub_level import Level
from treehub_level.http import RemoteServer

from .processes import ServerProcess

pytestmark = pytest.mark.once

HONEST = 18
ROUNDS = 5
#: Puts between two times that a client synchronises.
BURST = 4
#: Rows and bytes of what a client asks for and never reads: more than sockets hold.
ROWS, ROW_BYTES = 1000, 8000
#: Bytes that a client sends in one body, if it is let; a server takes half of that.
FLOOD = 32 << 20
PIECE = b"x" * (1 << 20)
#: Megabytes that the server may grow by: two bodies of the largest size, pages for each client, LevelDB's buffers.
GROWN = 250
#: A server that hangs up after a second on who reads nothing.
IMPATIENT = "from treehub_level.http.connections import TimedConnection as C; C.stall_seconds = 1; "
#: One that takes bodies of any size, too.
BOUNDLESS = (
    IMPATIENT + "from treehub_level.http.limits import Limits; Limits.__init__.__kwdefaults__['body_bytes'] = 1 << 40; "
)
_REQUESTS = re.compile(r'^treehub_level_http_requests_total\{route="[^"]*/exchange",status="\d+"\} (\S+)$', re.M)

Sync = Callable[[Level, RemoteServer], Awaitable[object]]


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        writes: Puts of the honest clients.
        requests: Exchanges that the server counted.
        stores: What each honest client has in the end.
        refused: For each kind of misbehaviour how often it was refused …
        tolerated: … and how often not.
        grown: Megabytes that the server has grown by, where the system tells.
    """

    writes: int = 0
    requests: float = 0
    stores: list[Any] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    grown: float | None = None

    def faults(self) -> list[str]:
        """What is wrong with it."""
        wrong = [f"{kind} was let pass {count} times" for kind, count in self.tolerated.items()]
        wrong += [f"nobody came to {kind}" for kind in MISBEHAVIOUR if not self.refused[kind] + self.tolerated[kind]]
        if any(store != self.stores[0] for store in self.stores):
            wrong.append("clients differ")
        if len(self.stores[0]) != self.writes + ROWS:
            wrong.append(f"{self.writes + ROWS} keys were written, and there are {len(self.stores[0])}")
        if self.requests > 1.1 * self.writes:
            wrong.append(f"{self.requests:.0f} requests for {self.writes} writes")
        if self.grown is not None and self.grown > GROWN:
            wrong.append(f"the server has grown by {self.grown:.0f} MB")
        return wrong


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
        await loop.sock_sendall(
            peer, b"GET /v1/notes/entries?limit=1000&prefix=row HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        await asyncio.sleep(2)
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
    return refused and (said == b"" or said.startswith(b"HTTP/1.1 413 "))


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


async def misbehave(server: ServerProcess, kinds: list[str], outcome: Outcome, over: asyncio.Event) -> None:
    """Do each of these things at least once, and again until it is over."""
    while True:
        for kind in kinds:
            refused = await MISBEHAVIOUR[kind](server)
            (outcome.refused if refused else outcome.tolerated)[kind] += 1
        if over.is_set():
            return


# ------------------------------------------------------------------------------------------------- the honest


async def write(level: Level, remote: RemoteServer, name: str, sync: Sync, outcome: Outcome) -> None:
    """Put in bursts, and synchronise after each."""
    for number in range(ROUNDS):
        for each in range(BURST):
            await level.put(f"{name}/{number}/{each}", [name, number, each])
            outcome.writes += 1
            if sync is seed_like:
                await sync(level, remote)
        await sync(level, remote)


async def once_a_burst(level: Level, remote: RemoteServer) -> None:
    """Push and pull in one."""
    await level.sync(remote)


async def seed_like(level: Level, remote: RemoteServer) -> None:
    """Pull first, then push, after each single put."""
    await level.sync(remote, push=False)
    await level.sync(remote)


async def crowd(folder: Path, *, prelude: str = IMPATIENT, sync: Sync = once_a_burst) -> Outcome:
    """Let them all at the server: what became of it."""
    outcome = Outcome()
    server = ServerProcess(folder / "stores", prelude=prelude)
    try:
        async with AsyncExitStack() as stack:
            clients = []
            for number in range(HONEST):
                level = Level(f"client{number}", backend="memory", mode=Level.CLIENT)
                remote = await stack.enter_async_context(RemoteServer(server.url))
                clients.append((await stack.enter_async_context(level), remote))
            first, remote = clients[0]
            await first.batch([{"type": "put", "key": f"row{n}", "value": "x" * ROW_BYTES} for n in range(ROWS)])
            await first.sync(remote)
            memory, requests = server.memory, await exchanges(server)

            over = asyncio.Event()
            hostile = [
                asyncio.create_task(misbehave(server, kinds, outcome, over))
                for kinds in (["garbage", "not reading"], ["dropping", "flooding"])
            ]
            await asyncio.gather(
                *(write(level, remote, f"client{n}", sync, outcome) for n, (level, remote) in enumerate(clients))
            )
            over.set()
            await asyncio.gather(*hostile)
            for level, remote in clients:
                await level.sync(remote)
            outcome.requests = await exchanges(server) - requests
            if memory is not None and server.memory is not None:
                outcome.grown = server.memory - memory
            outcome.stores = [await level.query() for level, _ in clients]
    finally:
        server.stop()
    return outcome


async def exchanges(server: ServerProcess) -> float:
    """How many exchanges the server has counted."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{server.port}/metrics")).text
    return sum(map(float, _REQUESTS.findall(text)))


# ------------------------------------------------------------------------------------------------- the tests


async def test_honest_clients_get_along_among_some_that_misbehave(tmp_path: Path) -> None:
    outcome = await crowd(tmp_path)
    assert outcome.faults() == []
    assert outcome.requests >= HONEST * (ROUNDS + 1)


async def test_clients_that_pull_before_each_push_are_found_out(tmp_path: Path) -> None:
    outcome = await crowd(tmp_path, sync=seed_like)
    assert any("requests for" in fault for fault in outcome.faults())


async def test_a_server_without_a_limit_of_bodies_is_found_out(tmp_path: Path) -> None:
    outcome = await crowd(tmp_path, prelude=BOUNDLESS)
    assert any("flooding was let pass" in fault for fault in outcome.faults())


def test_clients_that_differ_are_found_out() -> None:
    assert "clients differ" in Outcome(stores=[[("a", 1)], []]).faults()
