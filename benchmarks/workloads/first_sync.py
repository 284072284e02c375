"""First syncs over HTTP on the loopback interface: a new client pulls the state, not the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import perf_counter
from typing import Any, Final

from treehub_level import Level, blocking

from ..records import make_records
from .common import Figures, Measure, NotInstalledError, Workload, engine_class, new_level, new_path
from .network import start_server

try:
    from treehub_level.http import RemoteServer
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

_Records = Iterable[tuple[str, Any]]

#: The versions of each record in a long log.
_VERSIONS: Final = 10
#: The ranges of a server, of which a client follows one.
_RANGES: Final = 100
#: The rows of a public report on slow first syncs (wger), and the bytes of all of them.
_WGER_ROWS: Final = 61_549
_WGER_BYTES: Final = 57_700_000
#: The bytes of a row of wger beside its text.
_WGER_REST: Final = 60


def _whole(versions: int) -> Workload:
    """Return the workload of a client that pulls all records.

    Args:
        versions: How often each record was written. The log holds every version.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        with _server(engine, [make_records(records) for _ in range(versions)]) as address:

            async def measure() -> Figures:
                seconds, filled = await _sync(address, engine)
                assert filled == records
                return {"seconds": seconds}

            yield measure

    return workload


def _range(*, follow: list[str] | None) -> Workload:
    """Return the workload of a client that pulls one of a hundred ranges, or all of them.

    Args:
        follow: The prefixes that the client follows; ``None`` for all keys.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        numbered = enumerate(make_records(records))
        with _server(engine, [((f"{n % _RANGES:02}/{key}", value) for n, (key, value) in numbered)]) as address:
            everything = await _bytes_received(address, engine, None)

            async def measure() -> Figures:
                seconds, _ = await _sync(address, engine, follow)
                received = await _bytes_received(address, engine, follow)
                return {"seconds": seconds, "of_all": 100 * received / everything}

            yield measure

    return workload


@asynccontextmanager
async def wger(records: int, engine: str) -> AsyncIterator[Measure]:
    """Pull the rows of the report, until the last one can be read. There are as many as it had."""
    rows = min(records, _WGER_ROWS)
    with _server(engine, [_wger_rows(rows)]) as address:

        async def measure() -> Figures:
            seconds, filled = await _sync(address, engine)
            assert filled == rows
            # The rate is per record of the run, whose number is another one.
            return {"seconds": seconds * records / rows, "until_readable": seconds}

        yield measure


def _wger_rows(count: int) -> Iterator[tuple[str, Any]]:
    text = "x" * (_WGER_BYTES // _WGER_ROWS - _WGER_REST)
    return ((f"exercise/{n:06d}", {"id": n, "name": f"exercise {n}", "text": text}) for n in range(count))


@contextmanager
def _server(engine: str, loads: Iterable[_Records]) -> Iterator[str]:
    """Run a server of a store after some loads, and yield its URL.

    Raises:
        NotInstalledError: A library is not installed.
    """
    if _missing:
        raise NotInstalledError(_missing)
    with new_path() as path:
        with blocking.Level(path, backend=engine_class(engine), mode=Level.SERVER) as level:
            for records in loads:
                level.load(records)
            level.compact_range()
        with start_server(path) as address:
            yield address


async def _sync(address: str, engine: str, follow: list[str] | None = None) -> tuple[float, int]:
    """Sync a new client. Return the seconds, and the number of entries that were filled."""
    with new_level(engine, Level.CLIENT, follow=follow) as client:
        async with client, RemoteServer(f"{address}/v1/store") as server:
            start = perf_counter()
            report = await client.sync(server)
            return perf_counter() - start, report.filled


async def _bytes_received(address: str, engine: str, follow: list[str] | None) -> int:
    """Sync a new client through a relay, and return the bytes that the client receives."""
    received = 0
    relays: list[asyncio.Task[Any]] = []
    host, _, port = address.removeprefix("http://").rpartition(":")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        nonlocal received
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                received += len(data) if counted else 0
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, int(port))
        relays.append(asyncio.create_task(pipe(reader, to_server, counted=False)))
        relays.append(asyncio.create_task(pipe(from_server, writer, counted=True)))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as listener:
        relay_port = listener.sockets[0].getsockname()[1]
        await _sync(f"http://127.0.0.1:{relay_port}", engine, follow)
        await asyncio.gather(*relays)
    return received


WORKLOADS: dict[str, Workload] = {
    "first_sync": _whole(1),
    "first_sync_long_log": _whole(_VERSIONS),
    "first_sync_range": _range(follow=["07/"]),
    "first_sync_all": _range(follow=None),
    "wger": wger,
}
