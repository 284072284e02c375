"""Server-sent events: each change once and in order, also for slow and reconnecting readers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from replication.helpers import ask
from served import Served, StreamingRequest, asyncio_timeout

from treehub_level import Put
from treehub_level.engine.access import Access
from treehub_level.http.server.database import Database
from treehub_level.http.server.dispatch import Dispatcher
from treehub_level.http.server.limits import Limits
from treehub_level.http.server.watch import format_events
from treehub_level.replication.manual import read_part


@pytest.fixture
def without_tokens(served: Served) -> Served:
    """A server without tokens."""
    served.rebuild(tokens=None)
    return served


def watching(served: Served, query: str = "", **headers: str) -> Any:
    return StreamingRequest(served.app, "GET", f"/v1/notes/watch{query}", headers=headers).open()


def parsed(text: bytes) -> list[tuple[int, str]]:
    """Parse a stream as the HTML standard specifies: the last id and the data of each event."""
    found, last = [], -1
    for block in text.decode().split("\n\n"):
        data = []
        for line in block.split("\n"):
            if line.startswith("id: "):
                last = int(line[4:])
            elif line.startswith("data: "):
                data.append(line[6:])
        if data:
            found.append((last, "\n".join(data)))
    return found


async def test_past_changes_come_first_and_then_new_ones(without_tokens: Served) -> None:
    level = without_tokens.levels["notes"]
    await level.put("a", {"ü": 1})
    async with watching(without_tokens, "?since=0") as stream:
        await stream.until(lambda: len(parsed(stream.text)) == 1)
        await level.put("b", 2)
        await level.delete("a")
        await stream.until(lambda: len(parsed(stream.text)) == 3)
        assert parsed(stream.text) == [(1, '["a",{"ü":1}]'), (2, '["b",2]'), (3, '["a"]')]
        assert dict(stream.sent[0]["headers"])[b"content-type"] == b"text/event-stream"


async def test_the_cid_of_the_first_page_of_entries_is_where_a_watch_goes_on(without_tokens: Served) -> None:
    level, client = without_tokens.levels["notes"], without_tokens.client
    await level.load((f"k{n}", n) for n in range(5))
    seen: dict[str, Any] = {}
    first = (await client.get("/v1/notes/entries?limit=3")).json()
    for key in ("k0", "k4", "k9"):
        await level.put(key, "new")
    await level.delete("k3")
    rest = (await client.get("/v1/notes/entries?gt=k2")).json()
    seen.update([*first["entries"], *rest["entries"]])
    assert (first["cid"], rest["cid"]) == (5, 9)
    async with watching(without_tokens, f"?since={first['cid']}") as stream:
        await stream.until(lambda: len(parsed(stream.text)) == 4)
        for _, data in parsed(stream.text):
            key, *value = json.loads(data)
            seen.pop(key, None)
            seen.update({key: value[0]} if value else {})
    assert seen == dict(await level.query())


async def test_a_watch_without_a_cid_begins_at_the_current_one(without_tokens: Served) -> None:
    level = without_tokens.levels["notes"]
    await level.put("a", 1)
    async with watching(without_tokens) as stream:
        await stream.until(lambda: b"id: 1\n\n" in stream.text)
        await level.put("b", 2)
        await stream.until(lambda: parsed(stream.text))
        assert parsed(stream.text) == [(2, '["b",2]')]


async def test_a_reconnecting_reader_resumes_after_its_last_event(without_tokens: Served) -> None:
    for number in range(5):
        await without_tokens.levels["notes"].put("a", number)
    headers = {"last-event-id": "3"}
    async with watching(without_tokens, "?since=0", **headers) as stream:
        await stream.until(lambda: len(parsed(stream.text)) == 2)
        assert [id for id, _ in parsed(stream.text)] == [4, 5]


@pytest.mark.parametrize("last", ["x", "-1", "9" * 17])
async def test_an_invalid_event_id_is_refused(without_tokens: Served, last: str) -> None:
    async with watching(without_tokens, **{"last-event-id": last}) as stream:
        await stream.until(lambda: stream.task.done())
        assert stream.status == 400


async def test_compacted_changes_are_skipped(without_tokens: Served) -> None:
    level = without_tokens.levels["notes"]
    for number in range(5):
        await level.put("a", number)
    await level.compact_log()
    async with watching(without_tokens, "?since=0") as stream:
        await stream.until(lambda: parsed(stream.text))
        assert parsed(stream.text) == [(5, '["a",4]')]


async def test_a_watch_without_changes_sends_comments(without_tokens: Served) -> None:
    without_tokens.rebuild(tokens=None, limits=Limits(keep_alive_seconds=0.01))
    async with watching(without_tokens) as stream:
        await stream.until(lambda: stream.text.count(b": nothing new\n\n") >= 2)
        assert parsed(stream.text) == []


async def test_a_watch_ends_when_the_server_stops(without_tokens: Served) -> None:
    async with watching(without_tokens) as stream:
        await stream.until(lambda: stream.text)
        without_tokens.hub.stop()
        await stream.until(lambda: stream.task.done())
        assert stream.sent[-1]["more_body"] is False


async def test_a_watch_ends_when_the_database_is_closed(without_tokens: Served) -> None:
    async with watching(without_tokens) as stream:
        await stream.until(lambda: stream.text)
        await without_tokens.levels["notes"].close()
        await stream.until(lambda: stream.task.done())
        assert stream.sent[-1]["more_body"] is False
    await without_tokens.levels["notes"].open()


async def test_a_watch_releases_its_resources_when_the_reader_disconnects(without_tokens: Served) -> None:
    async with watching(without_tokens) as stream:
        await stream.until(lambda: stream.text)
    assert not without_tokens.levels["notes"]._store.listeners
    assert not without_tokens.app.state.dispatcher.requests.active


async def bytes_read_for_a_slow_reader(served: Served, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the bytes read from a log of 8 MiB for a reader that stops after the first event."""
    level = served.levels["notes"]
    for number in range(64):
        await level.put(f"k{number}", "x" * (128 << 10))
    read: list[int] = []
    piece = Database.piece

    async def counted(*args: Any, **options: Any) -> Any:
        found = await piece(*args, **options)
        read.append(sum(len(record) for _, record in found[0].records))
        return found

    monkeypatch.setattr(Database, "piece", counted)
    async with watching(served, "?since=0") as stream:
        await stream.until(lambda: parsed(stream.text))
        stream.reading.clear()
        await level.put("more", 1)
        for _ in range(100):
            await asyncio.sleep(0.002)
        return sum(read)


async def test_a_slow_reader_is_not_read_ahead_for(without_tokens: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await bytes_read_for_a_slow_reader(without_tokens, monkeypatch) < 1 << 20


async def test_a_watch_that_reads_ahead_of_a_slow_reader_is_detected(
    without_tokens: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.http.server.database.PIECE_BYTES", 1 << 30)
    assert await bytes_read_for_a_slow_reader(without_tokens, monkeypatch) > 8 << 20


async def test_a_large_change_for_a_reader_that_stops_is_counted(without_tokens: Served) -> None:
    await without_tokens.levels["notes"].put("large", "x" * (1 << 20))
    responses = without_tokens.app.state.dispatcher.responses
    path = "/v1/notes/watch?since=0"
    async with StreamingRequest(without_tokens.app, "GET", path, stop_after=3).open() as stream:
        await stream.until(lambda: stream.blocked)
        assert responses.held.total() > 1 << 20
        stream.reading.set()
        await stream.until(lambda: parsed(stream.text))
        await without_tokens.levels["notes"].put("small", 1)
        await stream.until(lambda: len(parsed(stream.text)) == 2)
        assert not responses.held


# ----------------------------------------------------------------------------------------- tokens


def edit_token(served: Served, token: str, **fields: Any) -> None:
    """Change fields of a token in its file, as an operator would."""
    path = Path(served.tokens.path)
    content = json.loads(path.read_bytes())
    (found,) = (item for item in content["tokens"] if item["id"] == token.partition(".")[0])
    found.update(fields)
    path.write_text(json.dumps(content))


def damage_token_file(served: Served) -> None:
    Path(served.tokens.path).write_text("damaged")


def revoke(served: Served, token: str) -> None:
    served.tokens.revoke(token.partition(".")[0])


#: The ways in which a token loses its rights, and the code with which its requests end.
ENDINGS: dict[str, tuple[Callable[[Served, str], None], str]] = {
    "revoked": (revoke, "LEVEL_UNAUTHORIZED"),
    "expired": (lambda served, token: edit_token(served, token, expires=1.0), "LEVEL_UNAUTHORIZED"),
    "for another database": (
        lambda served, token: edit_token(served, token, databases=["other"]),
        "LEVEL_DATABASE_NOT_FOUND",
    ),
}


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> tuple[Callable[[Served, str], None], str]:
    """A way in which a token loses its rights, and the code of the refusal."""
    return ENDINGS[request.param]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_watch_ends_at_the_next_event_after_its_token_lost_its_rights(served: Served, ending: Any) -> None:
    token = served.tokens.add(databases=["notes"])
    async with watching(served, **bearer(token)) as stream:
        await stream.until(lambda: stream.text)
        ending[0](served, token)
        await served.levels["notes"].put("a", "novel")
        await stream.until(lambda: stream.task.done())
        assert stream.sent[-1]["more_body"] is False
        assert f": {ending[1]}: ".encode() in stream.text
        assert parsed(stream.text) == []
    assert not served.levels["notes"]._store.listeners


async def test_a_watch_ends_at_the_next_keep_alive_after_its_token_lost_its_rights(served: Served, ending: Any) -> None:
    served.rebuild(limits=Limits(keep_alive_seconds=0.02))
    token = served.tokens.add(databases=["notes"])
    async with watching(served, **bearer(token)) as stream:
        await stream.until(lambda: b"nothing new" in stream.text)
        ending[0](served, token)
        await stream.until(lambda: stream.task.done())
        assert f": {ending[1]}: ".encode() in stream.text


async def test_a_watch_of_a_token_that_expires_ends(served: Served) -> None:
    served.rebuild(limits=Limits(keep_alive_seconds=0.02))
    token = served.tokens.add(databases=["notes"], expires=time.time() + 0.5)
    async with watching(served, **bearer(token)) as stream:
        await stream.until(lambda: stream.task.done())
        assert b": LEVEL_UNAUTHORIZED: " in stream.text


async def test_a_watch_of_a_narrowed_token_shows_only_what_is_left(served: Served) -> None:
    token = served.tokens.add(databases=["notes"])
    async with watching(served, **bearer(token)) as stream:
        await stream.until(lambda: stream.text)
        edit_token(served, token, prefix="public/")
        await served.levels["notes"].put("private/a", 1)
        await served.levels["notes"].put("public/a", 2)
        await stream.until(lambda: b"id: 2" in stream.text)
        assert parsed(stream.text) == [(2, '["public/a",2]')]


async def test_a_watch_ends_without_a_readable_token_file(served: Served) -> None:
    served.rebuild(limits=Limits(keep_alive_seconds=0.02))
    token = served.tokens.add(databases=["notes"])
    async with watching(served, **bearer(token)) as stream:
        await stream.until(lambda: stream.text)
        damage_token_file(served)
        await stream.until(lambda: stream.task.done())


@pytest.mark.parametrize("route", ["changes", "watch?since=0"])
async def test_rights_that_are_lost_during_a_read_count(
    served: Served, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    await served.levels["notes"].put("a", "novel")
    token = served.tokens.add(databases=["notes"])

    def losing_rights(*args: Any) -> Any:
        revoke(served, token)
        return read_part(*args)

    monkeypatch.setattr("treehub_level.http.server.database.read_part", losing_rights)
    client = await served.client_with(token)
    answer = await client.get(f"/v1/notes/{route}")
    assert (answer.status_code, answer.json()["code"]) == (401, "LEVEL_UNAUTHORIZED")


async def test_rights_that_are_asked_once_are_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    token = served.tokens.add(databases=["notes"])
    found = served.tokens.find(token)

    async def ask_once(*_: object) -> Access:
        assert found is not None
        return found.access

    monkeypatch.setattr(Dispatcher, "_ask_again", ask_once)
    async with watching(served, **bearer(token)) as stream:
        await stream.until(lambda: stream.text)
        revoke(served, token)
        await served.levels["notes"].put("a", "novel")
        await stream.until(lambda: parsed(stream.text))


@pytest.mark.parametrize("commits", [True, False], ids=["commit", "timeout"])
@pytest.mark.parametrize("route", ["exchange", "changes"])
async def test_a_long_poll_is_refused_after_its_token_lost_its_rights(
    served: Served, ending: Any, route: str, commits: bool
) -> None:
    token = served.tokens.add(databases=["notes"])
    client = await served.client_with(token)
    path, wait = f"/v1/notes/{route}", {"wait": "60" if commits else "0.2"}
    poll = asyncio.ensure_future(
        client.post(path, params=wait, json=ask()) if route == "exchange" else client.get(path, params=wait)
    )
    async with asyncio_timeout(30):
        await served.wait_for_long_poll()
        ending[0](served, token)
        if commits:
            await served.levels["notes"].put("a", "novel")
        answer = await poll
    assert answer.json()["code"] == ending[1]
    assert "novel" not in answer.text


@pytest.mark.parametrize("route", ["exchange", "changes"])
async def test_a_long_poll_of_a_narrowed_token_brings_only_what_is_left(served: Served, route: str) -> None:
    token = served.tokens.add(databases=["notes"])
    client = await served.client_with(token)
    path = f"/v1/notes/{route}?wait=60"
    poll = asyncio.ensure_future(client.post(path, json=ask()) if route == "exchange" else client.get(path))
    async with asyncio_timeout(30):
        await served.wait_for_long_poll()
        edit_token(served, token, prefix="public/")
        await served.levels["notes"].batch([Put("private/a", 1), Put("public/a", 2)])
        answer = await poll
    assert "private" not in answer.text
    assert "public/a" in answer.text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (revoke, "LEVEL_UNAUTHORIZED"),
        (lambda served, token: edit_token(served, token, write=False), "LEVEL_FORBIDDEN"),
        (lambda served, token: edit_token(served, token, prefix="public/"), "LEVEL_FORBIDDEN"),
    ],
    ids=["revoked", "read-only", "narrowed"],
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "entries/a", b"1"),
        ("POST", "change", b'{"cid":0,"changes":[["a",1]]}'),
        ("POST", "exchange", json.dumps(ask(changes=[["a", 1]])).encode()),
    ],
)
async def test_a_write_is_refused_if_its_token_lost_its_rights_during_the_upload(
    served: Served, change: Any, code: str, method: str, path: str, body: bytes
) -> None:
    token = served.tokens.add(databases=["notes"], write=True)
    sent = asyncio.Event()
    headers = {**bearer(token), "content-type": "application/json"}

    async def upload() -> AsyncIterator[bytes]:
        yield body[:1]
        await sent.wait()
        yield body[1:]

    upload_ = asyncio.ensure_future(
        served.anonymous.request(method, f"/v1/notes/{path}", headers=headers, content=upload())
    )
    await asyncio.sleep(0.01)
    change(served, token)
    sent.set()
    answer = await upload_
    refusal = answer.json()
    assert refusal.get("code") == code or (code == "LEVEL_FORBIDDEN" and refusal["refused"][0][1] == ["a"])
    assert await served.levels["notes"].query() == []


def test_a_record_with_line_breaks_is_one_event() -> None:
    assert format_events([(1, b'["a",\n{"b":1}\r]')], 1) == b'id: 1\ndata: ["a",{"b":1}]\n\n'
    assert format_events([(1, b'["a"]')], 3) == b'id: 1\ndata: ["a"]\n\nid: 3\n\n'


async def test_an_event_announces_the_commit_of_the_changes_that_follow(without_tokens: Served) -> None:
    level = without_tokens.levels["notes"]
    await level.put("a", 1)
    await level.batch([Put("b", 1), Put("c", 1)])
    async with watching(without_tokens, "?since=0") as stream:
        await stream.until(lambda: b"id: 3" in stream.text)
        blocks = stream.text.decode().split("\n\n")
        at = next(index for index, block in enumerate(blocks) if block.startswith("event: commit"))
        assert blocks[at - 1].startswith("id: 1\n")
        assert blocks[at + 1].startswith("id: 2\n")
        first, last, client, principal, ms, groups = json.loads(blocks[at].partition("data: ")[2])
        assert (first, last, client, principal, groups) == (2, 3, None, None, [[2, 3]])
        assert ms > 1_700_000_000_000
