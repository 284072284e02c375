"""Text of strangers is read in linear time: a text that is eight times as long takes no 64 times.

Each parser reads texts that make a pattern backtrack, if it can. The control is a pattern that
backtracks.
"""

from __future__ import annotations

import logging
import pkgutil
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import h11
import pytest
from served import Served, StreamingRequest
from starlette.requests import Request

import treehub_level
from treehub_level import LevelError
from treehub_level._core_py import json as json_text
from treehub_level._core_py import records
from treehub_level.http.client.responses import parse_retry_after
from treehub_level.http.client.url import DatabaseURL, origin
from treehub_level.http.framing import FramingError
from treehub_level.http.server import query
from treehub_level.http.server.content_coding import accepted_codings
from treehub_level.http.server.logs import OneLineFormatter

from .framed_requests import framed_requests

pytestmark = pytest.mark.once

#: The length of the short text, and the factor to the long one.
SHORT, FACTOR = 500, 8
#: Growth of time beyond which a parser is not linear: 8 is linear, 64 is quadratic.
BOUND = 24.0
#: Seconds below which a time says nothing. A quadratic parser takes much longer for a long text.
NOISE = 0.004

#: The repeated part. Patterns backtrack on a run that two of their repetitions can match.
RUNS: Final = (" ", "a", "0", ".", ",", "/", "%", "\\", '"', "]", ",a ", '\\"')
#: The text before the run. Each pattern of the package needs one of them to reach a repetition.
BEFORE: Final = ("", ",a", '["', '["a",', '{"key":"a","value":', "http://a", "postgres://", "NotFound: ")
#: The text behind the run, with which a match fails.
BEHIND: Final = ("!", "\0", "\n\0")


def seconds(read: Callable[[str], object], text: str) -> float:
    """Return the seconds of the processor in which a parser reads or refuses a text."""
    start = time.thread_time()
    with suppress(LevelError, FramingError, ValueError, TypeError, h11.ProtocolError):
        read(text)
    return time.thread_time() - start


def growth(read: Callable[[str], object], before: str, run: str, behind: str) -> float:
    """Return the factor by which the time grows with a text that is `FACTOR` times as long."""
    short, long = (before + run * (length // len(run)) + behind for length in (SHORT, SHORT * FACTOR))
    if seconds(read, long) < NOISE:
        return FACTOR
    of_short = statistics.median(seconds(read, short) for _ in range(3))
    of_long = statistics.median(seconds(read, long) for _ in range(3))
    return of_long / max(of_short, NOISE / FACTOR**2)


def slow_texts(read: Callable[[str], object]) -> Iterator[str]:
    """Yield a description of each text for which the time of a parser is not linear."""
    for before in BEFORE:
        for run in RUNS:
            for behind in BEHIND:
                if growth(read, before, run, behind) > BOUND:
                    yield f"{before!r} + {run!r} * n + {behind!r}"


def read_head(value: str) -> None:
    """Read a head with a hostile field, as a connection does."""
    _read_requests(f"GET / HTTP/1.1\r\nHost: x\r\nX:{value}\r\n\r\n")


def read_target(value: str) -> None:
    """Read a head with a hostile request line, as a connection does."""
    _read_requests(f"GET /{value} HTTP/1.1\r\nHost: x\r\n\r\n")


def read_chunk_header(value: str) -> None:
    """Read a chunked body with a hostile header of a chunk, as a connection does."""
    _read_requests(f"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{value}\r\n")


def read_trailers(value: str) -> None:
    """Read a chunked body with hostile trailers, as a connection does."""
    _read_requests(f"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:{value}\r\n\r\n")


def _read_requests(text: str) -> None:
    data = text.encode()
    framed_requests(data, 16 << 10, len(data))


def read_parameters(value: str) -> None:
    """Read a hostile query of a URL."""
    scope = {"type": "http", "query_string": value.encode(), "headers": []}
    query.parse_parameters(Request(scope), {"since": query.parse_cid, "prefix": str})


def read_key(value: str) -> None:
    """Read a hostile key in a path."""
    query.parse_key(Request({"type": "http", "path_params": {"key": value}, "headers": []}))


def read_retry_after(value: str) -> None:
    """Read the hostile headers of a response."""
    parse_retry_after({"retry-after": value, "date": value})


def write_log_line(value: str) -> None:
    """Write a hostile text into the log."""
    formatter = OneLineFormatter("%(message)s")
    formatter.format(logging.makeLogRecord({"msg": value}))


PARSERS: Final[tuple[Callable[[str], object], ...]] = (
    read_head,
    read_target,
    read_chunk_header,
    read_trailers,
    read_parameters,
    read_key,
    read_retry_after,
    write_log_line,
    accepted_codings,
    query.parse_cid,
    query.parse_wait,
    DatabaseURL.parse,
    origin,
    lambda text: records.split_record(text.encode()),
    lambda text: records.split_rows([text.encode()]),
    lambda text: json_text.json_line(text.encode()),
)


@pytest.mark.parametrize("read", PARSERS, ids=lambda read: read.__name__)
def test_a_parser_of_hostile_text_takes_linear_time(read: Callable[[str], object]) -> None:
    assert [*slow_texts(read)] == []


def test_small_chunks_take_linear_time() -> None:
    def read(count: str) -> None:
        head = "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        _read_requests(head + "1\r\na\r\n" * len(count))

    assert growth(read, "", "x", "") < BOUND


def patterns() -> list[tuple[str, re.Pattern[Any]]]:
    """Return the name and value of each compiled pattern in the modules of the package."""
    found: dict[str, re.Pattern[Any]] = {}
    for module in pkgutil.walk_packages(treehub_level.__path__, "treehub_level."):
        if module.name.endswith("__main__"):
            continue
        loaded = import_module(module.name)
        owners = [loaded, *(value for value in vars(loaded).values() if isinstance(value, type))]
        for owner in owners:
            for name, value in vars(owner).items():
                if isinstance(value, re.Pattern):
                    found[f"{module.name}.{name}: {value.pattern!r}"] = value
    return sorted(found.items())


def matching(pattern: re.Pattern[Any]) -> Callable[[str], object]:
    """Return a function that matches a text from its beginning, also if the pattern is of bytes."""
    is_bytes = isinstance(pattern.pattern, bytes)
    return lambda text: pattern.fullmatch(text.encode() if is_bytes else text)


def test_no_pattern_of_the_package_backtracks() -> None:
    found = patterns()
    assert len({pattern.pattern for _, pattern in found}) > 20
    slow = {name: texts for name, pattern in found if (texts := [*slow_texts(matching(pattern))])}
    assert slow == {}


@pytest.mark.parametrize(
    "read",
    [
        lambda text: re.findall(r"(?:^|,)\s*([a-z]+)\s*(?:;\s*q\s*=\s*([0-9.]+))?\s*(?=,|$)", text),
        lambda text: re.fullmatch(r"NotFound: .*[0-9]+\.ldb", text),
        lambda text: _h11_alone(f"GET / HTTP/1.1\r\nHost: x\r\nX:{text}\r\n\r\n"),
        lambda text: _h11_alone(f"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{text}\r\n"),
    ],
    ids=["a list of codings", "two repetitions", "a field in h11", "a chunk in h11"],
)
def test_a_pattern_that_backtracks_is_found(read: Callable[[str], object]) -> None:
    assert next(slow_texts(read))


def _h11_alone(text: str) -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(text.encode())
    while connection.next_event() is not h11.NEED_DATA:
        pass


HEADERS: Final = (
    "host",
    "authorization",
    "accept",
    "accept-encoding",
    "content-type",
    "content-encoding",
    "last-event-id",
    "origin",
    "access-control-request-method",
    "access-control-request-headers",
    "cookie",
    "x-forwarded-for",
)


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
async def test_a_request_with_hostile_headers_takes_linear_time(served: Served, method: str) -> None:
    served.rebuild(tokens=None, origins=["https://example.org"])

    async def answer(name: str, value: str) -> float:
        headers = {"origin": "https://example.org", "access-control-request-method": "PUT", name: value}
        start = time.thread_time()
        async with StreamingRequest(served.app, method, "/v1/notes", headers=headers).open() as request:
            await request.until(lambda: request.sent)
        return time.thread_time() - start

    for name in HEADERS:
        for run in (" ", ",", ",a ", ";", "a", "0", "%"):
            texts = [",a" + run * (length // len(run)) + "!" for length in (SHORT, SHORT * FACTOR)]
            if await answer(name, texts[1]) > 10 * NOISE:
                short, long = [statistics.median([await answer(name, text) for _ in range(3)]) for text in texts]
                assert long / short < BOUND, f"{name}: {run!r} * n"
