"""Limits of concurrent requests, writes and buffered bodies."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import httpx
import pytest
from replication.helpers import ask as request
from served import Served, StreamingRequest, asyncio_timeout

from treehub_level.http.server import run
from treehub_level.http.server.limits import Limits

JSON = {"content-type": "application/json"}


def assert_busy(response: httpx.Response, status: int) -> None:
    assert (response.status_code, response.json()["code"]) == (status, "LEVEL_BUSY")
    assert int(response.headers["retry-after"]) > 0


async def test_concurrent_requests_of_one_token_are_limited(served: Served) -> None:
    served.rebuild(limits=Limits(per_token=2))
    busy = await served.client_with(served.tokens.add(databases=["notes"]))
    async with asyncio_timeout(30):
        polls = [asyncio.ensure_future(busy.get("/v1/notes/changes?wait=60")) for _ in range(2)]
        await served.wait_for_long_poll(count=2)
        assert_busy(await busy.get("/v1/notes"), 429)
        assert (await served.client.get("/v1/notes")).status_code == 200
        await served.levels["notes"].put("a", 1)
        await asyncio.gather(*polls)
    assert (await busy.get("/v1/notes")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/notes/entries/b", 1),
        ("DELETE", "/v1/notes/entries/b", None),
        ("POST", "/v1/notes/change", {"cid": 0, "changes": [["b", 1]]}),
        ("POST", "/v1/notes/exchange", request(changes=[["b", 1]])),
    ],
)
async def test_concurrent_writes_to_a_database_are_limited(
    served: Served, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: Any
) -> None:
    served.rebuild(limits=Limits(writes=2))
    gate = threading.Lock()
    backend = served.memories["notes"]
    write = backend.write

    def slowly(*args: Any, **options: Any) -> None:
        with gate:
            write(*args, **options)

    monkeypatch.setattr(backend, "write", slowly)
    with gate:
        waiting = [asyncio.ensure_future(served.client.put("/v1/notes/entries/a", json=1)) for _ in range(2)]
        async with asyncio_timeout(30):
            while served.app.state.dispatcher.writes.active["notes"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert_busy(await served.client.request(method, path, json=body), 503)
        assert (await served.client.post("/v1/other/exchange", json=request())).status_code == 200
        assert (await served.client.put("/v1/other/entries/a", json=1)).status_code == 204
    assert [response.status_code for response in await asyncio.gather(*waiting)] == [204, 204]
    assert not served.app.state.dispatcher.writes.active


async def test_the_bytes_of_buffered_bodies_are_limited(served: Served) -> None:
    served.rebuild(tokens=None, limits=Limits(held_bytes=100))
    memory = served.app.state.dispatcher.body_reader.memory
    path = "/v1/notes/entries/a"
    async with StreamingRequest(served.app, "PUT", path, headers=JSON, body=[b'"' + b"x" * 80]).open() as stream:
        async with asyncio_timeout(30):
            while memory.buffered_bytes < 81:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert_busy(await served.client.put(path, json="y" * 40), 503)
        assert (await served.client.put(path, json="y")).status_code == 204
    assert stream.sent == []
    assert memory.buffered_bytes == 0
    assert (await served.client.put(path, json="y" * 40)).status_code == 204


async def test_a_long_poll_ends_when_its_client_disconnects(served: Served) -> None:
    served.rebuild(tokens=None)
    store = served.levels["notes"]._store
    async with StreamingRequest(served.app, "GET", "/v1/notes/changes?wait=60").open(), asyncio_timeout(30):
        await served.wait_for_long_poll()
    assert not store.listeners
    assert not served.app.state.dispatcher.requests.active


class Resource:
    """The module ``resource`` of another system.

    Args:
        present: The present limit of open files.
        maximum: Its reported maximum.
        allowed: The number that the system allows.
    """

    RLIM_INFINITY = 2**63 - 1
    RLIMIT_NOFILE = 8

    def __init__(self, present: int, maximum: int, allowed: int) -> None:
        self.limits, self._allowed = (present, maximum), allowed

    def getrlimit(self, kind: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        if limits[0] > self._allowed:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


INFINITY = Resource.RLIM_INFINITY


@pytest.mark.once
@pytest.mark.parametrize(
    ("present", "maximum", "allowed", "files", "connections"),
    [
        (1024, 1_048_576, 1_048_576, 1_048_576, 2000),  # Linux
        (1024, 1024, 1024, 1024, 512),
        (256, INFINITY, 61_440, 61_440, 2000),  # macOS
        (256, INFINITY, 10_240, 10_240, 2000),
        (256, INFINITY, 300, 256, 128),
        (INFINITY, INFINITY, 10, INFINITY, 2000),
        (256, INFINITY, INFINITY, INFINITY, 2000),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, present: int, maximum: int, allowed: int, files: int, connections: int
) -> None:
    resource = Resource(present, maximum, allowed)
    monkeypatch.setitem(sys.modules, "resource", resource)
    assert run._bounded_by_files(2000) == connections
    assert resource.limits[0] == files
