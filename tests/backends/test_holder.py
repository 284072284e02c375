"""The process that has a store open, as error messages name it, and never another one."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

from treehub_level import LockedError, blocking
from treehub_level.backends import holder
from treehub_level.backends.holder import Holder

pytestmark = pytest.mark.once

_KEEP_OPEN = """
import sys
from treehub_level import blocking
with blocking.Level(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
print("closed", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program with a store open. It closes the store at the signal SIGTERM, or is killed."""
    program = folder / "keeper.py"
    program.write_text(_KEEP_OPEN, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(program), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def refusal(path: Path) -> LockedError:
    """Return the error of an attempt to open a store."""
    with pytest.raises(LockedError) as found:
        blocking.Level(path).open()
    return found.value


def test_the_process_that_has_a_store_open_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with another_process(tmp_path, path) as process:
        error = refusal(path)
        assert (error.pid, error.program, error.url) == (process.pid, "keeper.py", None)
        assert f"in process {process.pid} (keeper.py)" in str(error)
        assert "read_only=True" in str(error)
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.pid, copy.host, copy.program) == (str(error), error.pid, error.host, error.program)
        with blocking.Level(path, read_only=True) as level:
            assert level.query() == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    with blocking.Level(path) as level:  # a killed process stops no other one
        assert refusal(path).pid == os.getpid()
        assert "in this process" in str(refusal(path))
        level.put("a", 1)


def test_a_server_is_named_with_the_url_of_the_store(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    try:
        from treehub_level.http.blocking import RemoteServer

        with RemoteServer(server.url) as remote:
            remote.put("a", 1)
        error = refusal(tmp_path / "notes")
        assert (error.program, error.url) == ("treehub-level", server.url) or error.program == "treehub-level serve"
        assert f"it serves the store at {server.url}" in str(error)
        command = [sys.executable, "-m", "treehub_level.cli"]
        for arguments in (["get", "notes", "a"], ["verify", "notes"], ["info", "notes"], ["dump", "notes"]):
            done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        put = subprocess.run(
            [*command, "put", "notes", "b", "2", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert json.loads(put.stderr)["code"] == "LEVEL_LOCKED"
        assert server.url in put.stderr
    finally:
        server.stop()
    with blocking.Level(tmp_path / "notes", mode=blocking.Level.SERVER) as level:
        assert level.get("a") == 1


def test_a_process_that_has_closed_the_store_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path):
        pass
    assert (path / "LOCK").read_bytes() == b""


def stored(**changes: Any) -> Holder:
    """The holder that a lock file would name: this process, with some changes."""
    members = json.loads(holder.this_process().to_stored())
    return Holder(**{**members, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"started": 1}, {"pid": 2**22 + 1}],
    ids=["a process id that another process has now", "a process that has ended"],
)
def test_an_old_name_is_not_repeated(changes: dict[str, Any]) -> None:
    old = stored(**changes)
    assert old.has_ended
    error = holder.locked_error("LevelDB", "store", old)
    assert (error.pid, error.program) == (None, None)
    assert "in this process or another" in str(error)


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"boot": "another container"}], ids=str)
def test_a_process_of_another_machine_is_named_as_the_file_says(changes: dict[str, Any]) -> None:
    other = stored(pid=1, **changes)
    assert not other.has_ended
    assert not other.is_this_process
    error = holder.locked_error("LevelDB", "store", other)
    assert f"on {other.host}, as its lock file says" in str(error)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"pid":"1"}', b"\xff" * 5000, b'{"pid":1,"host":2,"program":"x"}'],
    ids=["empty", "cut", "array", "text", "binary", "number"],
)
def test_a_lock_file_of_another_program_names_no_process(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "LOCK").write_bytes(content)
    assert Holder.read(str(tmp_path / "LOCK")) is None
    assert Holder.read(str(tmp_path / "absent")) is None


def test_a_store_with_another_name_than_that_of_a_database_has_the_url_of_its_server() -> None:
    error = holder.locked_error("LevelDB", "/stores/My Notes", stored(pid=1, host="h", url="http://h:1"))
    assert error.url == "http://h:1"
