"""A server in this process: two databases over memory, tokens, and clients that speak to its application directly."""

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
    """What tests speak to.

    Attributes:
        hub: The hub, open, with the databases ``notes`` and ``other``.
        tokens: The tokens.
        app: The application.
        client: One with a token that may do everything.
        anonymous: One without a token.
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
        """Open everything."""
        for name, memory in self.memories.items():
            level = Level(name, backend=_always(memory), mode=Level.SERVER)
            self.levels[name] = await self._stack.enter_async_context(level)
        self.hub = await self._stack.enter_async_context(Hub(levels=self.levels))
        self.app = create_app(self.hub, tokens=self.tokens)
        self.anonymous = await self.client_with(None)
        self.client = await self.client_with(self.tokens.add(databases=["*"], write=True, name="root"))

    def rebuild(self, **options: Any) -> None:
        """Make the application anew, with other options."""
        self.app = create_app(self.hub, **{"tokens": self.tokens, **options})
        self.client._transport = self.anonymous._transport = httpx.ASGITransport(self.app)

    async def client_with(self, token: str | None, **headers: str) -> httpx.AsyncClient:
        """A client that presents a token."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://localhost", headers=headers, timeout=60
        )
        return await self._stack.enter_async_context(client)

    def raw(self, name: str = "notes") -> dict[bytes, bytes]:
        """Everything that a database holds, metadata too."""
        cursor = self.memories[name].scan(None, None)
        rows = cursor.fetch(1_000_000)
        cursor.close()
        return dict(rows)

    async def until_somebody_waits(self, name: str = "notes") -> None:
        """Wait until a request waits for news of a database."""
        while not self.levels[name]._store.listeners:  # noqa: ASYNC110  # there is no event for this
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Close everything."""
        await self._stack.aclose()


def _always(memory: MemoryBackend) -> Callable[[str], MemoryBackend]:
    return lambda _: memory


class Conversation:
    """One request to an application, for answers that do not end: what is sent stands in `sent` as it comes.

    Attributes:
        sent: The messages of the answer.
        taking: While it is cleared, the client takes nothing more.

    Args:
        app: The application.
        method: The HTTP method.
        path: The path and the query.
        headers: Headers, beside ``Host``.
        body: Pieces of the request's body, which never ends.
    """

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: list[bytes] | None = None,
    ) -> None:
        plain, _, query = path.partition("?")
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": plain,
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in {"host": "localhost", **(headers or {})}.items()
            ],
        }
        self.sent: list[dict[str, Any]] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self._body = body
        self._hung_up = asyncio.Event()
        self._news = asyncio.Event()
        self._app = app

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Conversation]:
        """Talk for the length of the block, then hang up."""
        task = asyncio.ensure_future(self._app(self.scope, self._receive, self._send))
        task.add_done_callback(lambda _: self._news.set())
        self.task = task
        try:
            yield self
        finally:
            self.taking.set()
            self._hung_up.set()
            await asyncio.wait_for(task, 30)

    @property
    def status(self) -> int:
        """The status that was sent."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def text(self) -> bytes:
        """The body so far."""
        return b"".join(message.get("body", b"") for message in self.sent)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what shall happen."""
        async with asyncio_timeout(30):
            while not condition():
                assert not self.task.done() or condition(), f"it ended, with {self.sent!r:.500}"
                self._news.clear()
                await self._news.wait()

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(0), "more_body": True}
        await self._hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.taking.wait()
        self.sent.append(message)
        self._news.set()


@asynccontextmanager
async def asyncio_timeout(seconds: float) -> AsyncIterator[None]:
    """Cancel the block if it takes longer: a test that hangs has failed."""
    task = asyncio.current_task()
    assert task is not None
    handle = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        yield
    finally:
        handle.cancel()
