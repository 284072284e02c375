"""``sync --live`` and ``sync --rebind`` as processes, and ``clients``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

from treehub_level import Level, blocking
from treehub_level.http.blocking import RemoteServer

from .conftest import Cli

COMMAND = [sys.executable, "-m", "treehub_level.cli"]


class Service:
    """``sync --live --json`` in a process of its own. Its output is read to the wanted event."""

    def __init__(self, client: Path, server: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "sync", str(client), server, "--live", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, wanted: Callable[[str], bool]) -> str:
        """Read lines up to one that is wanted, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if wanted(line):
                return line
        assert self.process.stderr is not None
        raise AssertionError(f"the process ended: {self.process.stderr.read()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def service(client: Path, server: str, *options: str) -> Iterator[Service]:
    """Run the service for the length of the block."""
    running = Service(client, server, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def is_event(**members: Any) -> Callable[[str], bool]:
    return lambda line: members.items() <= json.loads(line).items()


def test_a_service_syncs_until_it_is_stopped_and_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "stores")
    try:
        with service(tmp_path / "client", server.url, "--json") as live:
            live.until(is_event(event="synced"))
            with RemoteServer(server.url) as remote:
                remote.put("a", 1)
                live.until(is_event(event="pulled", count=1, keys=["a"]))
                server.kill()
                live.until(is_event(event="failed", code="LEVEL_TRANSPORT"))
                live.until(is_event(event="state", new="offline"))
                server.start()
                live.until(is_event(event="synced"))
                remote.put("b", 2)
            live.until(is_event(event="pulled", keys=["b"]))
            assert live.stop() == 0
        with blocking.Level(tmp_path / "client", mode=Level.CLIENT) as client:
            assert client.query() == [("a", 1), ("b", 2)]
        with service(tmp_path / "client", server.url) as live:
            live.until(lambda line: line.endswith("\tin sync\n"))
            server.kill()
            assert "could not be reached" in live.until(lambda line: "\toffline\t" in line)
            assert live.stop(signal.SIGINT) == 0
    finally:
        server.kill() if server._process is not None and server._process.poll() is None else None


def test_a_client_of_another_server_is_told_of_rebind(cli: Cli, tmp_path: Path) -> None:
    for name, key in (("one", "a"), ("two", "b")):
        with blocking.Level(name, mode=Level.SERVER) as server:
            server.put(key, 1)
    cli("sync", "client", "one")
    cli("put", "client", "mine", "1")
    refused = cli("sync", "client", "two", "--json", code=1).error
    assert refused["code"] == "LEVEL_STORE_MISMATCH"
    assert "treehub-level sync --rebind" in refused["message"]
    with service(tmp_path / "client", str(tmp_path / "two")) as live:
        assert live.process.wait(60) == 1
        assert live.process.stderr is not None
        assert "treehub-level sync --rebind" in live.process.stderr.read()
    report = cli("sync", "client", "two", "--rebind", "--json").json
    assert report["consistent"]
    assert "mine\t1" in cli("query", "two").out
    cli("sync", "client", "two", "--rebind")
    assert cli("sync", "client", "two", "--live", "--no-push", code=2)


def test_the_clients_of_a_server_are_listed_and_forgotten(cli: Cli) -> None:
    with blocking.Level("server", mode=Level.SERVER):
        pass
    cli("sync", "client", "server")
    cli("put", "client", "a", "1")
    cli("sync", "client", "server")
    (known,) = cli("clients", "server", "--json").lines
    assert known["pushed_cid"] == 1
    assert known["behind"] == 0
    assert time.strptime(known["pushed_at"], "%Y-%m-%dT%H:%M:%SZ")
    line = cli("clients", "server").out
    assert line.startswith(f"{known['id']}\t-\tpushed 20")
    assert "--forget" not in line
    assert cli("clients", "server", "--forget", known["id"]).out == f"forgot {known['id']}\n"
    assert cli("clients", "server", "--forget", known["id"], "--json", code=1).error["code"] == "CLI_NO_CLIENT"
    assert cli("clients", "server").out == ""
    assert cli("clients", "client", "--json", code=1).error["code"] == "LEVEL_MODE"


@pytest.mark.parametrize("token", ["operator", "client"])
def test_an_operator_sees_the_clients_of_a_server_at_a_url(
    cli: Cli, tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treehub_level.http import Tokens

    tokens = Tokens(tmp_path / "tokens")
    writer = tokens.add(databases=["notes"], write=True, name="alice", operator=token == "operator")
    server = ServerProcess(tmp_path / "stores", "--tokens", str(tmp_path / "tokens"))
    try:
        monkeypatch.setenv("TREEHUB_LEVEL_TOKEN", writer)
        cli("sync", "client", server.url)
        cli("put", "client", "a", "1")
        cli("sync", "client", server.url)
        if token == "client":
            assert cli("clients", server.url, "--json", code=1).error["code"] == "LEVEL_FORBIDDEN"
            return
        (known,) = cli("clients", server.url, "--json").lines
        assert (known["name"], known["pushed_cid"]) == ("alice", 1)
        cli("clients", server.url, "--forget", known["id"])
        assert cli("clients", server.url, "--forget", known["id"], "--json", code=1).error["code"] == "CLI_NO_CLIENT"
        assert cli("clients", server.url).out == ""
    finally:
        server.kill()
