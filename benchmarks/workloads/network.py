"""Clients and a server across a network, which is loopback: the server is a process of its own."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from time import perf_counter
from urllib.request import urlopen

from treehub_level import Level

from ..records import make_records
from .common import Figures, Measure, NotInstalledError, Workload, batches, engine_class, filled, fresh, new_level

try:
    from treehub_level.http import RemoteServer
except ImportError:  # what each workload says once it is asked for
    RemoteServer = None  # type: ignore[assignment, misc]

#: Clients that speak to the server at the same time, however many there are: it takes 64 writes at a time.
_AT_ONCE = 32
_REQUESTS = re.compile(r'^treehub_level_http_requests_total\{route="[^"]*/exchange",status="\d+"\} (\S+)$', re.MULTILINE)


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


def _clients(count: int) -> Workload:
    """So many clients that take turns to put one record and ``sync()``, until all records are on the server."""

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        async def measure() -> Figures:
            prepared = list(make_records(records))
            async with AsyncExitStack() as stack:
                with fresh() as folder, _serving(folder, "--create", "notes") as address:
                    turns: asyncio.Queue[tuple[Level, RemoteServer]] = asyncio.Queue()
                    for number in range(count):
                        remote = await stack.enter_async_context(RemoteServer(f"{address}/v1/notes"))
                        level = Level(f"client{number}", backend="memory", mode=Level.CLIENT)
                        turns.put_nowait((await stack.enter_async_context(level), remote))
                    shared = iter(prepared)

                    async def write() -> None:
                        for key, value in shared:
                            level, remote = turns.get_nowait()
                            await level.put(key, value)
                            await level.sync(remote)
                            turns.put_nowait((level, remote))

                    start = perf_counter()
                    await asyncio.gather(*(write() for _ in range(min(_AT_ONCE, count))))
                    seconds = perf_counter() - start
                    return {"seconds": seconds, "requests": _exchanges(address) / records}

        yield measure

    return workload


def _exchanges(address: str) -> float:
    """How many exchanges a server has counted, refused ones too."""
    with urlopen(f"{address}/metrics") as answer:
        return sum(map(float, _REQUESTS.findall(answer.read().decode())))


@contextmanager
def _serving(folder: str, *arguments: str) -> Iterator[str]:
    """``treehub-level serve`` over the stores of a folder: its address."""
    command = [sys.executable, "-c", "from treehub_level.cli import main; main()", "serve", folder, "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            address = re.search(r"http://\S+", process.stdout.readline())
            if address is None:
                raise NotInstalledError("`treehub-level serve` does not start: pip install 'treehub-level[server,http]'")
            yield address[0]
        finally:
            process.terminate()


WORKLOADS: dict[str, Workload] = {
    "pull_http": pull_http,
    "clients_10": _clients(10),
    "clients_100": _clients(100),
    "clients_1000": _clients(1000),
}
