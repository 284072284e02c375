"""The limits of connections and heads, with real sockets: idle ones make room, health answers."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from certificates import CAN_MAKE_CERTIFICATES, make_certificate

from .running import RunningServer, begin_get, begin_upload, read_to_end, running, until, waits

pytestmark = pytest.mark.once

LIMIT = 20
LIMITS = "--max-connections", str(LIMIT), "--max-per-address", str(LIMIT)
HEALTH = "/healthz", "/readyz"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with low limits. Its tests leave no connection behind."""
    with running(tmp_path_factory.mktemp("server"), *LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, ssl.SSLContext]]:
    """A server with TLS and low limits, and the settings of its clients."""
    if not CAN_MAKE_CERTIFICATES:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    files = make_certificate(folder)
    with running(folder, *LIMITS, *files.options, header_seconds=2) as server:
        yield server, files.trusting()


@contextmanager
def silent(server: RunningServer, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that send nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def is_closed(connection: socket.socket) -> bool:
    """Return True if the server has closed a connection that it sent nothing."""
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def long_poll(server: RunningServer) -> str:
    """Return the path of a long poll for the next change."""
    return f"/v1/notes/changes?wait=60&since={httpx.get(f'{server.url}/v1/notes').json()['cid']}"


@contextmanager
def polling(server: RunningServer, count: int) -> Iterator[None]:
    """Have so many long polls in progress."""
    with silent(server, count) as connections:
        for connection in connections:
            begin_get(server, connection, long_poll(server))
        until(lambda: waits(server) == count)
        yield


@pytest.mark.parametrize("sent", [b"", b"GET /v1/notes HTTP/1.1\r\nHost: "], ids=["nothing", "half a head"])
def test_silent_connections_make_room_for_others(server: RunningServer, sent: bytes) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.put("/v1/notes/entries/a", json=1).status_code == 204
        with silent(server, 10 * LIMIT) as connections:
            for connection in connections[-LIMIT // 2 :]:
                connection.sendall(sent)
            for _ in range(3):
                assert httpx.get(f"{server.url}/v1/notes").status_code == 200
                assert [httpx.get(f"{server.url}{path}").status_code for path in HEALTH] == [200, 200]
            assert client.get("/v1/notes/entries/a").json() == 1
            until(lambda: is_closed(connections[0]))


def test_a_connection_in_use_does_not_make_room(server: RunningServer) -> None:
    with polling(server, LIMIT // 2), silent(server, 5 * LIMIT):
        assert httpx.get(f"{server.url}/v1/notes").status_code == 200
        assert waits(server) == LIMIT // 2


def test_health_is_answered_while_all_connections_are_in_use(server: RunningServer) -> None:
    path = long_poll(server)
    with polling(server, LIMIT - 1), server.connect() as last:
        begin_get(server, last, path)
        until(lambda: httpx.get(f"{server.url}/v1/notes").status_code == 503)
        refused = httpx.get(f"{server.url}/v1/notes")
        assert (refused.status_code, refused.json()["code"]) == (503, "LEVEL_BUSY")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["connection"] == "close"
        assert [httpx.get(f"{server.url}{path}").status_code for path in HEALTH] == [200, 200]
    until(lambda: httpx.get(f"{server.url}/v1/notes").status_code == 200)


def test_one_address_cannot_take_all_connections(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--max-connections", "20", "--max-per-address", "5") as server,
        polling(server, 4),
        server.connect() as fifth,
    ):
        begin_get(server, fifth, "/v1/notes/changes?wait=60&since=0")
        until(lambda: httpx.get(f"{server.url}/v1/notes").status_code == 503)
        try:
            other = httpx.HTTPTransport(local_address="127.0.0.2")
            with httpx.Client(transport=other) as client:
                assert client.get(f"{server.url}/v1/notes").status_code == 200
        except httpx.ConnectError:
            pytest.skip("127.0.0.2 is no address of this machine")


@pytest.mark.parametrize("size", [16_000, 17_000, 30_000, 60_000, 120_000])
def test_the_limit_of_headers_holds_for_a_single_segment(server: RunningServer, size: int) -> None:
    with server.connect() as connection:
        head = f"GET /v1/notes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {'x' * size}\r\n\r\n"
        connection.sendall(head.encode())
        status, _, rest = read_to_end(connection).partition(b"\r\n")
        assert status.split()[1] == (b"200" if size < 16 << 10 else b"400")
        answer = json.loads(rest.partition(b"\r\n\r\n")[2])
        assert answer.get("code") == (None if size < 16 << 10 else "LEVEL_PROTOCOL")
        assert b"nosniff" in rest


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"PUT /v1/notes/entries/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n12\r\n1\r\n3\r\n0\r\n\r\n"
            b"GET /v1/notes/entries/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"PUT /v1/absent/entries/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n123"
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answer = read_to_end(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"204", b"200", b"404", b"200"]
    assert b"\r\n\r\n123HTTP/1.1" in answer


def test_a_body_of_many_small_chunks_is_read(server: RunningServer) -> None:
    with server.connect() as connection:
        begin_upload(server, connection, "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b'1\r\n"\r\n' + b"1\r\nx\r\n" * 100_000 + b'1\r\n"\r\n0\r\n\r\n')
        assert b"204" in read_to_end(connection).splitlines()[0]
        assert httpx.get(f"{server.url}/v1/notes/entries/a").json() == "x" * 100_000


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00"], ids=["nothing", "half a ClientHello"])
def test_unfinished_handshakes_make_room_for_others(
    tls_server: tuple[RunningServer, ssl.SSLContext], sent: bytes
) -> None:
    server, trusting = tls_server
    with silent(server, 10 * LIMIT) as connections:
        for connection in connections[-LIMIT // 2 :]:
            connection.sendall(sent)
        for path in ("/v1/notes", *HEALTH):
            assert httpx.get(f"{server.url}{path}", verify=trusting).status_code == 200
        until(lambda: is_closed(connections[0]))


def test_an_unfinished_handshake_times_out(tls_server: tuple[RunningServer, ssl.SSLContext]) -> None:
    with tls_server[0].connect() as connection:
        assert read_to_end(connection) == b""


def test_the_server_stops_during_handshakes(tls_server: tuple[RunningServer, ssl.SSLContext]) -> None:
    server, trusting = tls_server
    with silent(server, 5):
        assert httpx.get(f"{server.url}/healthz", verify=trusting).status_code == 200
        assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
