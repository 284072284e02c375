"""Commits of a server: their records, the author and the time of changes, pages between them."""

import asyncio
import threading
from datetime import datetime, timezone
from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, Delete, InvalidKeyError, Level, ModeError, Put, blocking

NOW = 1_700_000_000_123
AT = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock."""
    monkeypatch.setattr("treehub_level.engine.clock.now", lambda: NOW)


async def records(stores: Stores, server: Any) -> dict[bytes, bytes]:
    """Return the records of commits, by the end of their keys."""
    rows = await stores.bytes_of(server)
    return {key.removeprefix(b"!!commit/"): row for key, row in rows.items() if key.startswith(b"!!commit/")}


def known(changes: list[Change]) -> list[tuple[str, Any, Any]]:
    return [(change.key, change.by, change.at) for change in changes]


async def test_each_batch_of_several_changes_has_one_record(stores: Stores, server: Any) -> None:
    await server.put("a", 1)
    await server.batch([Put("b", 1), Put("c", 1), Delete("a")])
    await server.batch([Put("d", 1)])
    async with server.write_batch() as batch:
        batch.put("e", 1)
        batch.put("f", 1)
    assert known((await server.changes(0)).changes) == [
        ("a", None, None),
        *[(key, None, AT) for key in ("b", "c", "a")],
        ("d", None, None),
        *[(key, None, AT) for key in ("e", "f")],
    ]
    assert await records(stores, server) == {
        b"4": b"[2,null,null,%d,[[2,4]]]" % NOW,
        b"7": b"[6,null,null,%d,[[6,7]]]" % NOW,
    }


async def test_loading_clearing_and_single_writes_have_no_record(stores: Stores, server: Any) -> None:
    await server.load([(f"k{number}", number) for number in range(5)])
    await server.put("k0", 1)
    await server.delete("k1")
    await server.clear()
    assert await records(stores, server) == {}


async def test_with_audit_every_write_has_a_record(stores: Stores) -> None:
    server = await stores.open("server", mode=Level.SERVER, audit=True)
    await server.put("a", 1)
    await server.delete("a")
    await server.batch([Put("b", 1), Put("c", 2)])
    await server.load([("d", 1), ("e", 2)])
    assert [change.at for change in (await server.changes(0)).changes] == [AT] * 6
    assert await records(stores, server) == {
        b"1": b"[1,null,null,%d,[]]" % NOW,
        b"2": b"[2,null,null,%d,[]]" % NOW,
        b"4": b"[3,null,null,%d,[[3,4]]]" % NOW,
        b"6": b"[5,null,null,%d,[]]" % NOW,
    }


@pytest.mark.once
def test_audit_needs_a_server() -> None:
    with pytest.raises(ValueError, match="SERVER"):
        Level("store", backend="memory", audit=True)
    with pytest.raises(TypeError, match="audit"):
        Level("store", backend="memory", mode=Level.SERVER, audit=1)  # type: ignore[arg-type]


async def test_batches_that_share_a_commit_have_their_own_records(stores: Stores, server: Any) -> None:
    puts = [server.put(f"single {number}", number) for number in range(20)]
    batches = [server.batch([Put(f"{number} a", 1), Put(f"{number} b", 2)], durable=True) for number in range(20)]
    await asyncio.gather(*(write for pair in zip(puts, batches, strict=True) for write in pair))
    changes = (await server.changes(0, None)).changes
    assert len(await records(stores, server)) == 20
    assert {change.key for change in changes if change.at is None} == {f"single {number}" for number in range(20)}


async def test_a_clock_before_1970_gives_no_time(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("time.time_ns", lambda: -1)
    await server.batch([Put("a", 1), Put("b", 2)])
    assert known((await server.changes(0)).changes) == [("a", None, None), ("b", None, None)]


async def test_a_pushed_change_has_its_client_and_the_time_of_the_server(
    stores: Stores, server: Any, client: Any
) -> None:
    await server.put("of the server", 1)
    await client.put("pushed", 1)
    await client.sync(server)
    [(_, by, at)] = known((await server.changes(1)).changes)
    assert (by, at) == ((await client.get("!!id"))[0], AT)
    assert [change.by for change in await server.history("pushed")] == [by]


async def test_a_manual_push_is_one_commit(stores: Stores, server: Any) -> None:
    await server.change(0, [["a", 1], ["b", 2]])
    await server.change(2, [["a"]])
    assert await records(stores, server) == {
        b"2": b"[1,null,null,%d,[[1,2]]]" % NOW,
        b"3": b"[3,null,null,%d,[]]" % NOW,
    }


async def test_a_page_does_not_end_inside_a_batch_that_fits_it(server: Any) -> None:
    await server.put("a", 1)
    await server.batch([Put(f"b{number}", number) for number in range(4)])
    await server.batch([Put(f"c{number}", number) for number in range(2)])

    async def pages(limit: int) -> list[int]:
        cid, ends, more = 0, [], True
        while more:
            cid, changes, more = await server.changes(cid, limit)
            assert 0 < len(changes) <= limit
            ends.append(cid)
        return ends

    assert await pages(4) == [1, 5, 7]
    assert await pages(5) == [5, 7]
    assert await pages(6) == [5, 7]
    assert await pages(7) == [7]
    assert await pages(3) == [1, 4, 7], "a batch that exceeds a page is cut"


async def test_a_client_that_pulls_page_by_page_never_has_a_part_of_a_batch(
    server: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 5)
    await server.load((f"other{number}", 0) for number in range(30))  # more than the log to be pulled
    await client.sync(server)
    for number in range(7):
        await server.batch([Put("left", number), Put(f"k{number}", number), Put("right", number)])
    seen = []
    await client.sync(server, progress=lambda report: seen.append(client.cid))
    assert [cid for cid in dict.fromkeys(seen) if cid] == [33, 36, 39, 42, 45, 48, 51]
    assert await client.query() == await server.query()


async def test_history_has_the_changes_of_a_key_oldest_first(server: Any) -> None:
    await server.put("a", 1)
    await server.batch([Put("a", 2), Put("b", 1), Put("a", 3)])
    await server.delete("a")
    assert await server.history("a") == [["a", 1], ["a", 2], ["a", 3], ["a"]]
    assert [(change.cid, change.at) for change in await server.history("a")] == [(1, None), (2, AT), (4, AT), (5, None)]
    assert await server.history("absent") == []
    await server.compact_log()
    assert [change.cid for change in await server.history("a")] == [5]
    with pytest.raises(InvalidKeyError):
        await server.history("!1")


async def test_history_needs_a_server(client: Any) -> None:
    with pytest.raises(ModeError):
        await client.history("a")


async def test_compaction_drops_a_record_with_the_last_change_of_its_commit(stores: Stores, server: Any) -> None:
    for number in range(3):
        await server.batch([Put("a", number), Put("b", number), Put(f"c{number}", number)])
    await server.batch([Delete("c0"), Delete("c1")])
    await server.batch([Put("a", 9), Put("b", 9), Delete("c2")])
    assert [*await records(stores, server)] == [b"3", b"6", b"9", b":11", b":14"]
    await server.compact_log()
    assert [*await records(stores, server)] == [b":11", b":14"]
    await server.compact_log(drop_deletes_before=12)
    assert [*await records(stores, server)] == [b":14"]
    assert known((await server.changes(11)).changes) == [(key, None, AT) for key in ("a", "b", "c2")]


@pytest.mark.once
def test_pages_are_read_beside_a_writer_of_batches() -> None:
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as server:
        ended = threading.Event()

        def write() -> None:
            for number in range(3000):
                server.batch([Put("a", number), Put("b", number)])
            ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        watched = server.watch(since=0)
        while not ended.is_set():
            page = server.changes(max(0, server.cid - 3), limit=3)
            assert page.cid % 2 == 0, "the page ends inside a batch"
            assert next(watched).at == AT
        writer.join()
