"""The HTTP server on a socket, with a database on each of some backends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from treehub_level import Level, Refused
from treehub_level.http import Hub, Tokens, create_app
from treehub_level.testing.exchange import ServerUnderTest

#: The beginning of the keys that the rule of the databases refuses.
REFUSED = "refused/"


def refuse(_call: Any, changes: Sequence[Any], _read: Any) -> None:
    """The rule of the databases."""
    bad = [change.key for change in changes if change.key.startswith(REFUSED)]
    if bad:
        raise Refused("refused by the test", keys=bad)


class ServedDatabases:
    """A server in a thread.

    Args:
        folder: The folder for the stores and the tokens.
        backends: The names of the backends; each has a database of its name.
    """

    def __init__(self, folder: Path, backends: Sequence[str]) -> None:
        self._folder = folder
        self._backends = backends
        self._tokens = Tokens(folder / "tokens")
        self._levels: dict[str, Level] = {}
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()

    def under_test(self, backend: str) -> ServerUnderTest:
        """Return the database on a backend, with tokens of each kind."""
        everything = self._tokens.add(databases=["*"], write=True, name="all")
        return ServerUnderTest(
            f"http://127.0.0.1:{self._port}/v1/{backend}",
            everything,
            read_token=self._tokens.add(databases=[backend], write=False, name="reader"),
            prefix_token=self._tokens.add(databases=[backend], write=True, prefix="mine/", name="part"),
            token_prefix="mine/",
            refused_prefix=REFUSED,
            compact=lambda: self._compact(backend),
        )

    def _compact(self, backend: str) -> None:
        level = self._levels[backend]
        compaction = level.compact_log(drop_deletes_before=level.cid + 1)
        asyncio.run_coroutine_threadsafe(compaction, self._loop).result(60)

    @contextmanager
    def running(self) -> Iterator[ServedDatabases]:
        """Run the server for the length of the block."""
        thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        thread.start()
        try:
            assert self._started.wait(60)
            yield self
        finally:
            self._server.should_exit = True
            thread.join(60)
            self._loop.close()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            for backend in self._backends:
                level = Level(str(self._folder / backend), backend=backend, mode=Level.SERVER, check=refuse)
                self._levels[backend] = await stack.enter_async_context(level)
            hub = await stack.enter_async_context(Hub(levels=self._levels))
            app = create_app(hub, tokens=self._tokens)
            self._server = _SignallingServer(uvicorn.Config(app, port=0, log_config=None), self._note_start)
            await self._server.serve()

    def _note_start(self, port: int) -> None:
        self._port = port
        self._started.set()


class _SignallingServer(uvicorn.Server):
    """A server that tells its port once it listens."""

    def __init__(self, config: uvicorn.Config, started: Any) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._tell(self.servers[0].sockets[0].getsockname()[1])
