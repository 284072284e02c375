"""Clients and a server across a network, which is loopback: the server is a process of its own."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any
from urllib.request import Request, urlopen

from treehub_level import Level

from ..records import make_records
from .common import Figures, Measure, NotInstalledError, Workload, engine_class, filled, fresh, new_level

try:
    from treehub_level.http import RemoteServer, Tokens, create_app  # noqa: F401  # the server's process takes the last
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

#: A client, and the server as it sees it.
_Client = tuple[Level, "RemoteServer"]

#: Clients that speak to the server at the same time, however many there are: it takes 64 writes at a time.
_AT_ONCE = 32
_REQUESTS = re.compile(
    r'^treehub_level_http_requests_total\{route="[^"]*/exchange",status="\d+"\} (\S+)$', re.MULTILINE
)


@asynccontextmanager
async def pull_http(records: int, engine: str) -> AsyncIterator[Measure]:
    """``sync()`` of an empty client with a server that has everything."""
    with filled(records, engine_class(engine), mode=Level.SERVER) as path, _serving(path) as address:

        async def measure() -> Figures:
            with new_level(engine, Level.CLIENT) as client:
                async with client, RemoteServer(f"{address}/v1/store") as server:
                    start = perf_counter()
                    report = await client.sync(server)
                    seconds = perf_counter() - start
            assert report.pulled == records
            return {"seconds": seconds}

        yield measure


def _clients(count: int, *, shared: bool = False) -> Workload:
    """So many clients that take turns to put one record and ``sync()``, until all records are on the server.

    Each has a token for keys of its own; or, if they are shared, for all keys. Then every write is delivered to every
    client, and that is what is measured: twice the clients are twice the work for each write. Clients that would write
    nothing are left out.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        with fresh() as file:
            tokens = Tokens(file)
            root = tokens.add(databases=["*"])
            own = [
                tokens.add(databases=["notes"], write=True, prefix="" if shared else f"{number}/")
                for number in range(min(count, records))
            ]

            async def measure() -> Figures:
                with fresh() as folder, _serving(folder, "--create", "notes", "--tokens", file) as address:
                    async with AsyncExitStack() as stack:
                        clients = [await stack.enter_async_context(_client(address, token)) for token in own]
                        for level, server in clients:
                            await level.sync(server)  # all are connected
                        before = _exchanges(address, root)
                        start = perf_counter()
                        await _write_in_turns(clients, list(make_records(records)))
                        seconds = perf_counter() - start
                        return {"seconds": seconds, "requests": (_exchanges(address, root) - before) / records}

            yield measure

    return workload


@asynccontextmanager
async def _client(address: str, token: str) -> AsyncIterator[_Client]:
    async with (
        Level(token, backend="memory", mode=Level.CLIENT) as level,
        RemoteServer(f"{address}/v1/notes", token=token) as server,
    ):
        yield level, server


async def _write_in_turns(clients: list[_Client], records: list[tuple[str, Any]]) -> None:
    turns = deque(enumerate(clients))
    shared = iter(records)

    async def write() -> None:
        for key, value in shared:
            number, (level, server) = turns.popleft()
            await level.put(f"{number}/{key}", value)
            await level.sync(server)
            turns.append((number, (level, server)))

    await asyncio.gather(*(write() for _ in range(min(_AT_ONCE, len(clients)))))


def _exchanges(address: str, token: str) -> float:
    """How many exchanges a server has counted, refused ones too."""
    with urlopen(Request(f"{address}/metrics", headers={"Authorization": f"Bearer {token}"})) as answer:
        return sum(map(float, _REQUESTS.findall(answer.read().decode())))


@contextmanager
def _serving(folder: str, *arguments: str) -> Iterator[str]:
    """``treehub-level serve`` over the stores of a folder: its address.

    Raises:
        NotInstalledError: It cannot run.
    """
    if _missing:
        raise NotInstalledError(_missing)
    command = [
        sys.executable,
        "-c",
        "from treehub_level.cli import main; main()",
        "serve",
        folder,
        "--port",
        "0",
        *arguments,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            address = re.search(r"http://\S+", process.stdout.readline())
            assert address is not None, "`treehub-level serve` did not start"
            yield address[0]
        finally:
            process.terminate()


WORKLOADS: dict[str, Workload] = {
    "pull_http": pull_http,
    "clients_10": _clients(10),
    "clients_100": _clients(100),
    "clients_1000": _clients(1000),
    "clients_10_shared": _clients(10, shared=True),
    "clients_100_shared": _clients(100, shared=True),
    "clients_1000_shared": _clients(1000, shared=True),
}
