"""Fixtures: a client and a `RemoteServer` of either API, and a fake server in this process."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from async_adapter import AsyncAdapter

from treehub_level import Level, blocking
from treehub_level.http import RemoteServer
from treehub_level.http import blocking as http_blocking
from treehub_level.http.client import calls

from .fake import URL, FakeServer


@pytest.fixture
def server() -> Iterator[blocking.Level]:
    """The level behind the fake server."""
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as level:
        yield level


@pytest.fixture
def fake(server: blocking.Level) -> FakeServer:
    """The fake server."""
    return FakeServer(server)


@pytest.fixture
async def client(api: str) -> AsyncIterator[Any]:
    """An open client of this API."""
    level_class: Any = Level if api == "async" else blocking.Level
    level = level_class("client", backend="memory", mode=Level.CLIENT)
    async with level if api == "async" else AsyncAdapter(level):
        yield level if api == "async" else AsyncAdapter(level)


class RemoteServerAdapter:
    """The blocking `RemoteServer` with the interface of the asyncio one.

    Each test is written once, with ``await``, and runs with both.
    """

    def __init__(self, remote: http_blocking.RemoteServer) -> None:
        self.remote = remote

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.remote, name)
        if not callable(member):
            return member

        def call(*args: Any, **options: Any) -> Any:
            return _awaitable(member, args, options)

        return call

    def watch(self, **options: Any) -> AsyncIterator[Any]:
        return _iterate(self.remote.watch(**options))

    def scan(self, **options: Any) -> AsyncIterator[Any]:
        return _iterate(self.remote.scan(**options))

    def __repr__(self) -> str:
        return repr(self.remote)


async def _awaitable(member: Callable[..., Any], args: Any, options: Any) -> Any:
    return member(*args, **options)


async def _iterate(iterator: Any) -> AsyncIterator[Any]:
    try:
        for item in iterator:
            yield item
    finally:
        iterator.close()


@pytest.fixture
async def remote(fake: FakeServer, api: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """A factory of `RemoteServer` objects of this API, which retry without delay."""
    monkeypatch.setattr(calls, "backoff", lambda *_: 0.0)
    created: list[Any] = []

    def create(url: str = URL, **options: Any) -> Any:
        transport: Any = httpx.MockTransport(fake)
        if api == "async":
            created.append(RemoteServer(url, transport=transport, **options))
        else:
            created.append(RemoteServerAdapter(http_blocking.RemoteServer(url, transport=transport, **options)))
        return created[-1]

    yield create
    for one in created:
        closing = one.close()
        assert inspect.isawaitable(closing)
        await closing
