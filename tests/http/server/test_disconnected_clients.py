"""Requests of clients that have gone, mostly while the server process was stopped: no work."""

from __future__ import annotations

import asyncio
import json
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import CAN_MAKE_CERTIFICATES, make_certificate
from replication.helpers import ask
from served import Served, StreamingRequest, asyncio_timeout
from waiting import until

from treehub_level.http.server.disconnect import IS_GONE, has_hung_up

from .running import RunningServer, running

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped"),
]

#: Takes the defence away: no request learns that its client has gone.
BLIND = "import treehub_level.http.server.connections as c; c.IS_GONE = 'unknown'"
#: Clients of each kind.
CLIENTS = 10


def post(path: str, message: Any) -> bytes:
    body = json.dumps(message).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def pushing(number: int) -> bytes:
    return post("/v1/notes/exchange", ask(client=f"{number:032x}", changes=[[f"pushed/{number}", "x" * 1000]]))


def pushing_much(number: int) -> bytes:
    """Return a push whose body is parsed in a thread."""
    return post("/v1/notes/exchange", ask(client=f"{number:032x}", changes=[[f"large/{number}", "x" * 100_000]]))


def pulling(_: int) -> bytes:
    return post("/v1/notes/exchange", ask())


def waiting(_: int) -> bytes:
    return post("/v1/notes/exchange?wait=60", ask(complete=["none"]))


def putting(number: int) -> bytes:
    head = f"PUT /v1/notes/entries/put/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: 1\r\n\r\n1".encode()


KINDS: list[Callable[[int], bytes]] = [pushing, pushing_much, pulling, waiting, putting]


@contextmanager
def stopped(server: RunningServer) -> Iterator[None]:
    """Stop the process for the length of the block, like a machine that is suspended."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def requests(server: RunningServer) -> dict[str, int]:
    """Return the number of requests for the database by status; 0 for those without a response."""
    text = httpx.get(f"{server.url}/metrics", verify=False).text
    found: dict[str, int] = {}
    for status, count in re.findall(r'^treehub_level_http_requests_total\{.*/v1/.*status="(\d+)"\} (\S+)$', text, re.M):
        found[status] = found.get(status, 0) + int(float(count))
    return found


def keys(server: RunningServer) -> list[str]:
    rows = httpx.get(f"{server.url}/v1/notes/entries?limit=1000", verify=False).json()["entries"]
    return [key for key, _ in rows]


def leave_during_a_stop(server: RunningServer, connect: Callable[[], socket.socket]) -> dict[str, int]:
    """Return the requests by status after clients have left during a stop, and one has stayed."""
    connected = [connect() for _ in range(2 * len(KINDS))]
    staying = connect()
    with stopped(server):
        for number in range(CLIENTS * len(KINDS)):
            # Some have been connected before, as clients that keep their connections.
            with closing(connected.pop() if connected else plain(server)) as connection:
                connection.sendall(KINDS[number % len(KINDS)](number))
        staying.sendall(pushing(10_000))
        time.sleep(0.05)
    with closing(staying):
        assert b" 200 " in staying.recv(1 << 16)

    def all_ended() -> bool:
        return sum(requests(server).values()) >= CLIENTS * len(KINDS) + 1

    deadline = time.monotonic() + 20
    while not all_ended() and time.monotonic() < deadline:
        time.sleep(0.05)
    return requests(server)


def plain(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def test_a_server_that_was_stopped_does_not_work_for_clients_that_have_left(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert leave_during_a_stop(server, lambda: plain(server)) == {"0": CLIENTS * len(KINDS), "200": 1}
        assert keys(server) == ["pushed/10000"]
        log = server.log.read_text()
        assert log.count("reason=disconnected") == CLIENTS * len(KINDS)
        assert "ERROR" not in log


def test_a_server_that_does_not_look_at_its_clients_is_detected(tmp_path: Path) -> None:
    with running(tmp_path, prelude=BLIND) as server:
        worked_on = leave_during_a_stop(server, lambda: plain(server))
        assert worked_on["200"] > CLIENTS
        assert len(keys(server)) > CLIENTS


@pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="needs the openssl command")
def test_clients_that_leave_over_tls_are_noticed(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with running(tmp_path, *certificate.options) as server:
        context = certificate.trusting()
        connected = [context.wrap_socket(plain(server), server_hostname="localhost") for _ in range(5)]
        staying = context.wrap_socket(plain(server), server_hostname="localhost")
        with stopped(server):
            for number, connection in enumerate(connected):
                connection.sendall(pushing(number))
                connection.close()
            staying.sendall(pushing(10_000))
        with closing(staying):
            assert b" 200 " in staying.recv(1 << 16)
        assert keys(server) == ["pushed/10000"]


# --------------------------------------------------------------------------- within this process


async def test_a_push_whose_client_leaves_while_it_waits_for_its_turn_is_not_written(served: Served) -> None:
    served.rebuild(tokens=None)
    level = served.levels["notes"]
    gone = False
    body = json.dumps(ask(changes=[["a", 1]])).encode()
    headers = {"content-type": "application/json"}
    request = StreamingRequest(served.app, "POST", "/v1/notes/exchange", headers=headers, body=[body], ends=True)
    request.scope |= {IS_GONE: lambda: gone}
    locked, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold_the_turn() -> None:
        loop.call_soon_threadsafe(locked.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)

    turn = asyncio.ensure_future(level._worker.write(hold_the_turn))
    async with asyncio_timeout(30):
        await locked.wait()
        async with request.open():
            await until(lambda: served.app.state.dispatcher.writes.active)
            await asyncio.sleep(0.01)
            gone = True
            release.set()
            await request.until(request.task.done)
        await turn
    assert request.sent == []
    assert await level.query() == []


async def test_a_push_that_was_written_keeps_its_decision_though_its_client_left(served: Served) -> None:
    served.rebuild(tokens=None)
    level = served.levels["notes"]
    message = ask(changes=[["a", 1]])
    request = StreamingRequest(
        served.app,
        "POST",
        "/v1/notes/exchange",
        headers={"content-type": "application/json"},
        body=[json.dumps(message).encode()],
        ends=True,
    )
    request.scope |= {IS_GONE: lambda: level.cid > 0}
    async with request.open():
        await request.until(request.task.done)
    again = (await served.client.post("/v1/notes/exchange", json=message)).json()
    assert again["ack"][:2] == [0, 1]
    assert level.cid == 1


async def test_a_page_is_not_encoded_further_for_a_client_that_has_left(served: Served) -> None:
    served.rebuild(tokens=None)
    await served.levels["notes"].put("a", "x" * (3 << 20))
    request = StreamingRequest(served.app, "GET", "/v1/notes/changes?since=0")
    request.scope |= {IS_GONE: lambda: len(request.sent) > 3}
    async with request.open():
        await request.until(request.task.done)
    assert len(request.text) < 1 << 20


def test_a_peer_is_known_to_have_left_before_its_bytes_were_read() -> None:
    class Transport:
        def __init__(self, connection: socket.socket) -> None:
            self.connection = connection

        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, _: str) -> socket.socket:
            return self.connection

    one, other = socket.socketpair()
    with closing(one):
        transport: Any = Transport(one)
        other.sendall(b"unread")
        assert not has_hung_up(transport)
        other.close()
        assert has_hung_up(transport)
    assert has_hung_up(transport), "it was closed here"


def test_without_a_way_to_ask_a_peer_counts_as_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    one, other = socket.socketpair()
    with closing(one), closing(other):

        class Transport:
            def is_closing(self) -> bool:
                return False

            def get_extra_info(self, _: str) -> socket.socket:
                return one

        transport: Any = Transport()
        assert not has_hung_up(transport)
