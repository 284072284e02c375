"""Cancels a coroutine at its k-th suspension, for every k, one await after the other.

Afterwards the level must work as before, and the cancelled call must be done completely or not at
all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, Final, cast

from treehub_level import Level, LevelTransaction, Put

from .rounds import Backend

#: Seconds to wait until a cancelled call has ended.
PATIENCE: Final = 30.0


class CancelAt:
    """Awaits a coroutine, and cancels the awaiting task at the k-th suspension.

    Attributes:
        reached: True once the coroutine has suspended k times.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], k: int) -> None:
        self._coroutine = coroutine
        self._left = k
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    awaited = steps.send(None) if thrown is None else steps.throw(thrown)
                except StopIteration as end:
                    return end.value
                self._left -= 1
                if self._left == 0:
                    # The cancellation arrives at this suspension, as from another task.
                    cast("asyncio.Task[None]", asyncio.current_task()).cancel()
                    self.reached = True
                thrown = None
                try:
                    yield awaited
                except BaseException as error:
                    thrown = error
        finally:
            thrown = None  # its traceback would keep this frame and the open handles of the coroutine


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], k: int) -> bool:
    """Run a coroutine and cancel it at its k-th suspension. True if it has so many.

    Raises:
        Exception: The error of the coroutine, unless it was cancelled.
    """
    driver = CancelAt(coroutine, k)

    async def drive() -> None:
        await driver

    (end,) = await asyncio.wait_for(asyncio.gather(asyncio.create_task(drive()), return_exceptions=True), PATIENCE)
    if isinstance(end, BaseException) and not (driver.reached and isinstance(end, asyncio.CancelledError)):
        raise end
    return driver.reached


class Bench:
    """A client, its server, and the calls to cancel. Each call uses keys with a new number.

    Args:
        backend: The backend of both stores.
        folder: The prefix of their names.
    """

    def __init__(self, backend: Backend, folder: str) -> None:
        self.server = Level(f"{folder}server", backend=backend, mode=Level.SERVER)
        self.client = Level(f"{folder}client", backend=backend, mode=Level.CLIENT)
        self._n = 0

    async def __aenter__(self) -> Bench:
        for level in (self.server, self.client):
            await level.open()
        await self.server.load((f"s{n:04}", n) for n in range(300))
        await self.client.sync(self.server)
        return self

    async def __aexit__(self, *exception: object) -> None:
        for level in (self.client, self.server):
            if level.is_open:
                await level.close()

    async def put(self) -> None:
        await self.client.put(f"p{self._n}", 1, durable=True)

    async def put_inline(self) -> None:
        for n in range(64):
            await self.client.put(f"i{self._n} {n}", 1)

    async def batch(self) -> None:
        await self.server.batch([Put(f"b{self._n} {n}", n) for n in range(100)])

    async def transact(self) -> None:
        def decide(tx: LevelTransaction) -> None:
            for n in range(100):
                tx.put(f"d{self._n} {n}", tx.count(prefix=f"d{self._n} "))

        await self.server.transact(decide)

    async def load(self) -> None:
        await self.server.load(((f"l{self._n} {n:04}", n) for n in range(500)), batch_size=100)

    async def query(self) -> None:
        await self.server.query(filter=lambda key, value: True)

    async def scan(self) -> None:
        async for _ in self.server.scan():
            pass

    async def snapshot(self) -> None:
        async with self.server.snapshot() as snapshot:
            await snapshot.query()

    async def sync(self) -> None:
        await self.server.put(f"t{self._n}", 1)
        await self.client.put(f"u{self._n}", 1)
        await self.client.sync(self.server)

    async def live(self) -> None:
        await self.client.put(f"v{self._n}", 1)
        async with self.client.live(self.server) as session:
            await session.in_sync()

    async def close(self) -> None:
        await self.client.put(f"c{self._n}", 1)
        await self.client.close()

    async def open(self) -> None:
        await self.client.close()
        await self.client.open()

    async def cancel_everywhere(self, verb: Callable[[], Coroutine[Any, Any, Any]]) -> int:
        """Cancel a call at each of its suspensions, and return their number."""
        k = 1
        while True:
            self._n += 1
            reached = await cancelled_at(verb(), k)
            await self.check(verb.__name__, k)
            if not reached:
                return k - 1
            k += 1

    async def check(self, verb: str, k: int) -> None:
        """Fail unless both levels work and are consistent."""
        where = f"{verb}, cancelled at await {k}"
        for level in (self.server, self.client):
            await self._settled(level, where)
            if not level.is_open:
                await level.open()
            await level._worker.write(lambda: None)  # after the writes of cancelled calls
            assert level.cid == await level.get("!"), f"{where}: CID {level.cid} in memory, another one on disk"
        page = await self.server.changes(0, limit=None)
        assert [change.cid for change in page.changes] == [*range(1, page.cid + 1)], f"{where}: a hole in the log"
        batch = await self.server.count(prefix=f"b{self._n} ")
        assert batch in (0, 100), f"{where}: half a batch"
        decided = await self.server.count(prefix=f"d{self._n} ")
        assert decided in (0, 100), f"{where}: half a transaction"
        loaded = await self.server.count(prefix=f"l{self._n} ")
        assert loaded % 100 == 0, f"{where}: half a batch of load"
        await self.client.sync(self.server)
        assert await self.client.pending() == 0
        assert await self.client.query() == await self.server.query(), f"{where}: they have not converged"
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"{where}: {len(others)} tasks are left"

    async def _settled(self, level: Level, where: str) -> None:
        """Wait until the threads of a cancelled call and a cancelled close have ended."""
        worker, store = level._worker, level._store
        ends = asyncio.get_running_loop().time() + PATIENCE
        if worker.accepts:
            await worker.write(lambda: None)  # after the steps before it
        while (worker._threads is not None and not worker.accepts) or store._opened or store.queue.writes:
            assert asyncio.get_running_loop().time() < ends, (
                f"{where}: it neither opens nor closes, or a cursor or a snapshot is left open"
            )
            await asyncio.sleep(0.001)


#: The methods of `Bench` to cancel.
VERBS: Final = (
    "put",
    "put_inline",
    "batch",
    "transact",
    "load",
    "query",
    "scan",
    "snapshot",
    "sync",
    "live",
    "close",
    "open",
)


async def cancel_all(bench: Bench, verbs: Iterable[str] = VERBS) -> dict[str, int]:
    """Cancel each call at each of its awaits, and return their numbers."""
    async with bench:
        return {verb: await bench.cancel_everywhere(getattr(bench, verb)) for verb in verbs}
