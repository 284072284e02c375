"""The framing of requests: the same requests for any division into segments, and no others."""

from __future__ import annotations

import pytest

from treehub_level.http.framing import MAX_CHUNK_HEADER, FramingError
from treehub_level.http.server.framing import RequestFraming

from .framed_requests import framed_requests

pytestmark = pytest.mark.once

LIMIT = 1000
CHUNKED = b"PUT /v1/notes/entries/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"PUT /v1/notes/entries/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
NEXT = b"GET /healthz HTTP/1.1\nHost: x\n\n"


def requests(data: bytes, segment: int) -> list[tuple[str, bytes]]:
    """Return the target and the body of each request."""
    return framed_requests(data, LIMIT, segment)


@pytest.mark.parametrize("segment", [1, 2, 3, 7, 64, 100_000])
def test_requests_are_the_same_for_any_division_into_segments(segment: int) -> None:
    chunks = b"2\r\nab\r\n1;name=value\r\nc\r\n000A \r\n0123456789\r\n0\r\nTrailer: yes\r\n\r\n"
    put = "/v1/notes/entries/a"
    data = SIZED + b"12345" + CHUNKED + chunks + NEXT + CHUNKED + b"0\r\n\r\n" + NEXT
    expected = [(put, b"12345"), (put, b"abc0123456789"), ("/healthz", b""), (put, b""), ("/healthz", b"")]
    assert requests(data, segment) == expected


@pytest.mark.parametrize("segment", [1, 100_000])
def test_a_large_chunk_is_passed_on_as_it_arrives(segment: int) -> None:
    framing = RequestFraming(LIMIT)
    framing.receive(b"400\r\n" + b"x" * 1000)
    assert framing.take_body([(b"transfer-encoding", b"chunked")]).endswith(b"x" * 1000 + b"\r\n")
    assert not framing


@pytest.mark.parametrize("segment", [1, 500, 100_000])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_the_limit_of_a_head_is_exact(segment: int, line_end: bytes) -> None:
    begin, end = b"GET / HTTP/1.1" + line_end + b"Host: ", line_end * 2
    fitting = begin + b"x" * (LIMIT - len(begin + end)) + end
    assert len(fitting) == LIMIT
    assert requests(fitting + NEXT, segment) == [("/", b""), ("/healthz", b"")]
    with pytest.raises(FramingError, match="too large"):
        requests(begin + b"x" + fitting[len(begin) :], segment)


@pytest.mark.parametrize("segment", [1, 100_000])
@pytest.mark.parametrize(
    "data",
    [
        NEXT.replace(b"Host: x", b"Host: x\0"),
        NEXT.replace(b"Host: x", b"Host: x\x0b"),
        NEXT.replace(b"Host: x", b"Host: x\ry: z"),
        b"\x16\x03\x01\x02\x00\x01\x00",
        CHUNKED + b"1;" + b" " * MAX_CHUNK_HEADER + b"\r\na\r\n",
        CHUNKED + b"1" + b"0" * MAX_CHUNK_HEADER,
        CHUNKED + b"1;\n\r\na\r\n",
        CHUNKED + b"1\na\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"g\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"1_0\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"ffffffffffffffff\r\n",
        CHUNKED + b"0\r\n" + b"Trailer: x\r\n" * LIMIT,
    ],
)
def test_malformed_framing_is_refused(data: bytes, segment: int) -> None:
    with pytest.raises(FramingError):
        requests(data, segment)
