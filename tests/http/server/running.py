"""`treehub-level serve` in a process of its own, and raw connections to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from waiting import PATIENCE

#: `serve` with other timeouts. Arguments: Python statements that run first, seconds for headers,
#: seconds for a stall, then its own.
PROGRAM = """
import sys
exec(sys.argv[1])
from treehub_level.http.server.connections import TimedConnection
from treehub_level.cli.application import main
TimedConnection.header_seconds, TimedConnection.stall_seconds = map(float, sys.argv[2:4])
sys.argv[1:4] = []
main()
"""


class RunningServer:
    """A running server of a database ``notes``.

    Args:
        folder: The folder of the stores, in ``stores``, and of the log.
        options: Further options of ``treehub-level serve``.
        header_seconds: See `TimedConnection`.
        stall_seconds: See `TimedConnection`.
        prelude: Python statements that the process runs first.

    Attributes:
        url: The URL of the server.
        port: The port of the server.
        process: The process.
        log: The file with the output to stderr.
        line: The first line of the output to stdout.
    """

    def __init__(
        self, folder: Path, *options: str, header_seconds: float = 20, stall_seconds: float = 60, prelude: str = ""
    ) -> None:
        self.log = folder / "stderr"
        with self.log.open("wb") as log:
            program = [sys.executable, "-W", "error", "-c", PROGRAM, prelude, str(header_seconds), str(stall_seconds)]
            self.process = subprocess.Popen(
                [*program, "serve", str(folder / "stores"), "--create", "notes", "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"https?://127\.0\.0\.1:(\d+)\n", self.line)
        assert found, self.line + self.log.read_text()
        self.url, self.port = found[0].strip(), int(found[1])

    def connect(self) -> socket.socket:
        """Open a TCP connection to the server."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def memory(self) -> int:
        """Return the resident memory of the process in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(folder: Path, *options: str, prelude: str = "", **timeouts: float) -> Iterator[RunningServer]:
    """Run a server for the length of the block."""
    server = RunningServer(folder, *options, prelude=prelude, **timeouts)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def begin_get(server: RunningServer, connection: socket.socket, path: str) -> None:
    """Send a GET request."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())


def begin_upload(server: RunningServer, connection: socket.socket, rest: str) -> None:
    """Send the head of a PUT and ``rest``: further headers and the first bytes of the body."""
    head = f"PUT /v1/notes/entries/a HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    connection.sendall((head + rest).encode())


def waits(server: RunningServer) -> float:
    """Return the number of long polls and watches in progress, from the server's metrics."""
    found = re.search(r"^treehub_level_http_waits (.*)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    return received


def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition()`` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
