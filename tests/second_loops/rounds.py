"""Each verb of the asyncio API, in an event loop that did not open the level."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import pytest

from treehub_level import Level, Put, StateError

#: Seconds after which a verb counts as hanging.
PATIENCE: Final = 30.0

Backend = str | Callable[..., Any]


class Pair:
    """A client and its server. Each call uses keys with a new number.

    Args:
        backend: The backend of both.
        folder: The beginning of their names.
        patience: Seconds that a call may take.
    """

    def __init__(self, backend: Backend, folder: str, patience: float = PATIENCE) -> None:
        self.server = Level(f"{folder}server", backend=backend, mode=Level.SERVER)
        self.client = Level(f"{folder}client", backend=backend, mode=Level.CLIENT)
        self.backend = backend
        self.folder = folder
        self.patience = patience
        self._n = 0

    async def open(self) -> None:
        for level in (self.server, self.client):
            await level.open()
        await self.server.load((f"k{n:03}", n) for n in range(50))
        await self.client.sync(self.server)

    async def close(self) -> None:
        for level in (self.server, self.client):
            await asyncio.wait_for(level.close(), self.patience)

    async def use(self) -> None:
        """Call every verb. None may hang, and each must have its effect."""
        self._n += 1
        for verb in VERBS:
            try:
                await asyncio.wait_for(verb(self, f"{self._n}-{threading.get_ident()}"), self.patience)
            except asyncio.TimeoutError as error:
                raise AssertionError(f"{verb.__name__} never returns in another event loop") from error

    async def write(self, n: str) -> None:
        await self.server.put(f"small {n}", 1)
        await self.server.put(f"durable {n}", 2, durable=True)
        await self.server.put(f"large {n}", "x" * 50_000)
        await self.server.batch([Put(f"b{n} {i}", i) for i in range(100)])
        await self.server.delete(f"small {n}")
        async with self.server.write_batch() as batch:
            batch.put(f"w{n}", 1)
        assert await self.server.get_many([f"small {n}", f"durable {n}", f"w{n}"]) == [None, 2, 1]

    async def write_together(self, n: str) -> None:
        await asyncio.gather(*(self.server.put(f"t{n} {i}", i, durable=i % 2 == 0) for i in range(10)))
        assert await self.server.count(prefix=f"t{n} ") == 10

    async def load_and_clear(self, n: str) -> None:
        assert await self.server.load((f"l{n} {i:04}", i) for i in range(1500)) == 1500
        assert await self.server.clear(prefix=f"l{n} ") == 1500

    async def read(self, n: str) -> None:
        assert await self.server.has("k001")
        assert len(await self.server.query(prefix="k0", filter=lambda key, value: True)) == 50
        assert len(await self.server.keys(prefix="k0")) == len(await self.server.values(prefix="k0")) == 50
        assert len([pair async for pair in self.server.scan(prefix="k0")]) == 50
        assert (await self.server.info())["mode"] == "server"

    async def snapshot(self, n: str) -> None:
        async with self.server.snapshot() as snapshot:
            await self.server.put(f"after {n}", 1, durable=True)
            assert await snapshot.get(f"after {n}") is None
            assert await snapshot.count(prefix="k0") == 50

    async def sync(self, n: str) -> None:
        await self.client.put(f"mine {n}", 1, durable=True)
        await asyncio.gather(*(self.client.sync(self.server) for _ in range(3)))
        assert await self.server.get(f"mine {n}") == 1
        assert f"mine {n}" not in [change.key for change in await self.client.dirty(None)]

    async def live(self, n: str) -> None:
        async with self.client.live(self.server) as session:
            await self.client.put(f"live {n}", 1)
            await session.in_sync(within=self.patience)
        assert await self.server.get(f"live {n}") == 1

    async def wait(self, n: str) -> None:
        cid = self.server.cid
        waiting = asyncio.create_task(self.server.changes(cid, wait=self.patience))
        await asyncio.sleep(0)
        await self.server.put(f"awaited {n}", 1)
        assert (await waiting).changes

    async def watch(self, n: str) -> None:
        changes = self.server.watch()
        following = asyncio.ensure_future(_next(changes))
        await asyncio.sleep(0.01)
        await self.server.put(f"watched {n}", 1)
        assert await following
        following = asyncio.ensure_future(_next(changes))
        await self.server.put(f"watched {n}", 2, durable=True)
        assert await following
        await changes.aclose()

    async def compact(self, n: str) -> None:
        await self.server.compact_log()
        await self.server.compact_range()


async def _next(changes: AsyncIterator[Any]) -> Any:
    return await changes.__anext__()


#: The verbs, in groups.
VERBS: Final[tuple[Callable[[Pair, str], Coroutine[Any, Any, None]], ...]] = (
    Pair.write,
    Pair.write_together,
    Pair.load_and_clear,
    Pair.read,
    Pair.snapshot,
    Pair.sync,
    Pair.live,
    Pair.wait,
    Pair.watch,
    Pair.compact,
)


def one_after_another(pair: Pair) -> None:
    """Open, use twice, and close, each in an event loop of its own."""
    for call in (pair.open, pair.use, pair.use, pair.close):
        asyncio.run(call())


def in_turn(pair: Pair) -> None:
    """Use two event loops in turn, neither of which is closed, as in two notebooks."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        for loop, call in ((first, pair.open), (second, pair.use), (first, pair.use), (second, pair.close)):
            loop.run_until_complete(call())
    finally:
        first.close()
        second.close()


def at_a_time(pair: Pair) -> None:
    """Use the event loops of three threads at a time."""
    asyncio.run(pair.open())
    errors: list[BaseException] = []

    def use() -> None:
        try:
            asyncio.run(pair.use())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10 * pair.patience)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    asyncio.run(pair.close())


def abandoned_sync(pair: Pair) -> None:
    """Leave a sync in a loop that no longer runs: a second sync says so, and does not wait."""
    first = asyncio.new_event_loop()
    first.run_until_complete(pair.open())

    class Silent:
        async def exchange(self, request: Any) -> Any:
            first.stop()
            await asyncio.sleep(3600)

    task = first.create_task(pair.client.sync(Silent()))
    first.run_forever()
    with pytest.raises(StateError, match="loop is not running"):
        asyncio.run(asyncio.wait_for(pair.client.sync(pair.server), pair.patience))
    task.cancel()
    first.run_until_complete(asyncio.wait([task]))
    first.close()
    asyncio.run(asyncio.wait_for(pair.client.sync(pair.server), pair.patience))
    asyncio.run(pair.close())


#: The kinds of rounds, but for those of live sessions.
KINDS: Final = {
    "one_after_another": one_after_another,
    "in_turn": in_turn,
    "at_a_time": at_a_time,
    "abandoned_sync": abandoned_sync,
}
