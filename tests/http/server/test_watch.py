"""Server-sent events: each change once and in order, also for slow and reconnecting readers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from served import Served, StreamingRequest

from treehub_level.http.server.database import Database
from treehub_level.http.server.limits import Limits
from treehub_level.http.server.watch import format_events


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
    changes = Database.changes

    async def counted(*args: Any, **options: Any) -> Any:
        found = await changes(*args, **options)
        read.append(sum(len(record) for _, record in found.records))
        return found

    monkeypatch.setattr(Database, "changes", counted)
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
    monkeypatch.setattr("treehub_level.http.server.watch.WATCH_BYTES", 1 << 30)
    assert await bytes_read_for_a_slow_reader(without_tokens, monkeypatch) > 8 << 20


def test_a_record_with_line_breaks_is_one_event() -> None:
    assert format_events([(1, b'["a",\n{"b":1}\r]')], 1) == b'id: 1\ndata: ["a",{"b":1}]\n\n'
    assert format_events([(1, b'["a"]')], 3) == b'id: 1\ndata: ["a"]\n\nid: 3\n\n'
