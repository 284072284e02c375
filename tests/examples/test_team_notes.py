"""``examples/team_notes.py``: users, rules, a live page, two live clients, and a quick stop."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import PATIENCE, until

from treehub_level import Level, MemoryBackend, TransportError, events
from treehub_level.http import RemoteServer

pytest.importorskip("fastapi", reason="needs FastAPI, whose releases for Python 3.10 have no server-sent events")

PROGRAM = Path(__file__).parents[2] / "examples" / "team_notes.py"


class Service:
    """The program, on a free port."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        command = [sys.executable, str(PROGRAM), str(folder), "--port=0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = match[0]
                return
        raise AssertionError("the service did not start")

    def token(self, name: str, password: str) -> str:
        answer = httpx.post(f"{self.url}/login", json={"name": name, "password": password})
        return str(answer.raise_for_status().json()["token"])

    def server(self, database: str, token: str) -> RemoteServer:
        return RemoteServer(f"{self.url}/sync/v1/{database}", token=token)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    started = Service(tmp_path / "stores")
    yield started
    started.process.kill()
    started.process.wait()
    assert started.process.stdout is not None
    started.process.stdout.close()


def client(name: str) -> Level:
    return Level(name, backend=MemoryBackend, mode=Level.CLIENT)


async def events_of(response: httpx.Response) -> AsyncIterator[Any]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_users_share_notes_live_and_the_service_stops_at_once(service: Service) -> None:
    ada, ben = service.token("ada", "lovelace"), service.token("ben", "franklin")
    async with (
        httpx.AsyncClient(base_url=service.url, cookies={"token": ben}, timeout=PATIENCE) as page,
        client("ada") as ada_store,
        client("ben") as ben_store,
        service.server("team", ada) as ada_server,
        service.server("team", ben) as ben_server,
        ada_store.live(ada_server) as ada_session,
        ben_store.live(ben_server) as ben_session,
        page.stream("GET", "/notes") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        shown = events_of(stream)
        await ada_store.put("note/1", {"text": "Hello", "author": "ada"})
        assert await anext(shown) == {"key": "1", "note": {"text": "Hello", "author": "ada"}, "by": "ada"}
        await until(lambda: ben_store.get("note/1"))

        assert (await page.post("/notes/1/like")).json() == 1
        assert (await anext(shown))["note"]["likes"] == 1
        assert (await page.post("/notes", json={"text": "From the page"})).status_code == 201
        assert (await anext(shown))["note"]["author"] == "ben"
        await until(lambda: ada_store.count(prefix="note/", limit=2))

        happened = ben_session.events()
        await ben_store.put("note/2", {"text": "", "author": "ben"})
        await ben_store.put("note/3", {"text": "Mine", "author": "ada"})
        refused = [event.conflict async for event in first_refusals(happened, 2)]
        assert {conflict.key: conflict.reason for conflict in refused} == {
            "note/2": "$.text: String should have at least 1 character",
            "note/3": "this note is another user's",
        }

        await ada_session.in_sync(within=PATIENCE)
        service.process.send_signal(signal.SIGTERM)
        assert [event async for event in shown] == []
        await asyncio.to_thread(service.process.wait, PATIENCE)
    assert service.process.returncode in (0, -signal.SIGTERM)
    assert service.process.stdout is not None
    log = service.process.stdout.read()
    assert "Application shutdown complete" in log
    assert "timeout graceful shutdown exceeded" not in log  # as after 10 seconds without the signals


async def first_refusals(happened: AsyncIterator[events.Event], count: int) -> AsyncIterator[events.Refused]:
    async for event in happened:
        if isinstance(event, events.Refused):
            yield event
            if not (count := count - 1):
                return


async def test_a_user_has_a_database_of_their_own(service: Service) -> None:
    ada, ben = service.token("ada", "lovelace"), service.token("ben", "franklin")
    async with client("ada") as store, service.server("ada", ada) as own, service.server("ada", ben) as others:
        await store.put("diary", "secret")
        await store.sync(own)
        assert await own.get("diary") == "secret"
        with pytest.raises(TransportError) as failure:
            await others.get("diary")
        assert failure.value.status == 404


def test_a_stranger_gets_nothing(service: Service) -> None:
    for name, password in [("ada", "franklin"), ("eve", ""), ("eve", "lovelace")]:
        answer = httpx.post(f"{service.url}/login", json={"name": name, "password": password})
        assert answer.status_code == 401
    for path in ("/notes", "/sync/v1/team", "/sync/v1/team/entries"):
        assert httpx.get(f"{service.url}{path}").status_code == 401
    assert "Log in" in httpx.get(service.url).text
