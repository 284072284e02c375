"""Two processes open one client store: once the second writes, the first gets an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from treehub_level import Level, blocking

pytestmark = pytest.mark.once

FIRST = """
import sys
from treehub_level import Level, LockedError, blocking
with blocking.Level(sys.argv[1], backend="sqlite", mode=Level.CLIENT) as client:
    client.put("first", 1)
    print("written", flush=True)
    input()
    for write in (lambda: client.put("a", 1), lambda: client.sync(server)):
        with blocking.Level("server", backend="memory", mode=Level.SERVER) as server:
            try:
                write()
            except LockedError as error:
                print(error)
    print(client.get("second"))
"""


def test_of_two_processes_with_one_client_store_the_first_gets_an_error_and_the_second_works(tmp_path: Path) -> None:
    path = str(tmp_path / "client")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", FIRST, path], stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "written\n"
        with (
            blocking.Level(path, backend="sqlite", mode=Level.CLIENT) as second,
            blocking.Level("server", backend="memory", mode=Level.SERVER) as server,
        ):
            second.put("second", 2)
            said, _ = first.communicate("\n", timeout=60)
            assert second.sync(server).pushed == 2
            assert server.query() == [("first", 1), ("second", 2)]
    put, sync, read = said.splitlines()
    assert repr(path) in put
    assert put == sync
    assert "opened again" in put
    assert read == "2"


def test_commands_that_only_read_do_not_take_over_a_client_store(tmp_path: Path) -> None:
    path = str(tmp_path / "client")
    with blocking.Level(path, backend="sqlite", mode=Level.CLIENT) as client:
        client.put("a", 1)
        for command in (["get", path, "a"], ["query", path], ["info", path], ["dirty", path], ["verify", path]):
            subprocess.run(
                [sys.executable, "-m", "treehub_level.cli", *command, "--backend", "sqlite"], check=True, timeout=60
            )
        client.put("b", 2)
        assert client.pending() == 2
