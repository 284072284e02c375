"""The command line of the conformance: its output and its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from treehub_level.testing.exchange.__main__ import main
from treehub_level.testing.exchange.clients.played_server import PlayedServer, edited
from treehub_level.testing.exchange.vectors import load_vectors

pytestmark = pytest.mark.once

SCENARIO = "a-reply-repeats-the-nonce-and-the-cid"
ANOTHER = "lines-hold-the-same-as-one-document"


@pytest.fixture
def server() -> Iterator[PlayedServer]:
    with PlayedServer().running() as played:
        yield played


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command, and return its exit code, its output and its errors."""
    code = main(arguments)
    written = capsys.readouterr()
    return code, written.out, written.err


def test_a_server_that_passes(server: PlayedServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "server", server.url, "--only", SCENARIO, "--only", ANOTHER)
    assert code == 0
    passed, skipped, _, summary = (line.split() for line in out.splitlines())
    assert sorted([passed[:2], skipped[:2]]) == [["passed", SCENARIO], ["skipped", ANOTHER]]
    assert summary == ["1", "passed,", "0", "failed,", "1", "skipped"]


def test_a_server_that_fails_is_told_what_was_sent_received_and_expected(
    server: PlayedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan(*[lambda turn: edited()(turn)] * 2)  # the first requests ask for the head
    server.usual = edited(base=7)
    code, out, _ = run(capsys, "server", server.url, "--only", SCENARIO)
    assert code == 1
    assert f"FAILED   {SCENARIO}  (docs/protocol.md, Request)" in out
    for label, text in (("expected", '"base" is 0'), ("sent", '"nonce"'), ("received", 'status 200: {"protocol": 2')):
        (line,) = [line for line in out.splitlines() if line.startswith(f"  {label} ")]
        assert text in line


def test_outcomes_as_json(server: PlayedServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "server", server.url, "--json", "--only", SCENARIO)
    outcomes = json.loads(out)
    expected: dict[str, Any] = {"name": SCENARIO, "section": "Request", "result": "passed", "reason": ""}
    assert (code, outcomes) == (0, [{**expected, "sent": None, "received": None}])


def test_a_database_that_is_in_use_is_not_written_to(server: PlayedServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.level.put("mine", 1)
    code, out, error = run(capsys, "server", server.url)
    assert (code, out) == (2, "")
    assert "has 1 changes" in error
    assert server.entries() == [["mine", 1]]
    assert run(capsys, "server", server.url, "--used", "--only", SCENARIO)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["server"], "name the URL"),
        (["server", "ftp://localhost/v1/notes"], "the URL of a database is needed"),
        (["server", "http://127.0.0.1:9/v1/notes"], "refused"),
        (["client"], "name the program"),
        (["client", "--", "no-such-program"], "no-such-program"),
        (["client", "--only", "no-such-scenario", "--", "true"], "there is no scenario 'no-such-scenario'"),
        (["client", "--", sys.executable, "-c", ""], "the client's process has ended"),
        (["client", "--", sys.executable, "-c", "print('hello')"], '{"id": …, "result": …}'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_that_cannot_begin(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, *arguments)
    assert (code, message in error) == (2, True), error


@pytest.mark.parametrize("kind", ["server", "client"])
def test_the_scenarios_are_listed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, kind, "--list")
    assert code == 0
    assert all(line.endswith(".") for line in out.splitlines()[1::2])


def test_the_vectors_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "vectors")
    assert (code, json.loads(out)["requests"]) == (0, load_vectors().requests)
