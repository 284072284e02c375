"""A bad network (T8): a TCP proxy that loses, delays, duplicates, reorders, cuts and flips what passes through it.

It knows nothing of HTTP. A connection may be refused, or swallowed: accepted and never answered. It may begin late, so
that others overtake it. Each piece of it, in either direction, may come late, end the connection in its middle, or have
a byte flipped. And all that a connection carried to the server may be sent once more, later: each of its requests
arrives twice then, the second time when its client has long gone on. Now and then the network is parted: for seconds
nothing passes, and nobody is told.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

#: Seconds after which a swallowed connection, or a duplicate, is let go.
_LONG: Final = 3.0


@dataclass(frozen=True)
class Faults:
    """How likely each fault is: of a connection, of a piece of one, or, to be parted, of the network in a second.

    Plain HTTP has no checksum: a byte that is flipped in a value is a valid value. So bytes are flipped where the
    connection is encrypted, and TLS notices.
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
    """The proxy.

    Args:
        target: The port, on loopback, of the server.
        faults: How likely each fault is.
        rng: Decides which fault happens.

    Attributes:
        port: The port that it listens on.
        happened: How often each fault has happened.
    """

    def __init__(self, target: int, faults: Faults, rng: random.Random) -> None:
        self._target = target
        self._faults: Faults | None = faults
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._duplicates: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._whole = asyncio.Event()
        self._whole.set()
        self.port = 0
        self.happened: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen, on a port that is free."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        self._begin(self._part())

    async def heal(self) -> None:
        """From now on all goes well. What was to arrive a second time has arrived."""
        self._faults = None
        self._whole.set()
        if self._duplicates:
            await asyncio.wait(self._duplicates)

    async def close(self) -> None:
        """End all connections."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _happens(self, fault: str) -> bool:
        if self._faults is None or self._rng.random() >= getattr(self._faults, fault):
            return False
        self.happened[fault] += 1
        return True

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _part(self) -> None:
        """Part the network, now and then."""
        while self._faults is not None:
            await asyncio.sleep(1)
            if self._happens("part"):
                self._whole.clear()
                await asyncio.sleep(self._rng.uniform(0.5, _LONG))
                self._whole.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(self._carry(reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        carried = bytearray()
        try:
            if self._happens("refuse"):
                return
            if self._happens("swallow"):
                await asyncio.sleep(_LONG)
                return
            if self._happens("delay"):
                await asyncio.sleep(self._rng.uniform(0, 0.5))
            await self._whole.wait()
            with suppress(OSError):
                there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    pumps = [
                        asyncio.create_task(self._pump(reader, to_there, carried)),
                        asyncio.create_task(self._pump(there, writer, None)),
                    ]
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.wait(pumps)
                finally:
                    to_there.transport.abort()
        finally:
            writer.transport.abort()
            if carried and self._happens("duplicate"):
                again = self._begin(self._repeat(bytes(carried)))
                self._duplicates.add(again)
                again.add_done_callback(self._duplicates.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carried: bytearray | None
    ) -> None:
        """One direction of a connection."""
        with suppress(OSError):
            while data := await reader.read(4096):
                if self._happens("late"):
                    await asyncio.sleep(self._rng.uniform(0, 0.2))
                await self._whole.wait()
                if self._happens("flip"):
                    at = self._rng.randrange(len(data))
                    data = data[:at] + bytes([data[at] ^ 1 << self._rng.randrange(8)]) + data[at + 1 :]
                cut = self._happens("cut")
                if cut:
                    data = data[: self._rng.randrange(len(data))]
                if carried is not None:
                    carried += data
                writer.write(data)
                await writer.drain()
                if cut:
                    return

    async def _repeat(self, carried: bytes) -> None:
        """Send what a connection carried to the server once more, and throw the answers away."""
        await asyncio.sleep(self._rng.uniform(0, 1))
        with suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                writer.write(carried)
                await asyncio.wait_for(reader.read(-1), 1)
            finally:
                writer.transport.abort()
