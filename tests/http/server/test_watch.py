"""Server-sent events: each change once, in order, however often the reader comes back, however slowly it reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from served import Conversation, Served

from treehub_level.http.server.database import Database
from treehub_level.http.server.limits import Limits
from treehub_level.http.server.watch import format_events


@pytest.fixture
def open_to_all(served: Served) -> Served:
    """A server that asks for no token."""
    served.rebuild(tokens=None)
    return served


def watching(served: Served, query: str = "", **headers: str) -> Any:
    return Conversation(served.app, "GET", f"/v1/notes/watch{query}", headers=headers).held()


def parsed(text: bytes) -> list[tuple[int, str]]:
    """The events of a stream, as the standard says a browser reads them: last id, data."""
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


async def test_what_was_there_comes_first_and_then_what_happens(open_to_all: Served) -> None:
    level = open_to_all.levels["notes"]
    await level.put("a", {"ü": 1})
    async with watching(open_to_all, "?since=0") as talk:
        await talk.until(lambda: len(parsed(talk.text)) == 1)
        await level.put("b", 2)
        await level.delete("a")
        await talk.until(lambda: len(parsed(talk.text)) == 3)
        assert parsed(talk.text) == [(1, '["a",{"ü":1}]'), (2, '["b",2]'), (3, '["a"]')]
        assert dict(talk.sent[0]["headers"])[b"content-type"] == b"text/event-stream"


async def test_without_a_cid_it_begins_now_and_says_where_that_is(open_to_all: Served) -> None:
    level = open_to_all.levels["notes"]
    await level.put("a", 1)
    async with watching(open_to_all) as talk:
        await talk.until(lambda: b"id: 1\n\n" in talk.text)
        await level.put("b", 2)
        await talk.until(lambda: parsed(talk.text))
        assert parsed(talk.text) == [(2, '["b",2]')]


async def test_a_reader_that_comes_back_goes_on_where_it_was(open_to_all: Served) -> None:
    for number in range(5):
        await open_to_all.levels["notes"].put("a", number)
    headers = {"last-event-id": "3"}
    async with watching(open_to_all, "?since=0", **headers) as talk:
        await talk.until(lambda: len(parsed(talk.text)) == 2)
        assert [id for id, _ in parsed(talk.text)] == [4, 5]


@pytest.mark.parametrize("last", ["x", "-1", "9" * 17])
async def test_an_event_id_that_is_none_is_refused(open_to_all: Served, last: str) -> None:
    async with watching(open_to_all, **{"last-event-id": last}) as talk:
        await talk.until(lambda: talk.task.done())
        assert talk.status == 400


async def test_compacted_changes_are_passed_over(open_to_all: Served) -> None:
    level = open_to_all.levels["notes"]
    for number in range(5):
        await level.put("a", number)
    await level.compact_log()
    async with watching(open_to_all, "?since=0") as talk:
        await talk.until(lambda: parsed(talk.text))
        assert parsed(talk.text) == [(5, '["a",4]')]


async def test_a_silent_database_is_heard_of_now_and_then(open_to_all: Served) -> None:
    open_to_all.rebuild(tokens=None, limits=Limits(keep_alive_seconds=0.01))
    async with watching(open_to_all) as talk:
        await talk.until(lambda: talk.text.count(b": nothing new\n\n") >= 2)
        assert parsed(talk.text) == []


async def test_it_ends_when_the_server_stops(open_to_all: Served) -> None:
    async with watching(open_to_all) as talk:
        await talk.until(lambda: talk.text)
        open_to_all.hub.stop()
        await talk.until(lambda: talk.task.done())
        assert talk.sent[-1]["more_body"] is False


async def test_it_ends_when_the_database_is_closed(open_to_all: Served) -> None:
    async with watching(open_to_all) as talk:
        await talk.until(lambda: talk.text)
        await open_to_all.levels["notes"].close()
        await talk.until(lambda: talk.task.done())
        assert talk.sent[-1]["more_body"] is False
    await open_to_all.levels["notes"].open()


async def test_it_leaves_nothing_behind_when_the_reader_goes(open_to_all: Served) -> None:
    async with watching(open_to_all) as talk:
        await talk.until(lambda: talk.text)
    assert not open_to_all.levels["notes"]._blocking._store.listeners
    assert not open_to_all.app.state.dispatcher.requests.active


async def bytes_read_for_a_slow_reader(served: Served, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much of a log of 8 MiB is read for one who takes the first event and then no more."""
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
    async with watching(served, "?since=0") as talk:
        await talk.until(lambda: parsed(talk.text))
        talk.taking.clear()
        await level.put("more", 1)
        for _ in range(100):
            await asyncio.sleep(0.002)
        return sum(read)


async def test_a_slow_reader_holds_up_nothing_but_itself(open_to_all: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await bytes_read_for_a_slow_reader(open_to_all, monkeypatch) < 1 << 20


async def test_a_server_that_reads_ahead_of_a_slow_reader_is_noticed(
    open_to_all: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.http.server.watch.WATCH_BYTES", 1 << 30)
    assert await bytes_read_for_a_slow_reader(open_to_all, monkeypatch) > 8 << 20


def test_a_record_with_line_breaks_stays_one_event() -> None:
    assert format_events([(1, b'["a",\n{"b":1}\r]')], 1) == b'id: 1\ndata: ["a",{"b":1}]\n\n'
    assert format_events([(1, b'["a"]')], 3) == b'id: 1\ndata: ["a"]\n\nid: 3\n\n'
