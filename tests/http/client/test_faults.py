"""The client's handling of faults of the network, of proxies and of the server."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from treehub_level import ForbiddenError, LevelError, ProtocolError, StateError, TransportError
from treehub_level.http import RemoteServer
from treehub_level.http.client import body, calls

from .fake import STREAM, URL, FakeServer, captive_portal, json_error

Remote = Callable[..., Any]

#: Failures before the request was sent …
UNSENT: list[Exception] = [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("busy")]
#: … and after it may have been sent.
LOST: list[Exception] = [
    httpx.ReadTimeout("timeout"),
    httpx.WriteTimeout("stuck"),
    httpx.ReadError(""),
    httpx.WriteError("broken pipe"),
    httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
    httpx.CloseError("x"),
    httpx.DecodingError("x"),
    OSError("x"),
    ssl.SSLError("x"),
]


class TruncatedBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response body that ends, or raises an error, after its first bytes."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self._data = data
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield self._data
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for data in self.__iter__():
            yield data


def fault_name(fault: Exception) -> str:
    return type(fault).__name__


# ------------------------------------------------------------------------------------- no response


@pytest.mark.parametrize("fault", UNSENT + LOST, ids=fault_name)
async def test_a_call_without_a_response_is_retried(remote: Remote, fake: FakeServer, fault: Exception) -> None:
    fake.faults.extend([fault, fault])
    assert (await remote().info())["cid"] == 0
    assert len(fake.requests) == 3


@pytest.mark.parametrize("fault", UNSENT + LOST, ids=fault_name)
async def test_a_call_fails_after_its_last_retry(remote: Remote, fake: FakeServer, fault: Exception) -> None:
    fake.always = fault
    with pytest.raises(TransportError, match="could not be reached") as raised:
        await remote(retries=2).info()
    assert raised.value.__cause__ is fault
    assert raised.value.status is None
    assert len(fake.requests) == 3


async def test_an_error_repeats_little_of_what_a_server_sent(remote: Remote, fake: FakeServer) -> None:
    """h11 quotes a status line that it cannot read as a whole."""
    fake.always = httpx.RemoteProtocolError("illegal status line: " + "y" * 60_000)
    with pytest.raises(TransportError, match="could not be reached: RemoteProtocolError: illegal") as raised:
        await remote(retries=0).info()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("fault", LOST, ids=fault_name)
async def test_a_change_is_not_retried_once_it_may_have_been_received(
    remote: Remote, fake: FakeServer, fault: Exception
) -> None:
    fake.faults.append(fault)
    with pytest.raises(TransportError):
        await remote().change(0, [["a", 1]])
    assert len(fake.requests) == 1


@pytest.mark.parametrize("fault", UNSENT, ids=fault_name)
async def test_a_change_that_was_not_sent_is_retried(remote: Remote, fake: FakeServer, fault: Exception) -> None:
    fake.faults.append(fault)
    assert await remote().change(0, [["a", 1]]) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
async def test_a_change_is_not_retried_after_a_temporary_error(remote: Remote, fake: FakeServer, status: int) -> None:
    fake.faults.append(json_error(status))
    with pytest.raises(TransportError):
        await remote().change(0, [["a", 1]])
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "stream",
    [
        TruncatedBody(b'{"server":'),
        TruncatedBody(b'{"server":', httpx.ReadError("cut")),
        TruncatedBody(b'{"server": "\xff"}'),
    ],
    ids=["ended", "broken", "not UTF-8"],
)
async def test_a_truncated_response_is_requested_again(remote: Remote, fake: FakeServer, stream: TruncatedBody) -> None:
    fake.faults.append(httpx.Response(200, headers={"content-type": "application/json"}, stream=stream))
    assert (await remote().info())["cid"] == 0
    fake.always = httpx.Response(200, headers={"content-type": "application/json"}, stream=stream)
    with pytest.raises(TransportError):
        await remote().info()


# --------------------------------------------------------------------------------- error responses


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
async def test_a_temporary_error_is_retried(remote: Remote, fake: FakeServer, status: int) -> None:
    fake.faults.extend([json_error(status), captive_portal(status)])
    assert (await remote().info())["cid"] == 0


async def test_a_retry_waits_for_retry_after(remote: Remote, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float | None] = []

    def backoff(failures: int, retry_after: float | None, rng: object) -> float:
        delays.append(retry_after)
        return 0.0

    monkeypatch.setattr(calls, "backoff", backoff)
    fake.faults.extend([json_error(503, **{"retry-after": "3"}), json_error(429)])
    await remote().info()
    assert delays == [3.0, None]


async def test_a_call_fails_at_once_if_retry_after_is_too_long(remote: Remote, fake: FakeServer) -> None:
    fake.always = json_error(503, "restarting", **{"retry-after": "120"})
    with pytest.raises(TransportError, match="restarting") as raised:
        await remote().info()
    assert (raised.value.status, raised.value.retry_after) == (503, 120.0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 415, 418, 500, 501])
async def test_a_permanent_error_is_not_retried(remote: Remote, fake: FakeServer, status: int) -> None:
    fake.always = json_error(status, "because")
    with pytest.raises(TransportError, match=f"status {status}: because") as raised:
        await remote().info()
    assert raised.value.status == status
    assert len(fake.requests) == 1


async def test_an_operation_that_the_token_does_not_allow_is_forbidden(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(403, json={"code": "LEVEL_FORBIDDEN", "message": "not this key"})
    with pytest.raises(ForbiddenError, match="not this key"):
        await remote().change(0, [["a", 1]])


@pytest.mark.parametrize("status", [404, 413])
async def test_an_error_without_a_message_is_explained(remote: Remote, fake: FakeServer, status: int) -> None:
    fake.always = captive_portal(status)
    with pytest.raises(TransportError, match=r"no such database|too large"):
        await remote().info()


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'"x"', b"null"])
async def test_a_document_of_the_wrong_type_is_a_protocol_error(remote: Remote, fake: FakeServer, body: bytes) -> None:
    fake.always = httpx.Response(200, content=body, headers={"content-type": "application/json"})
    for call in (remote().exchange({}), remote().changes(0), remote().change(0, []), remote().info()):
        with pytest.raises((ProtocolError, TransportError)):
            await call


@pytest.mark.parametrize(
    "page",
    [
        {"cid": "1", "changes": [], "has_more": False},
        {"cid": True, "changes": [], "has_more": False},
        {"cid": 1, "changes": {}, "has_more": False},
        {"cid": 1, "changes": [[]], "has_more": False},
        {"cid": 1, "changes": [["a", 1, 2]], "has_more": False},
        {"cid": 1, "changes": [[1]], "has_more": False},
        {"cid": 1, "changes": [["a"]] * 101, "has_more": False},
        {"cid": -1, "changes": [], "has_more": False},
        {"cid": 1, "changes": []},
    ],
)
async def test_invalid_changes_are_a_protocol_error(remote: Remote, fake: FakeServer, page: Any) -> None:
    fake.always = httpx.Response(200, json=page)
    with pytest.raises(ProtocolError):
        await remote().changes(0)


# --------------------------------------------------------------------- responses of other programs


@pytest.mark.parametrize("status", [200, 203, 403, 409, 500])
async def test_html_is_reported_as_a_captive_portal(remote: Remote, fake: FakeServer, status: int) -> None:
    fake.always = captive_portal(status)
    with pytest.raises(TransportError, match="captive portal") as raised:
        await remote().info()
    assert raised.value.status == status
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://elsewhere.example/",
        "//elsewhere.example/v1/notes",
        "http://127.0.0.1:2/v1/notes",
        "ftp://127.0.0.1:1/v1/notes",
    ],
)
async def test_a_redirect_to_another_server_is_refused(
    remote: Remote, fake: FakeServer, status: int, location: str
) -> None:
    fake.always = httpx.Response(status, headers={"location": location})
    with pytest.raises(TransportError, match="redirects to another place") as raised:
        await remote(token="secret").exchange({})
    assert raised.value.status == status
    assert {str(request.url.copy_with(path="/", query=None)) for request in fake.requests} == {"http://127.0.0.1:1/"}


async def test_a_redirect_from_https_to_http_is_refused(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(308, headers={"location": "http://example.org/v1/notes"})
    with pytest.raises(TransportError, match="redirects"):
        await remote("https://example.org/v1/notes", token="secret").info()
    assert len(fake.requests) == 1


async def test_a_redirect_within_the_server_is_followed(remote: Remote, fake: FakeServer) -> None:
    fake.faults.append(httpx.Response(307, headers={"location": "/v1/notes/change?moved=1"}))
    assert await remote(token="secret").change(0, [["a", 1]]) == 1
    assert [request.headers["authorization"] for request in fake.requests] == ["Bearer secret"] * 2
    assert fake.requests[1].content == fake.requests[0].content


async def test_a_redirect_loop_ends(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(308, headers={"location": "/v1/notes"})
    with pytest.raises(TransportError, match="redirects"):
        await remote().info()
    assert len(fake.requests) < 10


async def test_cookies_are_not_kept(remote: Remote, fake: FakeServer) -> None:
    fake.faults.append(json_error(503, **{"set-cookie": "portal=1; Path=/"}))
    await remote().info()
    assert "cookie" not in fake.requests[1].headers


# ------------------------------------------------------------------------------------------ bodies


def compressed(data: bytes) -> httpx.Response:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return httpx.Response(200, headers=headers, stream=TruncatedBody(data))


async def test_a_compressed_response_is_decoded(remote: Remote, fake: FakeServer) -> None:
    fake.faults.append(compressed(gzip.compress(b'{"cid": 7}')))
    assert await remote().info() == {"cid": 7}


@pytest.mark.parametrize(("origin", "encoding"), [("http://127.0.0.1", "identity"), ("https://example.org", "gzip")])
async def test_compression_is_requested_unless_the_server_is_on_this_machine(
    fake: FakeServer, origin: str, encoding: str
) -> None:
    async with RemoteServer(f"{origin}/v1/notes", transport=httpx.MockTransport(fake)) as remote:
        await remote.info()
    assert fake.requests[0].headers["accept-encoding"] == encoding


@pytest.mark.parametrize("data", [gzip.compress(b'{"cid": 7}' * 9, mtime=0)[:-9], b"not gzip"])
async def test_a_damaged_compressed_response_is_requested_again(remote: Remote, fake: FakeServer, data: bytes) -> None:
    fake.faults.append(compressed(data))
    assert (await remote().info())["cid"] == 0


async def test_a_content_encoding_that_was_not_accepted_is_refused(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(200, headers={"content-encoding": "br"}, stream=TruncatedBody(b"x"))
    with pytest.raises(TransportError, match="encoded as 'br'"):
        await remote().info()


async def test_a_response_over_the_limit_is_refused(remote: Remote, fake: FakeServer) -> None:
    limit = body.MAX_DOCUMENT_BYTES
    fake.faults.append(httpx.Response(200, json={"cid": 0, "x": "y" * (limit - 16)}))
    assert await remote().info()
    fake.always = httpx.Response(200, json={"cid": 0, "x": "y" * (limit - 15)})
    fake.requests.clear()
    with pytest.raises(TransportError, match=f"more than {limit:,} bytes"):
        await remote().info()
    assert len(fake.requests) == 1


async def test_a_decompression_bomb_is_not_inflated(remote: Remote, fake: FakeServer) -> None:
    bomb = gzip.compress(b"0" * (200 << 20), compresslevel=9)
    fake.always = compressed(bomb)
    with pytest.raises(TransportError, match="more than"):
        await remote().info()


def test_a_response_below_the_minimum_rate_is_abandoned() -> None:
    decoder = body.BodyDecoder({}, 1 << 20)
    for _ in range(100):
        decoder.feed(b"x", -1.0)
    decoder.feed(b"x" * 4096, 1.0)
    with pytest.raises(body.NoResponseError, match="too slowly"):
        decoder.feed(b"x", 2.0)


# ------------------------------------------------------------------------------------------ tokens


async def test_a_token_is_sent_as_a_bearer_token(remote: Remote, fake: FakeServer) -> None:
    await remote(token="id.secret").info()
    await remote().info()
    assert [request.headers.get("authorization") for request in fake.requests] == ["Bearer id.secret", None]


async def test_a_token_callable_is_called_once(remote: Remote, fake: FakeServer) -> None:
    tokens = iter(["one", "two"])
    server = remote(token=lambda: next(tokens))
    await server.info()
    await server.info()
    assert [request.headers["authorization"] for request in fake.requests] == ["Bearer one"] * 2


async def test_a_rejected_token_is_renewed_once_per_call(remote: Remote, fake: FakeServer) -> None:
    tokens = iter(["one", "two", "three"])
    server = remote(token=lambda: next(tokens))
    fake.faults.append(json_error(401))
    await server.info()
    fake.faults.extend([json_error(401), json_error(401)])
    with pytest.raises(TransportError, match="status 401") as raised:
        await server.info()
    assert raised.value.status == 401
    seen = [request.headers["authorization"].removeprefix("Bearer ") for request in fake.requests]
    assert seen == ["one", "two", "two", "three"]


async def test_a_rejected_fixed_token_is_not_sent_again(remote: Remote, fake: FakeServer) -> None:
    fake.always = json_error(401)
    with pytest.raises(TransportError):
        await remote(token="id.secret").info()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ключ", "x" * 5000])
async def test_a_token_that_does_not_fit_into_a_header_is_rejected_and_not_shown(remote: Remote, token: str) -> None:
    with pytest.raises(ValueError, match="one word of visible ASCII") as raised:
        remote(token=token)
    assert not token or token not in str(raised.value)
    with pytest.raises(ValueError, match="one word of visible ASCII"):
        await remote(token=lambda: token).info()
    with pytest.raises(TypeError, match="not a bytes"):
        await remote(token=lambda: b"x").info()


async def test_no_message_contains_the_token_even_if_the_server_repeats_it(remote: Remote, fake: FakeServer) -> None:
    faults: list[Any] = [json_error(400, "your token id.secret is bad"), json_error(401), captive_portal(), UNSENT[0]]
    for fake.always in faults:
        with pytest.raises(LevelError) as raised:
            await remote(token="id.secret", retries=0).info()
        error: BaseException | None = raised.value
        while error is not None:
            assert "secret" not in str(error)
            assert "secret" not in repr(error)
            error = error.__cause__ or error.__context__


async def test_messages_of_the_server_are_shortened_to_one_line(remote: Remote, fake: FakeServer) -> None:
    fake.always = json_error(400, "a\n\x1b[31mb" + "x" * 10_000)
    with pytest.raises(TransportError) as raised:
        await remote().info()
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": "1"}, {"retries": -1}, {"retries": 1.5}])
async def test_invalid_options_are_rejected(remote: Remote, options: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout|retries"):
        remote(**options)


# ------------------------------------------------------------------------------------------- watch


async def test_a_watch_that_cannot_connect_fails(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.ConnectError("refused")
    with pytest.raises(TransportError):
        await anext(remote().watch(since=0))


async def test_a_watch_whose_streams_end_at_once_fails(remote: Remote, fake: FakeServer) -> None:
    fake.always = httpx.Response(200, headers=STREAM, stream=TruncatedBody(b": hello\n\n"))
    with pytest.raises(TransportError, match="ended the stream"):
        await anext(remote().watch(since=0))
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    "data",
    [
        b"id: x\ndata: [1]\n\n",
        b"data: [1]\n\n",
        b"id: 1\ndata: {\n\n",
        b"id: 1\ndata: []\n\n",
        b"id: 1\ndata: \xff\n\n",
    ],
)
async def test_an_invalid_event_is_a_protocol_error(remote: Remote, fake: FakeServer, data: bytes) -> None:
    fake.always = httpx.Response(200, headers=STREAM, stream=TruncatedBody(data))
    with pytest.raises(ProtocolError):
        await anext(remote().watch(since=0))


async def test_a_watch_answered_by_a_captive_portal_fails(remote: Remote, fake: FakeServer) -> None:
    fake.always = captive_portal()
    with pytest.raises(TransportError, match="captive portal"):
        await anext(remote().watch(since=0))


async def test_a_watch_of_a_closed_remote_server_fails(remote: Remote) -> None:
    one = remote()
    await one.close()
    with pytest.raises(StateError):
        await anext(one.watch(since=0))
    assert URL in repr(one)
