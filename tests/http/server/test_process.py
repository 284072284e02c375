"""The server as a process of its own, with real sockets and signals."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import CAN_MAKE_CERTIFICATES, make_certificate

from treehub_level import Level, blocking

from .running import RunningServer, begin_get, begin_upload, read_to_end, running, until, waits

pytestmark = pytest.mark.once


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of one database, ``notes``."""
    with running(tmp_path) as server:
        yield server


def test_the_server_announces_its_stores_and_url_in_one_line(server: RunningServer) -> None:
    assert server.line == f"serving notes at {server.url}\n"
    assert httpx.get(f"{server.url}/v1/notes").json()["cid"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_long_polls_finishes_writes_and_closes_the_stores(tmp_path: Path, number: int) -> None:
    with running(tmp_path) as server, server.connect() as watch, server.connect() as poll, server.connect() as upload:
        begin_get(server, watch, "/v1/notes/watch")
        begin_get(server, poll, "/v1/notes/changes?since=0&wait=60")
        begin_upload(server, upload, "Content-Length: 4\r\n\r\n12")
        until(lambda: waits(server) == 2)
        server.process.send_signal(number)
        assert b'"changes":[]' in read_to_end(poll)
        assert read_to_end(watch).endswith(b"0\r\n\r\n"), "the stream has no final chunk"
        upload.sendall(b"34")
        assert b"204" in read_to_end(upload).splitlines()[0]
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()
    with blocking.Level(tmp_path / "stores" / "notes", mode=Level.SERVER) as level:
        assert level.get("a") == 1234


def test_a_stalled_watcher_does_not_block_the_shutdown(tmp_path: Path) -> None:
    fill(tmp_path)
    with running(tmp_path, "--grace", "1") as server, slow_watcher(server):
        assert server.stop() == 0


def fill(folder: Path) -> None:
    """Create a store with a change log of 64 MiB."""
    with blocking.Level(folder / "stores" / "notes", mode=Level.SERVER) as level:
        for number in range(64):
            level.put(f"k{number}", "x" * (1 << 20))


@contextmanager
def slow_watcher(server: RunningServer) -> Iterator[socket.socket]:
    """Yield the connection of a watcher that requests all changes and reads nothing."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        begin_get(server, connection, "/v1/notes/watch?since=0")
        until(lambda: waits(server) == 1)
        yield connection


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_stalled_watchers_use_little_memory_and_block_no_others(tmp_path: Path) -> None:
    fill(tmp_path)
    with running(tmp_path) as server, slow_watcher(server):
        before = server.memory()
        connections = [server.connect() for _ in range(5)]
        try:
            for connection in connections:
                begin_get(server, connection, "/v1/notes/watch?since=0")
            until(lambda: waits(server) == 6)
            assert httpx.put(f"{server.url}/v1/notes/entries/a", json=1).status_code == 204
            time.sleep(0.3)
            assert server.memory() - before < 5 * (16 << 20), "a watcher buffers more than a page and its chunks"
        finally:
            for connection in connections:
                connection.close()


def test_a_stalled_watcher_is_disconnected(tmp_path: Path) -> None:
    fill(tmp_path)
    with running(tmp_path, stall_seconds=3) as server, slow_watcher(server):
        until(lambda: waits(server) == 0)


@pytest.mark.parametrize(
    "sent",
    ["", "GET /v1/notes HTTP/1.1\r\nHost: ", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal"],
    ids=["nothing", "half", "the next"],
)
def test_incomplete_headers_time_out(tmp_path: Path, sent: str) -> None:
    with running(tmp_path, header_seconds=0.5) as server, server.connect() as connection:
        connection.sendall(sent.encode())
        read_to_end(connection)


def test_a_missing_header_timeout_is_detected(tmp_path: Path) -> None:
    with running(tmp_path, header_seconds=1e6) as server, server.connect() as connection:
        connection.settimeout(1.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_connection_in_use_is_kept(tmp_path: Path) -> None:
    with running(tmp_path, header_seconds=2) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.connect()
        first = connection.sock
        end = time.monotonic() + 4
        while time.monotonic() < end:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
            assert connection.sock is first
            time.sleep(0.02)
        connection.close()


def test_slow_headers_time_out(tmp_path: Path) -> None:
    with running(tmp_path, header_seconds=0.5) as server, server.connect() as connection:
        begin_get(server, connection, "/v1/notes HTTP/1.1\r\nX-Drip: ")
        connection.recv(1 << 16)
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.sendall(b"G")
                time.sleep(0.02)


@pytest.mark.parametrize(
    "flood",
    ["X-H: 1\r\n" * 100_000, "X-H: " + "x" * 1_000_000 + "\r\n"],
    ids=["many", "long"],
)
def test_a_flood_of_headers_is_refused(server: RunningServer, flood: str) -> None:
    with server.connect() as connection:
        answer = b""
        try:
            connection.sendall(f"GET /v1/notes HTTP/1.1\r\nHost: x\r\n{flood}\r\n".encode())
            answer = read_to_end(connection)
        except (BrokenPipeError, ConnectionResetError):
            answer = read_to_end(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert httpx.get(f"{server.url}/v1/notes").status_code == 200


def test_an_endless_body_is_refused_and_the_connection_closed(tmp_path: Path) -> None:
    with running(tmp_path, header_seconds=1) as server, server.connect() as connection:
        begin_upload(server, connection, "Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        sent = 0
        with pytest.raises(OSError):
            while True:
                connection.sendall(chunk)
                sent += len(chunk)
        assert sent > 16 << 20
        assert httpx.get(f"{server.url}/v1/notes").json()["cid"] == 0


def test_malformed_http_is_refused(server: RunningServer) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00"  # the begin of a TLS handshake
    for raw in (hello, b"GET\r\n\r\n", b"\0" * 1000, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(raw)
            assert read_to_end(connection).startswith(b"HTTP/1.1 400")


def test_a_malformed_chunk_of_a_body_closes_the_connection(server: RunningServer) -> None:
    with server.connect() as connection:
        begin_upload(server, connection, "Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\nzzz\r\n")
        read_to_end(connection)
    assert httpx.get(f"{server.url}/v1/notes").json()["cid"] == 0
    assert server.stop() == 0


def test_the_log_has_one_line_a_request_without_values(server: RunningServer) -> None:
    httpx.put(f"{server.url}/v1/notes/entries/a%0aFAKE", json="s3cr3t")
    httpx.get(f"{server.url}/%0d%0aFAKE?s3cr3t")
    server.stop()
    started, kept, *lines, _stopping, _stopped = server.log.read_text().splitlines()
    assert "INFO started at" in started
    assert "superseded changes are kept for 7 days" in kept
    assert len(lines) == 2
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO (PUT /v1/\{db\}|- 404)", line) for line in lines)


def test_another_process_may_not_open_a_store_that_is_served(server: RunningServer, tmp_path: Path) -> None:
    httpx.get(f"{server.url}/v1/notes")
    path = str(tmp_path / "stores" / "notes")
    code = f"from treehub_level import blocking, Level; blocking.Level({path!r}, mode=Level.SERVER).open()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LockedError" in done.stderr


@pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="openssl makes the certificate")
def test_the_server_supports_tls(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    with running(tmp_path, *files.options) as server:
        assert server.url.startswith("https://")
        assert httpx.get(f"{server.url}/v1/notes", verify=files.trusting()).json()["cid"] == 0
        with server.connect() as plain:
            begin_get(server, plain, "/v1/notes")
            assert not read_to_end(plain).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0


async def test_many_concurrent_clients_sync(server: RunningServer) -> None:
    async def one(number: int) -> None:
        async with Level(f"c{number}", backend="memory", mode=Level.CLIENT) as client:
            for key in range(5):
                await client.put(f"{number}/{key}", key)
            await client.sync(remote)

    class Remote:
        async def exchange(self, message: Any) -> Any:
            response = await http.post("/v1/notes/exchange", json=message)
            return json.loads(response.content)

    remote = Remote()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        await asyncio.gather(*(one(number) for number in range(20)))
        assert (await http.get("/v1/notes")).json()["cid"] == 100
