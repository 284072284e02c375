"""The processes of the demo: the server and the clients. Each one ends with its ``with`` block."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import demo_client
from demo_proof import StoreContents

from treehub_level import Change, SyncReport

#: Seconds until a process that was asked to end is killed.
EXIT_TIMEOUT = 20


class Server:
    """A running server process.

    Attributes:
        pid: The process id.
        port: The port on the loopback interface.
    """

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port


@asynccontextmanager
async def start_server(store: Path, tokens: Path) -> AsyncIterator[Server]:
    """Run ``treehub-level serve`` with `demo_rules`, on a free port, with an access log."""
    command = [sys.executable, "-m", "treehub_level", "serve", str(store), "--tokens", str(tokens), "--port", "0"]
    command += ["--check", "demo_rules:check"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with store.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment
        )
    try:
        assert process.stdout is not None
        first_line = (await process.stdout.readline()).decode()  # "serving server at http://127.0.0.1:43210"
        if "://" not in first_line:
            raise RuntimeError(f"the server has not started: see {log.name}")
        yield Server(process.pid, int(first_line.rpartition(":")[2]))
        process.terminate()
        await asyncio.wait_for(process.wait(), EXIT_TIMEOUT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Client:
    """A running client process. The methods send it requests through a pipe.

    Attributes:
        pid: The process id.
    """

    def __init__(self, name: str, pid: int, pipe: Connection) -> None:
        self.pid = pid
        self._name = name
        self._pipe = pipe

    async def sync(self, progress: Callable[[int], object] = lambda pulled: None) -> SyncReport:
        """Sync with the server. ``progress`` is called with the number of changes pulled so far."""
        report: SyncReport = await self._request("sync", progress=progress)
        return report

    async def edit(self, changes: list[Change], *, together: bool = False) -> None:
        """Write changes, offline. With ``together``, they are accepted or lost as a whole."""
        await self._request("edit", changes, together)

    async def follow(self, prefix: str) -> None:
        """Follow the keys that begin with a prefix, too."""
        await self._request("follow", prefix)

    async def get(self, key: str) -> Any:
        """Return the value of a key."""
        return await self._request("get", key)

    async def restore(self, key: str) -> None:
        """Write an overwritten change again, from the conflict journal."""
        await self._request("restore", key)

    async def contents(self) -> StoreContents:
        """Return the contents of the store."""
        contents: StoreContents = await self._request("contents")
        return contents

    async def _request(self, *request: object, progress: Callable[[int], object] = lambda pulled: None) -> Any:
        try:
            self._pipe.send(request)
            while True:
                kind, content = await asyncio.to_thread(self._pipe.recv)
                if kind == "result":
                    return content
                progress(content)
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the {self._name} has died during {request[0]}: its traceback is above") from error


@asynccontextmanager
async def start_client(store: Path, url: str, token: str, follow: list[str] | None = None) -> AsyncIterator[Client]:
    """Run `demo_client` in a new interpreter, connected by a pipe.

    Args:
        store: The folder of its store.
        url: The address of the server.
        token: The token of the client.
        follow: The prefixes of the keys that it follows; ``None`` for all keys.
    """
    context = multiprocessing.get_context("spawn")
    pipe, child_end = context.Pipe()
    process = context.Process(target=demo_client.run, args=(child_end, store, url, token, follow), daemon=True)
    process.start()
    child_end.close()  # so that recv() raises EOFError when the process ends
    try:
        assert process.pid is not None
        yield Client(store.name, process.pid, pipe)
        pipe.send(["end"])
        await asyncio.to_thread(process.join, EXIT_TIMEOUT)
    finally:
        process.kill()  # does nothing if the process has ended
        process.join()
        pipe.close()
