"""Two processes with one client store on SQLite: one is live, the other one writes and syncs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from treehub_level import Level, LockedError, blocking
from treehub_level.backends.base import GrantedSyncLock, Reader
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.blocking import client as blocking_client
from treehub_level.engine.modes import Client

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel has no locks of ranges for open file descriptions"),
]

PATIENCE = 20.0

#: A process with the client store and the server, which is a file too. It runs each line of its
#: input, and prints the result of an expression.
PROCESS = """
import sys
from treehub_level import Level, blocking
with (
    blocking.Level("server", backend="sqlite", mode=Level.SERVER) as server,
    blocking.Level("client", backend="sqlite", mode=Level.CLIENT) as client,
):
    print("open", flush=True)
    for line in sys.stdin:
        exec("result = " + line)
        print(result, flush=True)
"""


class Process:
    """Another process with the stores open."""

    def __init__(self, folder: Path) -> None:
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROCESS], stdin=pipe, stdout=pipe, text=True, bufsize=1, cwd=folder
        )
        assert self._read() == "open"

    def run(self, expression: str) -> str:
        """Evaluate an expression in the process, and return its text."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(expression + "\n")
        return self._read()

    def _read(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip("\n")

    def kill(self) -> None:
        os.kill(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def process(folder: Path) -> Iterator[Process]:
    other = Process(folder)
    try:
        yield other
    finally:
        other.popen.kill()
        other.popen.communicate()


@pytest.fixture
def levels(tmp_path: Path) -> Iterator[tuple[blocking.Level, blocking.Level]]:
    """The client and the server, in this process."""
    with (
        blocking.Level(tmp_path / "server", backend="sqlite", mode=Level.SERVER) as server,
        blocking.Level(tmp_path / "client", backend="sqlite", mode=Level.CLIENT) as client,
    ):
        yield client, server


def wait_until(condition: Callable[[], Any], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def _has(level: blocking.Level, key: str, value: object) -> bool:
    return bool(level.get(key) == value)


def test_a_live_session_pushes_the_writes_of_another_process(levels: Any, tmp_path: Path) -> None:
    client, server = levels
    with client.live(server) as session, process(tmp_path) as other:
        session.in_sync(within=PATIENCE)
        other.run("client.put('there', 1)")
        wait_until(lambda: server.get("there") == 1)
        client.put("here", 2)
        server.put("far", 3)
        wait_until(lambda: other.run("client.query()") == "[('far', 3), ('here', 2), ('there', 1)]")
        session.in_sync(within=PATIENCE)
        assert (client.pending(), session.last_error, session.state) == (0, None, "idle")


def test_sync_beside_a_live_session_reports_what_it_has_done(levels: Any, tmp_path: Path) -> None:
    client, server = levels
    with client.live(server) as session, process(tmp_path) as other:
        session.in_sync(within=PATIENCE)
        for number in range(10):
            other.run(f"client.put('key', {number})")
            assert other.run("client.sync(server).pushed") in {"0", "1"}  # the session may have been first
            assert server.get("key") == number
            server.put("far", number)
            wait_until(partial(_has, client, "far", number))
        session.in_sync(within=PATIENCE)
        assert session.last_error is None
        assert client.conflicts() == []


def test_a_second_live_session_stands_by_and_takes_over_from_a_killed_process(levels: Any, tmp_path: Path) -> None:
    client, server = levels
    with process(tmp_path) as other:
        assert other.run("(session := client.live(server)).__enter__()").startswith("<treehub_level.blocking live")
        other.run("session.in_sync()")
        with client.live(server) as session:
            wait_until(lambda: session.state == "standby")
            client.put("a", 1)
            session.pushed(within=PATIENCE)  # works in standby, too
            assert (server.get("a"), session.state) == (1, "standby")
            server.put("b", 2)
            wait_until(lambda: client.get("b") == 2)
            assert other.run("(session.state, session.last_error)") == "('idle', None)"
            other.kill()
            wait_until(lambda: session.state == "idle")
            server.put("c", 3)
            wait_until(lambda: client.get("c") == 3)
            assert session.last_error is None


@pytest.mark.parametrize("way", ["left", "paused"])
def test_a_session_that_is_left_or_paused_lets_another_one_go_on(levels: Any, tmp_path: Path, way: str) -> None:
    client, server = levels
    with blocking.Level(tmp_path / "client", backend="sqlite", mode=Level.CLIENT) as second:
        first = client.live(server)
        with first:
            first.in_sync(within=PATIENCE)
            with second.live(server) as session:
                wait_until(lambda: session.state == "standby")
                if way == "paused":
                    first.pause()
                else:
                    first.__exit__(None, None, None)
                wait_until(lambda: session.state == "idle")
                if way == "paused":
                    first.resume()
                    wait_until(lambda: first.state == "standby")


async def test_asyncio_sessions_stand_by_and_take_over(tmp_path: Path) -> None:
    where: dict[str, Any] = {"backend": "sqlite", "mode": Level.CLIENT}
    async with (
        Level(tmp_path / "server", backend="sqlite", mode=Level.SERVER) as server,
        Level(tmp_path / "client", **where) as client,
        Level(tmp_path / "client", **where) as second,
        second.live(server) as session,
    ):
        await session.in_sync(within=PATIENCE)
        async with client.live(server) as standing:
            await client.put("a", 1)
            await standing.in_sync(within=PATIENCE)
            assert (standing.state, await server.get("a")) == ("standby", 1)
            await client.put("b", 2)
            await client.sync(server)
            assert await server.get("b") == 2
            await session.__aexit__(None, None, None)
            await second.put("c", 3)
            await standing.in_sync(within=PATIENCE)
            events = standing.events()
            while standing.state != "idle":
                await events.__anext__()
            assert await server.get("c") == 3


def test_sync_names_the_process_that_has_synchronised_for_too_long(
    levels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = levels
    monkeypatch.setattr(blocking_client, "PATIENCE", 0.2)
    with process(tmp_path) as other:
        other.run("(lock := client._store.backend.sync_lock('sync')).acquire()")
        client.put("a", 1)
        with pytest.raises(LockedError, match=f"the process {other.popen.pid} synchronises it now") as caught:
            client.sync(server)
        assert caught.value.__suppress_context__
        waiting = threading.Timer(0.1, other.kill)
        monkeypatch.setattr(blocking_client, "PATIENCE", PATIENCE)
        waiting.start()
        assert client.sync(server).pushed == 1
        waiting.join()


def test_control_two_live_sessions_without_locks_do_not_stand_by(
    levels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their data is safe all the same: each discards replies once the other has sent a request."""
    monkeypatch.setattr(SQLiteBackend, "sync_lock", lambda self, role: GrantedSyncLock())
    client, server = levels
    stale: list[bool] = []
    holds = Client.holds

    def counted(self: Client, reader: Reader) -> bool:
        stale.append(not holds(self, reader))
        return holds(self, reader)

    monkeypatch.setattr(Client, "holds", counted)
    with blocking.Level(tmp_path / "client", backend="sqlite", mode=Level.CLIENT) as second:
        with client.live(server) as first, second.live(server) as other:
            for number in range(20):
                (client, second)[number % 2].put(f"key{number}", number)
                server.put(f"far{number}", number)
            for session in (first, other):
                session.in_sync(within=PATIENCE)
            assert "standby" not in (first.state, other.state)
        assert client.query() == server.query()
        assert len(client.query()) == 40
        assert client.conflicts() == []
        assert True in stale


def test_commands_that_only_read_run_beside_a_client(tmp_path: Path) -> None:
    path = str(tmp_path / "client")
    with blocking.Level(path, backend="sqlite", mode=Level.CLIENT) as client:
        client.put("a", 1)
        for command in (["get", path, "a"], ["query", path], ["info", path], ["dirty", path], ["verify", path]):
            subprocess.run(
                [sys.executable, "-m", "treehub_level.cli", *command, "--backend", "sqlite"], check=True, timeout=60
            )
        client.put("b", 2)
        assert client.pending() == 2
