"""The minimum rate at which a peer takes responses: in virtual time, and through real sockets."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from treehub_level import Level, blocking
from treehub_level.http import Tokens
from treehub_level.http.server.sending import PacedConnection, _CountingTransport

pytestmark = pytest.mark.once


class Clock:
    """The part of an event loop that a connection uses, in virtual time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        timer = (self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Run the timers of the next seconds."""
        end = self.now + seconds
        while self.timers and (timer := min(self.timers, key=lambda timer: timer[0]))[0] <= end:
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = end


class Pipe:
    """A transport whose peer takes bytes when it is told to."""

    def __init__(self) -> None:
        self.unsent = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


class Sending:
    """A connection that sends a page, and a peer that takes it."""

    def __init__(self) -> None:
        self.clock, self.pipe = Clock(), Pipe()
        self.connection = PacedConnection.__new__(PacedConnection)
        self.connection.loop = self.clock  # type: ignore[assignment]
        self.connection._counter = _CountingTransport(self.pipe, self.connection._on_write)  # type: ignore[arg-type]
        self.connection.transport = self.connection._counter  # type: ignore[assignment]

    def send(self, size: int, steps: Iterator[tuple[float, int]]) -> int:
        """Send a page to a peer that takes so many bytes after so many seconds, step by step.

        Returns:
            The bytes that it got.
        """
        left, taken = size, 0
        for seconds, count in steps:
            while left and self.pipe.unsent < 16 << 10:
                piece = min(left, 64 << 10)
                self.connection.transport.write(b"x" * piece)
                left -= piece
            self.clock.advance(seconds)
            if self.pipe.aborted or not (left or self.pipe.unsent):
                break
            taken += min(count, self.pipe.unsent)
            self.pipe.unsent -= min(count, self.pipe.unsent)
        return taken


def steady(rate: int, seconds: float = 1.0) -> Iterator[tuple[float, int]]:
    while True:
        yield seconds, int(rate * seconds)


def bursts(count: int, seconds: float) -> Iterator[tuple[float, int]]:
    while True:
        yield seconds, count


PAGE = 8 << 20


@pytest.mark.parametrize(
    "steps",
    [
        steady(20_000),  # a phone
        steady(10_000),
        bursts(64 << 10, 7),
        steady(1 << 20),
    ],
    ids=["phone", "10 kB/s", "bursts", "fast"],
)
def test_a_slow_honest_client_gets_its_page(steps: Iterator[tuple[float, int]]) -> None:
    sending = Sending()
    assert sending.send(PAGE, steps) == PAGE
    assert not sending.pipe.aborted


@pytest.mark.parametrize(
    "steps",
    [steady(0), steady(273, 15), steady(1_000), steady(7_000)],
    ids=["nothing", "4 kB every 15 s", "1 kB/s", "7 kB/s"],
)
def test_a_client_below_the_minimum_rate_is_disconnected(steps: Iterator[tuple[float, int]]) -> None:
    sending = Sending()
    assert sending.send(PAGE, steps) < PAGE
    assert sending.pipe.aborted


def test_a_client_that_was_fast_at_first_has_no_more_than_the_usual_credit() -> None:
    sending = Sending()

    def fast_and_then_silent() -> Iterator[tuple[float, int]]:
        for _ in range(60):
            yield 1, 64 << 10
        while True:
            yield 1, 0

    sending.send(PAGE, fast_and_then_silent())
    assert sending.pipe.aborted
    assert sending.clock.now < 60 + PacedConnection.stall_seconds * 1.3


def test_a_connection_with_nothing_to_send_is_no_slow_reader() -> None:
    sending = Sending()
    for _ in range(100):  # a quiet watch: an event an hour
        sending.connection.transport.write(b"id: 1\n\n")
        sending.clock.advance(1)
        sending.pipe.unsent = 0
        sending.clock.advance(3600)
    assert not sending.pipe.aborted
    assert not sending.clock.timers


def test_without_a_minimum_rate_a_trickle_is_not_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PacedConnection, "send_rate", 1)  # the control: each byte counts as progress
    sending = Sending()
    steps = (step for step, _ in zip(steady(273, 15), range(1000), strict=False))
    sending.send(PAGE, steps)
    assert not sending.pipe.aborted


# ---------------------------------------------------------------------------------- real sockets

#: `serve` with another minimum rate: seconds of credit, and bytes a second.
PROGRAM = """
import sys
from treehub_level.http.server.sending import PacedConnection
from treehub_level.cli.application import main
PacedConnection.stall_seconds, PacedConnection.send_rate = map(int, sys.argv[1:3])
sys.argv[1:3] = []
main()
"""


@contextmanager
def serving(folder: Path, seconds: int, rate: int, *options: str) -> Iterator[int]:
    """Serve a log of 4 MiB in values of 64 KiB, and yield the port."""
    with blocking.Level(folder / "stores" / "notes", mode=Level.SERVER) as level:
        for number in range(64):
            level.put(f"k{number}", f"{number:04}" * (16 << 10))
    command = [sys.executable, "-c", PROGRAM, str(seconds), str(rate), "serve", str(folder / "stores"), "--port", "0"]
    server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r":(\d+)\n", server.stdout.readline())
        assert found
        yield int(found[1])
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


@contextmanager
def requesting(port: int, path: str, **headers: str) -> Iterator[socket.socket]:
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", port))
        lines = [f"{name}: {value}\r\n" for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items()]
        connection.sendall(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
        yield connection


def receive(connection: socket.socket, count: int, pause: float) -> tuple[int, bool]:
    """Read at most 4 MiB, with a pause after so many bytes.

    Returns:
        The bytes received, and True if the server cut the connection.
    """
    received = 0
    try:
        while received < 4 << 20:
            data = connection.recv(count)
            if not data:
                return received, True
            received += len(data)
            time.sleep(pause)
    except ConnectionResetError:
        return received, True
    return received, False


def test_a_client_that_trickles_is_disconnected(tmp_path: Path) -> None:
    with serving(tmp_path, 1, 1 << 20) as port:
        for route in ("changes?limit=1000", "entries?limit=1000", "watch?since=0"):
            with requesting(port, f"/v1/notes/{route}") as connection:
                received, cut = receive(connection, 4096, 0.02)
            assert cut
            assert received < 4 << 20


def test_a_client_above_the_minimum_rate_gets_its_page(tmp_path: Path) -> None:
    with serving(tmp_path, 5, 16 << 10) as port, requesting(port, "/v1/notes/changes?limit=1000") as connection:
        received, cut = receive(connection, 64 << 10, 0.003)
    assert not cut
    assert received >= 4 << 20


def test_a_watch_ends_after_its_token_was_revoked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    token = tokens.add(databases=["notes"])
    options = ["--tokens", str(tmp_path / "tokens")]
    with serving(tmp_path, 60, 8192, *options) as port:
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        writer = f"Bearer {tokens.add(databases=['notes'], write=True)}"
        with requesting(port, "/v1/notes/watch?since=64", **headers) as connection:
            text = b""
            while b"id: 64" not in text:
                text += connection.recv(1 << 16)
            tokens.revoke(token.partition(".")[0])
            put(port, writer)
            while data := connection.recv(1 << 16):
                text += data
    assert b"novel" not in text
    assert b": LEVEL_UNAUTHORIZED" in text
    assert text.endswith(b"0\r\n\r\n"), "the stream has no final chunk"


def put(port: int, authorization: str) -> None:
    url = f"http://127.0.0.1:{port}/v1/notes/entries/a"
    assert httpx.put(url, json="novel", headers={"Authorization": authorization}).status_code == 204
