"""A server in this process, and clients that call its ASGI application directly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from treehub_level import Level, MemoryBackend
from treehub_level.http import Hub, Tokens, create_app


class Served:
    """A server in this process, with the memory databases ``notes`` and ``other``.

    Args:
        folder: The folder for the file of tokens.

    Attributes:
        memories: The backend of each database.
        levels: The level of each database.
        hub: The hub of the databases.
        tokens: The tokens.
        app: The ASGI application.
        client: An HTTP client with a read-write token for all databases.
        anonymous: An HTTP client without a token.
    """

    def __init__(self, folder: Path) -> None:
        self.memories = {name: MemoryBackend(name) for name in ("notes", "other")}
        self.levels: dict[str, Level] = {}
        self.tokens = Tokens(folder / "tokens")
        self.client: httpx.AsyncClient
        self.anonymous: httpx.AsyncClient
        self.hub: Hub
        self.app: Starlette
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Open the levels and the hub, and create the application and the clients."""
        for name, memory in self.memories.items():
            level = Level(name, backend=_factory(memory), mode=Level.SERVER)
            self.levels[name] = await self._stack.enter_async_context(level)
        self.hub = await self._stack.enter_async_context(Hub(levels=self.levels))
        self.app = create_app(self.hub, tokens=self.tokens)
        self.anonymous = await self.client_with(None)
        self.client = await self.client_with(self.tokens.add(databases=["*"], write=True, name="root"))

    def rebuild(self, **options: Any) -> None:
        """Create the application again, with other options of ``create_app``."""
        self.app = create_app(self.hub, **{"tokens": self.tokens, **options})
        self.client._transport = self.anonymous._transport = httpx.ASGITransport(self.app)

    async def client_with(self, token: str | None, **headers: str) -> httpx.AsyncClient:
        """Return an HTTP client that sends a token, or none."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://localhost", headers=headers, timeout=60
        )
        return await self._stack.enter_async_context(client)

    def raw(self, name: str = "notes") -> dict[bytes, bytes]:
        """Return all rows of a database's backend, including metadata."""
        cursor = self.memories[name].scan(None, None)
        rows = cursor.fetch(1_000_000)
        cursor.close()
        return dict(rows)

    async def wait_for_long_poll(self, name: str = "notes", *, count: int = 1) -> None:
        """Wait until so many long polls of a database are pending."""
        while len(self.hub._subscriptions._by_name[name]) < count:  # noqa: ASYNC110  # no event reports this
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close the clients, the hub and the levels."""
        await self._stack.aclose()


def _factory(memory: MemoryBackend) -> Callable[[str], MemoryBackend]:
    return lambda _: memory


class StreamingRequest:
    """An ASGI request whose body or response may not end, such as an event stream.

    `httpx.ASGITransport` waits for the end of a response; this class records each message of the
    response when the application sends it.

    Args:
        app: The ASGI application.
        method: The HTTP method.
        path: The path and the query string.
        headers: Request headers, in addition to ``Host``.
        body: Chunks of the request body; ``None`` for no body.
        ends: True if the body ends with the last chunk. Otherwise it never ends.
        stop_after: The number of messages of the response that the client takes before it stops
            reading.

    Attributes:
        blocked: True while a message waits for the client to read.
        sent: The ASGI messages that the application has sent.
        reading: An event. While it is cleared, the client reads nothing (backpressure).
        task: The task that runs the application.
    """

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: list[bytes] | None = None,
        ends: bool = False,
        stop_after: int | None = None,
    ) -> None:
        raw_path, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw_path,
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in {"host": "localhost", **(headers or {})}.items()
            ],
        }
        self.sent: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.blocked = False
        self._body = body
        self._ends = ends
        self._stop_after = stop_after
        self._disconnected = asyncio.Event()
        self._message_sent = asyncio.Event()
        self._app = app

    @asynccontextmanager
    async def open(self) -> AsyncIterator[StreamingRequest]:
        """Send the request. Disconnect at the end of the ``with`` block."""
        task = asyncio.ensure_future(self._app(self.scope, self._receive, self._send))
        task.add_done_callback(lambda _: self._message_sent.set())
        self.task = task
        try:
            yield self
        finally:
            self.reading.set()
            self._disconnected.set()
            await asyncio.wait_for(task, 30)

    @property
    def status(self) -> int:
        """The status of the response."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def text(self) -> bytes:
        """The bytes of the response body received so far."""
        return b"".join(message.get("body", b"") for message in self.sent)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait at most 30 seconds until ``condition()`` is true. Check it after each message."""
        async with asyncio_timeout(30):
            while not condition():
                assert not self.task.done() or condition(), f"the response ended: {self.sent!r:.500}"
                self._message_sent.clear()
                await self._message_sent.wait()

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            chunk = self._body.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(self._body) or not self._ends}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._stop_after == len(self.sent):
            self.reading.clear()
            self._stop_after = None
        self.blocked = not self.reading.is_set()
        self._message_sent.set()
        await self.reading.wait()
        self.blocked = False
        self.sent.append(message)
        self._message_sent.set()


@asynccontextmanager
async def asyncio_timeout(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after some seconds, so that a deadlock fails the test."""
    task = asyncio.current_task()
    assert task is not None
    handle = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        yield
    finally:
        handle.cancel()
