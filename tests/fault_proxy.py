"""A TCP proxy that injects network faults: loss, delay, duplication, reordering, corruption (T8).

The proxy does not parse HTTP. Faults of a connection: it is refused; it is accepted and then
ignored; it is opened late, so that later connections overtake it; or all bytes that the client sent
are sent to the server once more after the connection has closed, so that each of its requests
arrives twice. Faults of a chunk, in either direction: it is delayed, it is truncated and ends the
connection, or one of its bits is flipped. Network partitions: for seconds all connections stall.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

#: Seconds for which an ignored connection stays open; maximum seconds of a partition.
_STALL: Final = 3.0


@dataclass(frozen=True)
class Faults:
    """The probability of each fault.

    Attributes:
        refuse: A connection is closed at once.
        swallow: A connection is accepted, and then ignored for 3 seconds.
        delay: A connection is opened up to 0.5 seconds late.
        duplicate: The requests of a closed connection are sent to the server again.
        cut: A chunk is truncated, and the connection closed.
        late: A chunk is up to 0.2 seconds late.
        flip: A bit of a chunk is flipped. Only for TLS, which detects it: plain HTTP has no
            checksum, so a corrupted value would be accepted.
        part: In any second, the network is partitioned for 0.5 to 3 seconds.
    """

    refuse: float = 0.1
    swallow: float = 0.03
    delay: float = 0.2
    duplicate: float = 0.3
    cut: float = 0.06
    late: float = 0.1
    flip: float = 0.0
    part: float = 0.1


class FaultProxy:
    """A TCP proxy on the loopback interface that injects faults.

    Args:
        target: The server's port on the loopback interface.
        faults: The probability of each fault.
        rng: The random number generator that decides which faults occur.

    Attributes:
        port: The port on which the proxy listens.
        counts: The number of faults of each kind that have occurred.
    """

    def __init__(self, target: int, faults: Faults, rng: random.Random) -> None:
        self._target = target
        self._faults: Faults | None = faults
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._duplicates: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._not_partitioned = asyncio.Event()
        self._not_partitioned.set()
        self.port = 0
        self.counts: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen on a free port."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        self._create_task(self._partition())

    async def heal(self) -> None:
        """Inject no more faults. Return after the last duplicate request has been sent."""
        self._faults = None
        self._not_partitioned.set()
        if self._duplicates:
            await asyncio.wait(self._duplicates)

    async def close(self) -> None:
        """Close all connections."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _occurs(self, fault: str) -> bool:
        if self._faults is None or self._rng.random() >= getattr(self._faults, fault):
            return False
        self.counts[fault] += 1
        return True

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _partition(self) -> None:
        """Partition the network at random times."""
        while self._faults is not None:
            await asyncio.sleep(1)
            if self._occurs("part"):
                self._not_partitioned.clear()
                await asyncio.sleep(self._rng.uniform(0.5, _STALL))
                self._not_partitioned.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._create_task(self._relay(reader, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection from its beginning to its end."""
        sent = bytearray()
        try:
            if self._occurs("refuse"):
                return
            if self._occurs("swallow"):
                await asyncio.sleep(_STALL)
                return
            if self._occurs("delay"):
                await asyncio.sleep(self._rng.uniform(0, 0.5))
            await self._not_partitioned.wait()
            with suppress(OSError):
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    pumps = [
                        asyncio.create_task(self._pump(reader, server_writer, sent)),
                        asyncio.create_task(self._pump(server_reader, writer, None)),
                    ]
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.wait(pumps)
                finally:
                    server_writer.transport.abort()
        finally:
            writer.transport.abort()
            if sent and self._occurs("duplicate"):
                duplicate = self._create_task(self._send_again(bytes(sent)))
                self._duplicates.add(duplicate)
                duplicate.add_done_callback(self._duplicates.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytearray | None) -> None:
        """Relay one direction of a connection, and append its bytes to ``sent``."""
        with suppress(OSError):
            while data := await reader.read(4096):
                if self._occurs("late"):
                    await asyncio.sleep(self._rng.uniform(0, 0.2))
                await self._not_partitioned.wait()
                if self._occurs("flip"):
                    at = self._rng.randrange(len(data))
                    data = data[:at] + bytes([data[at] ^ 1 << self._rng.randrange(8)]) + data[at + 1 :]
                is_cut = self._occurs("cut")
                if is_cut:
                    data = data[: self._rng.randrange(len(data))]
                if sent is not None:
                    sent += data
                writer.write(data)
                await writer.drain()
                if is_cut:
                    return

    async def _send_again(self, requests: bytes) -> None:
        """Send the requests of a connection to the server again, and discard the responses."""
        await asyncio.sleep(self._rng.uniform(0, 1))
        with suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                writer.write(requests)
                await asyncio.wait_for(reader.read(-1), 1)
            finally:
                writer.transport.abort()
