"""The asyncio API under interrupts: each call by ``run_until_complete``, as in a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from treehub_level import Level

from .bench import PATIENCE, Backend, check_sync_lock_is_free


class LoopBench:
    """A client and its server, with the asyncio API, and an event loop that is interrupted.

    Args:
        backend: The backend of both.
        folder: The beginning of their names.
    """

    def __init__(self, backend: Backend, folder: str) -> None:
        self.server = Level(f"{folder}server", backend=backend, mode=Level.SERVER)
        self.client = Level(f"{folder}client", backend=backend, mode=Level.CLIENT)
        self._sqlite_client = f"{folder}client" if backend == "sqlite" else None
        self.loop = self._new_loop()
        self._n = 0

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # of tasks that an interrupt ended
        return loop

    def __enter__(self) -> LoopBench:
        self._checked(self._open())
        return self

    async def _open(self) -> None:
        for level in (self.server, self.client):
            await level.open()
        await self.server.load((f"k{n:03}", 0) for n in range(40))
        await self.client.sync(self.server)

    def __exit__(self, *exception: object) -> None:
        for level in (self.client, self.server):
            self._checked(level.close())
        self.loop.close()

    def run(self, call: Callable[[LoopBench], Coroutine[Any, Any, object]]) -> None:
        """Make a call."""
        self._n += 1
        self.loop.run_until_complete(call(self))

    def settle(self) -> None:
        """End the tasks that an interrupt has left, as ``asyncio.run`` does.

        An interrupt of the loop itself can lose the call that wakes a task (``_run_once`` takes it
        from a queue first). Nothing but the end of the loop helps such a task.
        """
        while True:
            try:
                tasks = asyncio.all_tasks(self.loop)
                for task in tasks:
                    task.cancel()
                self.loop.run_until_complete(_end(tasks))
            except KeyboardInterrupt:  # a task passes on that of another task
                continue
            except RuntimeError as error:  # `run_until_complete` was interrupted, and stops the next
                if "stopped before" not in str(error):
                    raise
                continue
            if asyncio.all_tasks(self.loop):
                self.change_loop()
            return

    def change_loop(self) -> None:
        """Close the event loop with all its tasks, and go on with another."""
        self.loop.close()
        self.loop = self._new_loop()

    def _checked(self, call: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(asyncio.wait_for(call, PATIENCE))
        while not task.done():
            try:
                self.loop.run_until_complete(task)
            except RuntimeError as error:  # an interrupted `run_until_complete` stops a later one
                if "stopped before" not in str(error):
                    raise
        task.result()

    def check(self) -> None:
        """Fail unless both levels work, and agree with their disks."""
        self._n += 1
        if self._sqlite_client is not None:
            check_sync_lock_is_free(self._sqlite_client)
        self._checked(self._check())

    async def _check(self) -> None:
        n = self._n
        await self.server.put("own", n)
        await self.server.put("durable", n, durable=True)
        await self.client.put("mine", n)
        await self.client.sync(self.server)
        assert await self.server.get_many(["own", "durable", "mine"]) == [n, n, n]
        assert await self.client.get("own") == n
        assert self.server.cid == await self.server.get("!"), "the CID in memory is not the one on disk"

    # ----------------------------------------------------------------------- the calls to interrupt

    async def put(self) -> None:
        await self.server.put("k", self._n)

    async def put_durable(self) -> None:
        await self.client.put("k", self._n, durable=True)

    async def put_together(self) -> None:
        await asyncio.gather(*(self.server.put(f"k{n:03}", self._n, durable=n % 2 == 0) for n in range(10)))

    async def query(self) -> None:
        await self.server.query(prefix="k0")

    async def scan(self) -> None:
        async for _ in self.server.scan(prefix="k0"):
            pass

    async def snapshot(self) -> None:
        async with self.server.snapshot() as snapshot:
            await snapshot.count()

    async def change(self) -> None:
        await self.server.change(self.server.cid, [["k", self._n]])

    async def sync(self) -> None:
        await self.client.put("k", self._n)
        await self.client.sync(self.server)


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=0.3)


LOOP_CALLS: Final = (
    LoopBench.put,
    LoopBench.put_durable,
    LoopBench.put_together,
    LoopBench.query,
    LoopBench.scan,
    LoopBench.snapshot,
    LoopBench.change,
    LoopBench.sync,
)
