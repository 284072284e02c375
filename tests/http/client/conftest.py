"""A `RemoteServer` of either API, over a server in this process."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from treehub_level import Level, blocking
from treehub_level.http import RemoteServer
from treehub_level.http.client import blocking as http_blocking
from treehub_level.http.client import calls as _calls

from .fake import URL, Fake


@pytest.fixture
def server() -> Iterator[blocking.Level]:
    """The level that the server serves."""
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as level:
        yield level


@pytest.fixture
def fake(server: blocking.Level) -> Fake:
    """The server."""
    return Fake(server)


class Blocking:
    """The blocking twin with the manners of the other, so that each test is written once."""

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
async def remote(fake: Fake, api: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Makes a `RemoteServer` of this API. It waits for nothing: its delays are cut to nothing."""
    monkeypatch.setattr(_calls, "backoff", lambda *_: 0.0)
    made: list[Any] = []

    def make(url: str = URL, **options: Any) -> Any:
        transport: Any = httpx.MockTransport(fake)
        if api == "async":
            made.append(RemoteServer(url, transport=transport, **options))
        else:
            made.append(Blocking(http_blocking.RemoteServer(url, transport=transport, **options)))
        return made[-1]

    yield make
    for one in made:
        closed = one.close()
        assert inspect.isawaitable(closed)
        await closed
