"""Clients and servers over HTTP on the loopback interface. Each server is a separate process."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from time import perf_counter
from typing import Any
from urllib.request import Request, urlopen

from treehub_level import Level

from ..records import make_records
from .common import Figures, Measure, NotInstalledError, Workload, database, engine_class, filled, new_level, new_path

try:
    from treehub_level.http import RemoteServer, Tokens, create_app  # noqa: F401  # create_app is for the server process
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

#: A client, and its connection to the server.
_Client = tuple[Level, "RemoteServer"]

#: The maximum number of clients that sync at the same time. The server accepts 64 writes at once.
_AT_ONCE = 32
_REQUESTS = re.compile(
    r'^treehub_level_http_requests_total\{route="[^"]*/exchange",status="\d+"\} (\S+)$', re.MULTILINE
)


@asynccontextmanager
async def pull_http(records: int, engine: str) -> AsyncIterator[Measure]:
    """Sync an empty client with a server that has all records."""
    with filled(records, engine_class(engine), mode=Level.SERVER) as path, start_server(path) as address:

        async def measure() -> Figures:
            with new_level(engine, Level.CLIENT) as client:
                async with client, RemoteServer(f"{address}/v1/store") as server:
                    start = perf_counter()
                    report = await client.sync(server)
                    seconds = perf_counter() - start
            assert report.pulled == records
            return {"seconds": seconds}

        yield measure


def _clients(
    count: int, serving: Callable[[str], AbstractContextManager[list[str]]], *, shared: bool = False
) -> Workload:
    """Return a workload of clients that take turns to put one record and ``sync()``.

    A client has a token for a prefix of its own, or for all keys if they are shared. Shared keys
    are delivered to every client, so the work per write grows with the number of clients.

    Args:
        count: The number of clients, at most one per record.
        serving: Starts servers of the database ``notes``, given the token file, and yields their
            URLs. Each server gets an equal part of the clients.
        shared: True if all clients share all keys.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        with new_path() as file:
            tokens = Tokens(file)
            root = tokens.add(databases=["*"])
            client_tokens = [
                tokens.add(databases=["notes"], write=True, prefix="" if shared else f"{number}/")
                for number in range(min(count, records))
            ]

            async def measure() -> Figures:
                with serving(file) as addresses:
                    async with AsyncExitStack() as stack:
                        clients = [
                            await stack.enter_async_context(_client(address, token))
                            for token, address in zip(client_tokens, cycle(addresses), strict=False)
                        ]
                        for level, server in clients:
                            await level.sync(server)  # connect all clients
                        before = _exchanges(addresses, root)
                        start = perf_counter()
                        await _write_in_turns(clients, list(make_records(records)))
                        seconds = perf_counter() - start
                        return {"seconds": seconds, "requests": (_exchanges(addresses, root) - before) / records}

            if engine:
                engine_class(engine)
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
    pending = iter(records)

    async def write() -> None:
        for key, value in pending:
            number, (level, server) = turns.popleft()
            await level.put(f"{number}/{key}", value)
            await level.sync(server)
            turns.append((number, (level, server)))

    await asyncio.gather(*(write() for _ in range(min(_AT_ONCE, len(clients)))))


def _exchanges(addresses: list[str], token: str) -> float:
    """Return the number of exchanges that the servers have counted, including refused ones."""
    count = 0.0
    for address in addresses:
        with urlopen(Request(f"{address}/metrics", headers={"Authorization": f"Bearer {token}"})) as response:
            count += sum(map(float, _REQUESTS.findall(response.read().decode())))
    return count


@contextmanager
def _one_server(tokens: str) -> Iterator[list[str]]:
    """Run a server over LevelDB."""
    with new_path() as folder, start_server(folder, "--create", "notes", "--tokens", tokens) as address:
        yield [address]


def _replicas(count: int) -> Callable[[str], AbstractContextManager[list[str]]]:
    """Return a function that runs ``count`` servers over one PostgreSQL database."""

    @contextmanager
    def serving(tokens: str) -> Iterator[list[str]]:
        with database() as url, ExitStack() as stack:
            arguments = ["--backend", "postgres", "--create", "notes", "--tokens", tokens]
            yield [stack.enter_context(start_server(url, *arguments)) for _ in range(count)]

    return serving


@contextmanager
def start_server(root: str, *arguments: str) -> Iterator[str]:
    """Run ``treehub-level serve`` for a folder or a database, and yield its URL.

    Raises:
        NotInstalledError: A library of the server or the client is not installed.
    """
    if _missing:
        raise NotInstalledError(_missing)
    command = [
        sys.executable,
        "-c",
        "from treehub_level.cli import main; main()",
        "serve",
        root,
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
    "clients_10": _clients(10, _one_server),
    "clients_100": _clients(100, _one_server),
    "clients_1000": _clients(1000, _one_server),
    "clients_10_shared": _clients(10, _one_server, shared=True),
    "clients_100_shared": _clients(100, _one_server, shared=True),
    "clients_1000_shared": _clients(1000, _one_server, shared=True),
    "clients_1_replica": _clients(100, _replicas(1)),
    "clients_3_replicas": _clients(100, _replicas(3)),
}
