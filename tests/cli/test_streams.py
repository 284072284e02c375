"""Standard streams that are closed, full or broken: one line, a true exit code, no traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from treehub_level.backends import create
from treehub_level.cli import application, streams
from treehub_level.cli.application import app

from .conftest import Cli

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full"),
    pytest.mark.usefixtures("stores"),
]

COMMAND = [sys.executable, "-m", "treehub_level.cli"]
#: Commands that print a result, and change nothing.
READING = [
    "get normal a",
    "query normal",
    "keys normal --json",
    "count normal",
    "dump normal",
    "info normal",
    "changes server",
    "history server a",
    "dirty client",
    "followed client",
    "verify normal",
    "token list tokens",
]
#: Commands that print once their work is done, and a command that reads their result.
WRITING = {
    "put normal n 1 --json": "get normal n",
    "delete normal a --json": "get server a",
    "load normal in.jsonl": "get normal n",
    "sync client server": "get client a",
    "follow client a/ --json": "followed client",
    "compact server --json": "info server",
    "adopt normal --mode server": "changes normal",
    "copy normal copied": "get copied a",
}


@pytest.fixture
def stores(cli: Cli) -> None:
    """Create a store of each mode, with a key ``a``, and a token file."""
    for mode in ("normal", "server", "client"):
        cli("put", mode, "a", "1", "--mode", mode)
    Path("in.jsonl").write_text('{"key": "n", "value": 1}\n')
    cli("token", "add", "tokens", "--database", "*")


@contextmanager
def stdout_that_is(kind: str) -> Iterator[io.TextIOWrapper | None]:
    """Yield a stdout of a process that is closed, full or broken."""
    if kind == "closed":
        yield None
        return
    if kind == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    with streams._text_stream(
        io.BufferedWriter(streams._StandardOutput(descriptor, "w")), line_buffering=False
    ) as stdout:
        yield stdout


def run(kind: str, *args: str) -> tuple[int, str]:
    """Run a command with a stdout of a kind, and return its exit code and stderr."""
    errors = io.StringIO()
    with stdout_that_is(kind) as stdout, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        patched.setattr(sys, "stderr", errors)
        with pytest.raises(SystemExit) as ended:
            app(list(args))
    return int(str(ended.value.code or 0)), "".join(
        line
        for line in errors.getvalue().splitlines(keepends=True)
        if not line.startswith("co")  # progress of copy
    )


@pytest.mark.parametrize("command", READING)
def test_a_command_that_cannot_print_its_result_fails_with_one_line(command: str) -> None:
    for kind, reason in (("closed", "is closed"), ("full", "No space left on device")):
        code, error = run(kind, *command.split())
        assert code == 1
        assert error.count("\n") == 1
        assert f"stdout {reason}" in error or (f"stdout cannot be written: {reason}" in error)
    assert run("broken", *command.split()) == (0, "")


@pytest.mark.parametrize("command", WRITING)
def test_a_command_with_a_closed_stdout_changes_nothing(cli: Cli, command: str) -> None:
    before = cli(*WRITING[command].split(), code=None).code
    code, error = run("closed", *command.split())
    assert code == 1
    assert "stdout is closed" in error
    assert cli(*WRITING[command].split(), code=None).code == before


@pytest.mark.parametrize("command", WRITING)
def test_a_command_with_a_full_stdout_says_that_its_work_is_done(cli: Cli, command: str) -> None:
    code, error = run("full", *command.split())
    assert code == 1
    assert error.count("\n") == 1
    assert "No space left on device; the command has done its work" in error
    cli(*WRITING[command].split())


@pytest.mark.parametrize("command", WRITING)
def test_a_command_whose_reader_has_gone_succeeds(cli: Cli, command: str) -> None:
    assert run("broken", *command.split()) == (0, "")
    cli(*WRITING[command].split())


@pytest.mark.parametrize("kind", ["closed", "full", "broken"])
def test_put_prints_nothing_and_needs_no_stdout(cli: Cli, kind: str) -> None:
    assert run(kind, "put", "normal", "n", "1") == (0, "")
    assert cli("get", "normal", "n").out == "1\n"


@pytest.mark.parametrize("kind", ["closed", "full", "broken"])
def test_a_token_that_cannot_be_printed_is_not_left_in_the_file(cli: Cli, kind: str) -> None:
    before = cli("token", "list", "tokens").out
    code, error = run(kind, "token", "add", "tokens", "--database", "*")
    assert (code, error.count("\n")) == (1, 1)
    assert cli("token", "list", "tokens").out == before


def test_verify_tells_of_faults_though_its_reader_has_gone() -> None:
    with closing(create("leveldb", "server", {})) as backend:
        backend.open()
        backend.write([(b"bad", b"{")])
    assert run("broken", "verify", "server") == (1, "")


def test_an_error_in_json_for_a_closed_stdout() -> None:
    code, error = run("closed", "get", "normal", "a", "--json")
    assert (code, json.loads(error)["code"]) == (1, "CLI_OUTPUT")


# ---------------------------------------------------------------------------------------- controls


def test_control_a_command_that_looks_at_stdout_too_late_is_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "require_stdout", lambda: None)
    with pytest.raises(AssertionError):
        test_a_command_with_a_closed_stdout_changes_nothing(cli, "put normal n 1 --json")


def test_control_a_command_that_does_not_wait_for_its_output_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "flush_stdout", lambda: None)
    with pytest.raises((AssertionError, streams.OutputError)):
        test_a_command_that_cannot_print_its_result_fails_with_one_line("get normal a")


def test_control_an_error_of_a_stream_that_is_not_translated_is_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(streams._StandardOutput, "_fail")
    for command in ("get normal a", "put normal n 1 --json"):
        with pytest.raises(AssertionError):
            test_a_command_that_cannot_print_its_result_fails_with_one_line(command)


# ---------------------------------------------------------------------------------- as processes


def shell(line: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of a shell, in which ``$T`` is the command."""
    environment = {**os.environ, "T": " ".join(COMMAND)}
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("$T put normal n 1 >&-", 0, b""),
        ("$T get normal a >&-", 1, b"error: stdout is closed"),
        ("$T get normal a >/dev/full", 1, b"error: stdout cannot be written: No space"),
        ("$T get normal absent 2>&-", 1, b""),
        ("$T get normal absent 2>/dev/full", 1, b""),
        ("$T unknown 2>/dev/full", 2, b""),
        ("$T unknown >&- 2>&- <&-", 2, b""),
        ("$T --help >/dev/full", 1, b"error: stdout cannot be written: No space"),
        ("$T --help >&-", 0, b""),
        ("$T --version | true; exit ${PIPESTATUS[0]}", 0, b""),
        ("$T load normal - <&-", 1, b"error: stdin is closed"),
        ("$T put normal n - <&-", 1, b"error: stdin is closed"),
    ],
)
def test_a_process_with_a_bad_stream_has_a_true_exit_code(line: str, code: int, error: bytes) -> None:
    done = shell(line)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(error)
    assert done.stderr.count(b"\n") == bool(error)


def test_a_closed_stream_is_never_the_file_of_a_store() -> None:
    assert shell("$T load normal in.jsonl --json >&- 2>&- <&-; $T put normal n 2 >&- 2>&- <&-").returncode == 0
    assert shell("$T verify normal").stdout.endswith(b"nothing is wrong\n")
