"""watch(): earlier changes first, then each new one, without gaps or repetitions."""

import asyncio
from typing import Any

import pytest
from stores import Stores

from treehub_level import CIDMismatchError, Level, Put

pytestmark = pytest.mark.shared

PATIENCE = 20


async def take(watching: Any, count: int) -> Any:
    """Return the next changes, as (cid, change)."""
    taken = []
    async for change in watching:
        taken.append((change.cid, change))
        if len(taken) == count:
            break
    return taken


async def test_a_watch_yields_earlier_changes_then_new_ones(server: Any) -> None:
    await server.batch([Put("a", 1), Put("b", 2)])
    task = asyncio.create_task(take(server.watch(since=0), 5))
    await asyncio.sleep(0.02)
    await server.put("c", 3)
    await server.delete("a")
    await server.change(4, [["d", 4]])

    changes = [["a", 1], ["b", 2], ["c", 3], ["a"], ["d", 4]]
    assert await asyncio.wait_for(task, PATIENCE) == list(enumerate(changes, 1))


async def test_a_watch_may_begin_at_any_cid(server: Any) -> None:
    await server.batch([Put(f"k{n}", n) for n in range(1, 16)])
    watching = take(server.watch(since=12), 3)
    assert await asyncio.wait_for(watching, PATIENCE) == [(n, [f"k{n}", n]) for n in (13, 14, 15)]


async def test_a_watch_begins_with_the_next_change_by_default(server: Any) -> None:
    await server.put("old", 1)
    watching = server.watch()
    await server.put("new", 2)
    assert await asyncio.wait_for(take(watching, 1), PATIENCE) == [(2, ["new", 2])]


async def test_a_watch_misses_no_change_of_concurrent_writers(server: Any) -> None:
    async def write(name: str) -> None:
        for n in range(100):
            await server.put(f"{name}{n}", n)

    watchers = [asyncio.create_task(take(server.watch(since=0), 400)) for _ in range(3)]
    await asyncio.gather(*(write(name) for name in "abcd"))

    logged = (await server.changes(0, limit=None)).changes
    for watcher in watchers:
        assert await asyncio.wait_for(watcher, PATIENCE) == list(enumerate(logged, 1))


async def test_many_earlier_changes_are_yielded_in_order(server: Any) -> None:
    await server.load([(f"k{n}", n) for n in range(3500)])
    taken = await asyncio.wait_for(take(server.watch(since=0), 3500), PATIENCE)
    assert [cid for cid, _ in taken] == list(range(1, 3501))


async def test_a_watch_of_a_compacted_log_skips_the_dropped_changes(server: Any) -> None:
    for n in range(12):
        await server.put("a", n)
    await server.put("b", 1)
    await server.compact_log()
    taken = await asyncio.wait_for(take(server.watch(since=0), 2), PATIENCE)
    assert taken == [(12, ["a", 11]), (13, ["b", 1])]


async def test_a_watch_ends_without_an_error_when_the_level_closes(server: Any) -> None:
    await server.put("a", 1)
    task = asyncio.create_task(take(server.watch(since=0), 100))
    await asyncio.sleep(0.05)
    await server.close()
    assert await asyncio.wait_for(task, PATIENCE) == [(1, ["a", 1])]


async def test_a_watch_does_not_keep_the_level_from_closing(stores: Stores) -> None:
    server = await stores.open("other", mode=Level.SERVER)
    tasks = [asyncio.create_task(take(server.watch(), 1)) for _ in range(3)]
    await asyncio.sleep(0.05)
    await asyncio.wait_for(server.close(), PATIENCE)
    assert await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE) == [[], [], []]


@pytest.mark.parametrize(
    ("since", "error"),
    [
        (-1, ValueError),
        (2**53, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ("0", TypeError),
        (5, CIDMismatchError),
    ],
    ids=repr,
)
async def test_a_watch_since_an_invalid_cid_is_refused(server: Any, since: Any, error: Any) -> None:
    await server.put("a", 1)
    with pytest.raises(error):
        async for _ in server.watch(since=since):
            pass


async def test_a_watch_since_a_cid_below_the_floor_is_refused(server: Any) -> None:
    await server.put("a", 1)
    await server.delete("a")
    await server.put("b", 1)
    await server.compact_log(drop_deletes_before=3)
    with pytest.raises(CIDMismatchError):
        async for _ in server.watch(since=1):
            pass


async def test_a_change_made_between_two_reads_of_the_watcher_is_not_lost(server: Any) -> None:
    watching = aiter(server.watch(since=0))
    for n in range(1, 6):
        await server.put("a", n)
        change = await asyncio.wait_for(anext(watching), PATIENCE)
        assert (change.cid, change) == (n, ["a", n])
    await watching.aclose()
