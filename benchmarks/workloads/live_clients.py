"""Live clients that follow a range each, and wait for its changes. One process has all of them.

A client is a connection with a long poll, without a store: ten thousand stores would measure the
clients instead of the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median
from time import perf_counter
from typing import Any, Final

from .common import Figures, Measure, NotInstalledError, Workload, new_path
from .network import start_server

try:
    from treehub_level.http import Tokens
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

#: The most requests of one token at a time: the server accepts 1000.
_CLIENTS_OF_A_TOKEN: Final = 900
#: Connections that are opened at a time.
_AT_ONCE: Final = 100
#: Open files besides one for each client.
_OTHER_FILES: Final = 200
#: Seconds of a long poll.
_WAIT: Final = 60


class _Waiter:
    """A client without a store: a connection with a long poll for the changes of one range."""

    def __init__(self, number: int, address: str, token: str) -> None:
        self.prefix = f"{number}/"
        self.key = f"{number}/place"
        self._client = f"{number:032x}"
        self._address = address
        self._token = token
        self._cid = 0
        self._epochs: list[Any] = []
        self.woken = asyncio.Event()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Open the connection, and pull."""
        host, _, port = self._address.removeprefix("http://").rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        await self._exchange(0)

    async def follow(self) -> None:
        """Send one long poll after another until the task is cancelled."""
        while True:
            if await self._exchange(_WAIT):
                self.woken.set()

    async def put(self, key: str, value: Any) -> None:
        """Store a value."""
        await self._request("PUT", f"/v1/notes/entries/{key}", value)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _exchange(self, wait: int) -> int:
        """Pull, and return the number of changes."""
        request = {
            "protocol": 2,
            "server": None,
            "client": self._client,
            "cid": self._cid,
            "hi": self._cid,
            "epochs": self._epochs,
            "nonce": self._client,
            "seq": 1,
            "push": None,
            "changes": [],
            "limit": 1000,
            "complete": [self.prefix],
            "partial": [],
            "fill": None,
        }
        page = json.loads(await self._request("POST", f"/v1/notes/exchange?wait={wait}", request))
        self._cid = page["cid"]
        self._epochs += [epoch for epoch in page["epochs"] if epoch not in self._epochs]
        return len(page["page"])

    async def _request(self, method: str, path: str, content: Any) -> bytes:
        body = json.dumps(content).encode()
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert head.startswith(b"HTTP/1.1 20"), head
        return await self._reader.readexactly(int(length[1])) if length else b""


def _waking(count: int) -> Workload:
    """Return a workload that writes to one of ``count`` live clients at a time.

    Each write waits until its client has received it, so the rate is that of single deliveries.
    """

    @asynccontextmanager
    async def workload(records: int, engine: str) -> AsyncIterator[Measure]:
        if _missing:
            raise NotInstalledError(_missing)
        clients = min(count, records * 5)
        _raise_file_limit(2 * clients + _OTHER_FILES)
        with new_path() as file, new_path() as folder:
            tokens = Tokens(file)
            root = tokens.add(databases=["*"], write=True)
            made = [tokens.add(databases=["notes"]) for _ in range(clients // _CLIENTS_OF_A_TOKEN + 1)]
            limit = str(clients + 100)
            options = ["--create", "notes", "--tokens", file, "--max-connections", limit, "--max-per-address", limit]
            with start_server(folder, *options) as address:
                async with _live(address, made, clients) as waiters:
                    writer = _Waiter(clients, address, root)
                    await writer.connect()
                    yield lambda: _deliver(writer, waiters, records)
                    writer.close()

    return workload


@asynccontextmanager
async def _live(address: str, tokens: list[str], count: int) -> AsyncIterator[list[_Waiter]]:
    """Connect clients, and let them wait, for the length of the block."""
    waiters = [_Waiter(number, address, tokens[number // _CLIENTS_OF_A_TOKEN]) for number in range(count)]
    for start in range(0, count, _AT_ONCE):
        await asyncio.gather(*(waiter.connect() for waiter in waiters[start : start + _AT_ONCE]))
    tasks = [asyncio.create_task(waiter.follow()) for waiter in waiters]
    try:
        yield waiters
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiter in waiters:
            waiter.close()


async def _deliver(writer: _Waiter, waiters: list[_Waiter], records: int) -> Figures:
    """Write to one client at a time, and wait until it has the change."""
    for waiter in waiters[:: max(1, len(waiters) // 20)]:
        await _time_to(writer, waiter)  # they all wait by now
    seconds = [await _time_to(writer, waiters[number * 7919 % len(waiters)]) for number in range(records)]
    return {"seconds": sum(seconds), "median": 1000 * median(seconds)}


async def _time_to(writer: _Waiter, waiter: _Waiter) -> float:
    waiter.woken.clear()
    start = perf_counter()
    put = asyncio.ensure_future(writer.put(waiter.key, start))
    await waiter.woken.wait()
    seconds = perf_counter() - start
    await put
    return seconds


def _raise_file_limit(files: int) -> None:
    """Allow this process and the server, which inherits the limit, to open so many files.

    Raises:
        NotInstalledError: The system allows fewer.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    with suppress(OSError, ValueError):  # the administrator alone may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < files:
        raise NotInstalledError(f"{files:,} open files are needed, and the system allows {hard:,}: see `ulimit -Hn`")


WORKLOADS: dict[str, Workload] = {
    "ranges_10": _waking(10),
    "ranges_1000": _waking(1000),
    "ranges_10000": _waking(10_000),
}
