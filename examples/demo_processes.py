"""The processes of the demo: the server, and each client. None of them outlives the block that it was started for."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import demo_client
from demo_proof import Holding

from treehub_level import Change, SyncReport

#: Seconds that a process has to end by itself.
PATIENCE = 20


class Server:
    """A server that runs.

    Attributes:
        pid: Its process.
        port: The port of loopback that it listens on.
    """

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port


@asynccontextmanager
async def start_server(store: Path, tokens: Path) -> AsyncIterator[Server]:
    """``treehub-level serve`` over one store, on a port that the system chooses; a line of log for each request."""
    command = [sys.executable, "-m", "treehub_level.cli", "serve", str(store), "--tokens", str(tokens), "--port", "0"]
    with store.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        announced = (await process.stdout.readline()).decode()  # "serving server at http://127.0.0.1:43210"
        if "://" not in announced:
            raise RuntimeError(f"the server has not started: {log.name} says why")
        yield Server(process.pid, int(announced.rpartition(":")[2]))
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Client:
    """A client that runs: what the demo tells it, and what it answers.

    Attributes:
        pid: Its process.
    """

    def __init__(self, name: str, pid: int, orders: Connection) -> None:
        self.pid = pid
        self._name = name
        self._orders = orders

    async def sync(self, progress: Callable[[int], object] = lambda pulled: None) -> SyncReport:
        """Sync with the server; ``progress`` is told how many changes have come."""
        report: SyncReport = await self._tell("sync", progress=progress)
        return report

    async def edit(self, changes: list[Change]) -> None:
        """Make changes, offline."""
        await self._tell("edit", changes)

    async def get(self, key: str) -> Any:
        """What it has under a key."""
        return await self._tell("get", key)

    async def restore(self, key: str) -> None:
        """Write what lost in a conflict once more."""
        await self._tell("restore", key)

    async def show(self) -> Holding:
        """What it holds in all."""
        holding: Holding = await self._tell("show")
        return holding

    async def _tell(self, *order: object, progress: Callable[[int], object] = lambda pulled: None) -> Any:
        try:
            self._orders.send(order)
            while True:
                kind, content = await asyncio.to_thread(self._orders.recv)
                if kind == "answer":
                    return content
                progress(content)
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the {self._name} has died while it was to {order[0]}; it says why above") from error


@asynccontextmanager
async def start_client(store: Path, url: str, token: str) -> AsyncIterator[Client]:
    """A fresh interpreter that runs `demo_client`, and gets its orders through a pipe."""
    context = multiprocessing.get_context("spawn")
    orders, its_orders = context.Pipe()
    process = context.Process(target=demo_client.run, args=(its_orders, store, url, token), daemon=True)
    process.start()
    its_orders.close()  # this side's copy: when the process ends, the pipe does
    try:
        assert process.pid is not None
        yield Client(store.name, process.pid, orders)
        orders.send(["end"])
        await asyncio.to_thread(process.join, PATIENCE)
    finally:
        process.kill()  # does nothing if it has ended
        process.join()
        orders.close()
