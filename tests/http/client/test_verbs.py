"""The verbs that a remote server shares with a level in SERVER mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from treehub_level import Change, CIDMismatchError, Level, ProtocolError, Put, StateError, StoreMismatchError, blocking

from .fake import STREAM, URL, FakeServer

Remote = Callable[..., Any]


class Recorder:
    """A server that records the requests of its clients."""

    def __init__(self, level: blocking.Level) -> None:
        self._level = level
        self.requests: list[dict[str, Any]] = []

    def exchange(self, request: Any) -> Any:
        self.requests.append(request)
        return self._level.exchange(request)


async def take(watching: Any, count: int) -> list[Any]:
    taken = []
    async for change in watching:
        taken.append((change.cid, change))
        if len(taken) == count:
            break
    await watching.aclose()
    return taken


async def test_exchange_sends_a_request_and_returns_the_reply(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("a", {"ключ": [1, None, "🙂"]})
    request = {
        "protocol": 2, "server": None, "client": "c" * 32, "cid": 0, "hi": 0, "epochs": [], "seq": 1,
        "nonce": "0" * 32, "changes": [["b", 1]], "limit": 1000, "push": "1" * 32, "complete": [""], "partial": [],
        "fill": None,
    }  # fmt: skip
    reply = await remote().exchange(request)
    assert reply["page"] == [[1, ["a", {"ключ": [1, None, "🙂"]}]]]
    assert fake.level.get("b") == 1
    (sent,) = fake.requests
    assert (sent.method, sent.url.path) == ("POST", "/v1/notes/exchange")
    assert sent.headers["content-type"] == "application/json"
    assert orjson.loads(sent.content) == request


async def test_exchange_long_polls(remote: Remote, fake: FakeServer) -> None:
    one = remote(timeout=20.0)
    with pytest.raises(ProtocolError):
        await one.exchange({}, wait=7.5)
    (sent,) = fake.requests
    assert sent.url.params["wait"] == "7.5"
    assert sent.extensions["timeout"] == {"connect": 10.0, "read": 27.5, "write": 20.0, "pool": 20.0}


@pytest.mark.parametrize("wait", [-1, 61, float("nan"), "1", True])
async def test_an_invalid_wait_is_rejected_before_sending(remote: Remote, fake: FakeServer, wait: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="wait is"):
        await remote().exchange({}, wait=wait)
    with pytest.raises((TypeError, ValueError), match="wait is"):
        await remote().changes(0, wait=wait)
    assert fake.requests == []


async def test_changes_returns_a_page(remote: Remote, fake: FakeServer) -> None:
    fake.level.batch([Put(f"k{n}", n) for n in range(5)])
    fake.level.delete("k0")
    page = await remote().changes(3, limit=2, wait=1)
    assert page == (5, [["k3", 3], ["k4", 4]], True)
    assert isinstance(page.changes[0], Change)
    assert (await remote().changes(5)).changes == [Change.deletion("k0")]
    assert await remote().changes(6) == (6, [], False)
    assert await remote().changes(0, limit=0) == (0, [], True)


async def test_changes_without_a_limit_fetches_page_after_page(remote: Remote, fake: FakeServer) -> None:
    fake.level.load((f"k{n:04}", n) for n in range(2345))
    page = await remote().changes(0, limit=None)
    assert (page.cid, len(page.changes), page.has_more) == (2345, 2345, False)
    assert len(fake.requests) == 3
    assert (await remote().changes(0, limit=1001)).cid == 1001


async def test_change_pushes(remote: Remote, fake: FakeServer) -> None:
    assert await remote().change(0, [Change("a", 1), ["b", 2], Change.deletion("c")]) == 3
    assert fake.level.query() == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    "changes", ["xy", ["xy"], [["a", float("nan")]], [["a", {1: 2}]], [["!", 1]], [[]], [["a", 1, 2]], [["a", 2**70]]]
)
async def test_an_invalid_change_is_rejected_before_sending(remote: Remote, fake: FakeServer, changes: Any) -> None:
    with pytest.raises((ProtocolError, TypeError)):
        await remote().change(0, changes)
    for cid in (True, "0", None):
        with pytest.raises(TypeError):
            await remote().change(cid, [["a", 1]])
    assert fake.requests == []


async def test_a_change_from_another_cid_is_a_mismatch(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("a", 1)
    with pytest.raises(CIDMismatchError) as raised:
        await remote().change(0, [["b", 1]])
    assert (raised.value.expected, raised.value.got) == (1, 0)


async def test_info_returns_the_description_of_the_database(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("a", 1)
    assert (await remote().info())["cid"] == 1


async def test_watch_yields_changes_with_their_cids(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("a", "line\nbreak")
    fake.level.delete("a")
    taken = await take(remote().watch(since=0), 2)
    assert taken == [(1, ["a", "line\nbreak"]), (2, ["a"])]


async def test_watch_resumes_after_a_lost_connection(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("a", 1)
    watching = remote(retries=9).watch(since=0)
    taken = [await anext(watching)]
    fake.level.put("b", 2)
    taken += [await anext(watching)]
    await watching.aclose()
    assert taken == [["a", 1], ["b", 2]]
    assert [request.url.params["since"] for request in fake.requests] == ["0", "1"]


async def test_watch_resumes_after_event_ids_without_data(remote: Remote, fake: FakeServer) -> None:
    fake.faults.append(httpx.Response(200, headers=STREAM, content="id: 7\n\n: hello\n\nid: 9\n\n"))
    fake.faults.append(httpx.Response(200, headers=STREAM, content='id: 10\ndata: ["a", 1]\n\n'))
    assert await take(remote().watch(since=0), 1) == [(10, ["a", 1])]
    assert [request.url.params["since"] for request in fake.requests] == ["0", "9"]


async def test_watch_starts_at_the_current_cid_by_default(remote: Remote, fake: FakeServer) -> None:
    fake.level.put("old", 1)

    def answer_then_write(request: httpx.Request) -> httpx.Response:
        response = fake.answer(request)
        fake.level.put("new", 2)
        return response

    fake.faults.append(answer_then_write)
    assert await take(remote().watch(), 1) == [(2, ["new", 2])]


async def test_errors_of_the_server_are_raised_as_by_a_level(remote: Remote, fake: FakeServer) -> None:
    with pytest.raises(ProtocolError, match="protocol"):
        await remote().exchange({})
    with pytest.raises(CIDMismatchError):
        await remote().changes(7)
    fake.level.put("a", 1)
    with blocking.Level("client", backend="memory", mode=Level.CLIENT) as client, pytest.raises(StoreMismatchError):
        recorder = Recorder(fake.level)
        client.sync(recorder)
        await remote().exchange({**recorder.requests[-1], "server": "f" * 32})


async def test_a_closed_remote_server_sends_nothing(remote: Remote, fake: FakeServer) -> None:
    one = remote()
    await one.close()
    with pytest.raises(StateError, match="was closed"):
        await one.info()
    assert fake.requests == []


async def test_the_repr_shows_the_url_and_no_token(remote: Remote) -> None:
    assert URL in repr(remote(token="secret"))
    assert "secret" not in repr(remote(token="secret"))
    assert remote().url == URL
