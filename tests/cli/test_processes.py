"""The command line as a process: pipes, signals, locales and terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databases import Database

from treehub_level import blocking

#: These tests start processes, which is slow, and do not depend on the core.
pytestmark = pytest.mark.once

COMMAND = [sys.executable, "-m", "treehub_level.cli"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one of the processes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def large() -> str:
    """Create a store that is larger than the buffer of a pipe."""
    with blocking.Level("large") as level:
        level.load((f"key {number:05}", "x" * 100) for number in range(20_000))
    return "large"


def run(*args: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *args], capture_output=True, timeout=60, check=False, **options)


def test_output_and_exit_codes_follow_the_conventions() -> None:
    put = run("put", "store", "a", "1")
    assert (put.returncode, put.stdout, put.stderr) == (0, b"", b"")
    missing = run("get", "store", "b")
    assert (missing.returncode, missing.stdout, missing.stderr) == (1, b"", b"error: store has no key 'b'\n")
    usage = run("get", "store")
    assert (usage.returncode, usage.stdout) == (2, b"")
    assert b"KEY" in usage.stderr


def test_stores_can_be_piped_into_each_other(large: str) -> None:
    dump = subprocess.Popen([*COMMAND, "dump", large], stdout=subprocess.PIPE)
    load = subprocess.Popen([*COMMAND, "load", "copy", "--json"], stdin=dump.stdout, stdout=subprocess.PIPE)
    assert dump.stdout is not None
    dump.stdout.close()
    out, _ = load.communicate(timeout=60)
    assert (dump.wait(timeout=60), load.returncode) == (0, 0)
    assert json.loads(out) == {"loaded": 20_000, "cid": None}


def test_an_invalid_line_in_a_pipe_ends_the_load_before_its_batch() -> None:
    lines = b"".join(b'{"key": "%d", "value": 1}\n' % number for number in range(1500))
    load = subprocess.run([*COMMAND, "load", "store"], input=lines + b'{"key": "cut', capture_output=True, check=False)
    assert load.returncode == 1
    assert load.stderr.startswith(b"error: stdin, line 1501: not JSON (")
    assert load.stderr.endswith(b"it was truncated; loaded 1,000 records\n")
    assert run("count", "store").stdout == b"1000\n"


def test_a_database_connection_that_is_reopened_prints_nothing(postgres: Database) -> None:
    store = f"{postgres.url}?store=cut"
    command = [*COMMAND, "load", f"{store}&application_name=cut", "--backend", "postgres", "--batch-size", "1"]
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert load.stdin is not None
    load.stdin.write(b'{"key": "a", "value": 1}\n')
    load.stdin.flush()
    deadline = time.monotonic() + 60
    with blocking.Level(store, backend="postgres") as level:
        while level.get("a") is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with psycopg.connect(postgres.url, autocommit=True) as other:
        cut = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut'"
        ).fetchall()
    out, errors = load.communicate(b'{"key": "b", "value": 2}\n', timeout=60)
    assert (load.returncode, out[:16], errors) == (0, b"loaded 2 records", b"")
    assert cut


@pytest.mark.parametrize("command", [("dump", "large"), ("query", "large"), ("keys", "large", "--json")])
def test_a_reader_that_closes_the_pipe_ends_a_command_without_error(large: str, command: tuple[str, ...]) -> None:
    process = subprocess.Popen([*COMMAND, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
def test_stdout_is_utf8_in_every_locale(locale: dict[str, str]) -> None:
    with blocking.Level("store") as level:
        level.put("ключ", "日本")
    environment = {**os.environ, **locale, "PYTHONIOENCODING": "ascii"}
    assert run("query", "store", env=environment).stdout == 'ключ\t"日本"\n'.encode()
    assert run("dump", "store", env=environment).stdout == '{"key":"ключ","value":"日本"}\n'.encode()
    assert "ключ".encode() in run("get", "store", "ключ!", env={**environment, "PYTHONUTF8": "1"}).stderr


def test_a_key_that_is_not_utf8_is_refused_in_one_line() -> None:
    for options in ((), ("--json",)):
        refused = run("put", "store", b"\x80", "1", *options)
        assert refused.returncode == 1
        assert refused.stderr.count(b"\n") == 1
        assert b"surrogate" in refused.stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Restore SIGINT for child processes: a shell ignores it in background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_prints_the_number_of_records_loaded() -> None:
    process = subprocess.Popen(
        [*COMMAND, "load", "store"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    for number in range(2000):
        process.stdin.write(b'{"key": "%d", "value": 1}\n' % number)
    process.stdin.flush()
    _wait_for(Path("store/CURRENT"))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err.startswith(b"error: interrupted: loaded ")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    "command",
    [("load", "store", "in.jsonl", "--json"), ("dump", "large"), ("copy", "large", "to", "--json")],
    ids=" ".join,
)
def test_a_progress_bar_shows_on_a_terminal_and_leaves_stdout_alone(large: str, command: tuple[str, ...]) -> None:
    pty = pytest.importorskip("pty", reason="a terminal needs a Unix")
    Path("in.jsonl").write_text('{"key": "a", "value": 1}\n')
    terminal, stderr = pty.openpty()
    done = subprocess.run(
        [*COMMAND, *command],
        stdout=subprocess.PIPE,
        stderr=stderr,
        timeout=60,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(stderr)
    shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert done.returncode == 0
    assert all(map(json.loads, done.stdout.splitlines()))
    assert f"{command[0]} ".encode() in shown


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
