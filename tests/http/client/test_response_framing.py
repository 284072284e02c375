"""A hostile server cannot stop a client with a response that h11 reads in quadratic time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from treehub_level import TransportError
from treehub_level.http import RemoteServer
from treehub_level.http.blocking import RemoteServer as BlockingRemoteServer
from treehub_level.http.client.response_framing import MAX_RESPONSE_HEAD, ResponseFraming
from treehub_level.http.framing import FramingError

pytestmark = pytest.mark.once

MARK = b"Treehub-Level: 1\r\n"
#: Responses with a field of ``n`` characters that h11 alone reads in quadratic time.
HOSTILE: dict[str, Callable[[int], bytes]] = {
    "a field": lambda n: b"HTTP/1.1 200 OK\r\n" + MARK + b"X:" + b" " * n + b"\0\r\n\r\n",
    "a reason": lambda n: b"HTTP/1.1 200 " + b" " * n + b"\x0b\r\n\r\n",
    "a field after an informational response": lambda n: (
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nX:" + b"\t" * n + b"\x0c\r\n\r\n"
    ),
    "a chunk": lambda n: b"HTTP/1.1 200 OK\r\n" + MARK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b" " * n + b"\n\r\n",
}


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """Provide the URL of a server that answers each request with the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(response)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/x"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


async def call(api: str, url: str) -> Any:
    if api == "asyncio":
        async with RemoteServer(url, retries=0) as remote:
            return await remote.changes(0)
    with BlockingRemoteServer(url, retries=0) as blocking_remote:
        return blocking_remote.changes(0)


async def seconds(api: str, response: bytes) -> float:
    """Return the CPU time in which a client refuses a response."""
    with answering(response) as url:
        began = time.process_time()
        with pytest.raises(TransportError):
            await call(api, url)
        return time.process_time() - began


@pytest.mark.parametrize("api", ["asyncio", "blocking"])
@pytest.mark.parametrize("shape", HOSTILE)
async def test_the_time_to_refuse_a_response_grows_with_its_length_and_not_faster(api: str, shape: str) -> None:
    short = await seconds(api, HOSTILE[shape](4_000))
    long = await seconds(api, HOSTILE[shape](32_000))
    assert long < 8 * short + 0.5


@pytest.mark.parametrize("api", ["asyncio", "blocking"])
async def test_control_h11_alone_reads_a_hostile_head_in_quadratic_time(api: str) -> None:
    with mock.patch.object(ResponseFraming, "receive", lambda self, data: data):
        short = await seconds(api, HOSTILE["a field"](2_000))
        long = await seconds(api, HOSTILE["a field"](16_000))
    assert long > 16 * short


@pytest.mark.parametrize("api", ["asyncio", "blocking"])
async def test_the_head_of_a_response_is_bounded(api: str) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MAX_RESPONSE_HEAD // 6) + b"\r\n"
    with answering(head) as url, pytest.raises(TransportError, match="the headers are too large"):
        await call(api, url)


#: Responses and their bodies as h11 reads them: chunks may be joined, trailers are dropped.
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nX:\0\n\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\n\nuntil the end\0",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\0\r\r anything",
]
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5;name=value\r\nX:\0\r \r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
)


def framed(data: bytes, segment: int, framing: ResponseFraming | None = None) -> bytes:
    framing = framing or ResponseFraming()
    framing.send(b"GET / HTTP/1.1\r\n\r\n")
    return b"".join(framing.receive(data[start : start + segment]) for start in range(0, len(data), segment))


@pytest.mark.parametrize("segment", [1, 2, 7, 10_000])
def test_responses_pass_unchanged_in_any_segments(segment: int) -> None:
    framing = ResponseFraming()
    for response in [*RESPONSES, *RESPONSES]:
        assert framed(response, segment, framing) == response


@pytest.mark.parametrize("segment", [1, 2, 7, 10_000])
def test_chunks_pass_without_extensions_and_trailers(segment: int) -> None:
    framing = ResponseFraming()
    for _ in range(2):
        head, body = CHUNKED
        content = b""
        rest = framed(head + body, segment, framing).removeprefix(head)
        while not rest.startswith(b"0\r\n\r\n"):
            size, _, rest = rest.partition(b"\r\n")
            content, rest = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert (content, rest) == (b"X:\0\r abc", b"0\r\n\r\n")
        assert framed(RESPONSES[0], segment, framing) == RESPONSES[0]


def test_the_handshake_of_a_socks_proxy_passes_unchanged() -> None:
    framing = ResponseFraming()
    framing.send(b"\x05\x01\x00")
    assert framing.receive(b"\x05\x00") == b"\x05\x00"
    framing.send(b"\x05\x01\x00\x03\x09localhost\x00\x50")
    assert framing.receive(b"\x05\x00\x00\x01") == b"\x05\x00\x00\x01"
    with pytest.raises(FramingError):
        framed(HOSTILE["a field"](10), 1, framing)
