"""The methods of SERVER mode: cid, changes, change, compact_log."""

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from stores import Stores

from treehub_level import Change, Changes, CIDMismatchError, Delete, Level, Put
from treehub_level.engine.log import Compaction

pytestmark = pytest.mark.shared


async def fill(server: Any, count: int) -> None:
    """Make that many changes: key `k<n>` gets value n."""
    await server.batch([Put(f"k{n}", n) for n in range(1, count + 1)])


# ---------------------------------------------------------------------------------------------- cid


async def test_each_write_takes_the_next_cid(server: Any) -> None:
    assert server.cid == server.CID == 0
    await server.put("a", 1)
    assert server.cid == server.CID == 1
    await server.delete("a")
    await server.delete("never there")
    assert server.cid == 3
    await server.batch([Put("a", 1), Put("a", 2)])
    assert server.cid == 5


async def test_reads_take_no_cid(server: Any) -> None:
    await server.put("a", 1)
    await server.query()
    await server.get("a")
    await server.changes(0)
    await server.batch([])
    assert server.cid == 1


# ------------------------------------------------------------------------------------------ changes


async def test_changes_as_in_the_tests_of_the_npm_package(server: Any) -> None:
    for key, value in (("a", "1"), ("b", "2"), ("c", "3")):
        await server.put(key, value)

    assert (await server.changes(0))[:2] == (3, [["a", "1"], ["b", "2"], ["c", "3"]])
    assert (await server.changes(0, 2))[:2] == (2, [["a", "1"], ["b", "2"]])
    assert (await server.changes(2))[:2] == (3, [["c", "3"]])


async def test_a_page_of_changes_has_its_last_cid_and_has_more(server: Any) -> None:
    await fill(server, 5)
    assert await server.changes(1, limit=2) == Changes(3, [Change("k2", 2), Change("k3", 3)], True)
    assert await server.changes(3, limit=2) == Changes(5, [Change("k4", 4), Change("k5", 5)], False)
    assert await server.changes(5) == Changes(5, [], False)
    assert await server.changes(2, limit=0) == Changes(2, [], True)


async def test_a_page_holds_100_changes_by_default(server: Any) -> None:
    await fill(server, 250)
    page = await server.changes(0)
    assert (page.cid, len(page.changes), page.has_more) == (100, 100, True)
    assert len((await server.changes(0, 1000)).changes) == 250
    assert len((await server.changes(0, limit=None)).changes) == 250


async def test_a_change_is_an_object_and_a_list(server: Any) -> None:
    await server.put("a", {"x": 1})
    await server.delete("a")
    put, delete = (await server.changes(0)).changes

    assert (put.key, put.value, put.deleted, put.cid) == ("a", {"x": 1}, False, 1)
    assert (delete.key, delete.value, delete.deleted, delete.cid) == ("a", None, True, 2)
    assert put == ["a", {"x": 1}] == Change("a", {"x": 1})
    assert delete == ["a"] == Change.deletion("a")


async def test_changes_stay_in_order_past_cid_9(server: Any) -> None:
    """`@treehub/level` sorted `!10` before `!2`: old values came back, then `CID Mismatch`."""
    for n in range(1, 121):
        await server.put("key", n)

    seen, cid = [], 0
    while True:
        page = await server.changes(cid, limit=7)
        seen += [change.value for change in page.changes]
        assert [change.cid for change in page.changes] == list(range(cid + 1, page.cid + 1))
        cid = page.cid
        if not page.has_more:
            break
    assert seen == list(range(1, 121))
    assert cid == server.cid == 120


@pytest.mark.parametrize("cid", [9, 10, 99, 100, 999])
async def test_pages_may_begin_at_any_number_of_digits(server: Any, cid: Any) -> None:
    await fill(server, 1001)
    page = await server.changes(cid, limit=3)
    assert page.changes == [[f"k{n}", n] for n in range(cid + 1, min(cid + 4, 1002))]


@pytest.mark.parametrize("cid", ["0", "x", None, 1.0, 1.5, True, False, [0]], ids=repr)
async def test_changes_after_a_cid_that_is_not_an_int_is_a_type_error(server: Any, cid: Any) -> None:
    with pytest.raises(TypeError):
        await server.changes(cid)


@pytest.mark.parametrize("cid", [-1, 2**53, 2**70], ids=repr)
async def test_changes_after_a_cid_out_of_range_is_a_value_error(server: Any, cid: Any) -> None:
    with pytest.raises(ValueError):
        await server.changes(cid)


async def test_changes_after_a_cid_in_the_future_are_refused(server: Any) -> None:
    await fill(server, 3)
    with pytest.raises(CIDMismatchError) as caught:
        await server.changes(4)
    assert (caught.value.code, caught.value.expected, caught.value.got) == ("LEVEL_CID_MISMATCH", 3, 4)


@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError), (1.0, TypeError)])
async def test_an_invalid_limit_is_refused(server: Any, limit: Any, error: Any) -> None:
    with pytest.raises(error):
        await server.changes(0, limit=limit)


# ------------------------------------------------------------------------------------------- change


async def test_a_push_is_written_logged_and_answered_with_the_new_cid(server: Any) -> None:
    await server.put("c", 0)
    assert await server.change(1, [["a", "1"], ("b", {"x": 2}), ["c"], Change("d", 4), Change.deletion("e")]) == 6
    assert server.cid == 6
    assert await server.query() == [("a", "1"), ("b", {"x": 2}), ("d", 4)]
    assert (await server.changes(1)).changes == [["a", "1"], ["b", {"x": 2}], ["c"], ["d", 4], ["e"]]


async def test_an_empty_push_changes_nothing(stores: Stores, server: Any) -> None:
    await server.put("a", 1)
    before = await stores.bytes_of(server)
    assert await server.change(1, []) == 1
    assert await stores.bytes_of(server) == before


@pytest.mark.parametrize("cid", [0, 1, 3, -1, 10**6, 2**60])
async def test_a_push_from_another_cid_is_refused_and_the_next_one_succeeds(
    stores: Stores, server: Any, cid: Any
) -> None:
    await fill(server, 2)
    before = await stores.bytes_of(server)

    with pytest.raises(CIDMismatchError) as caught:
        await server.change(cid, [["a", 1]])

    assert (caught.value.expected, caught.value.got) == (2, cid)
    assert await stores.bytes_of(server) == before
    assert await server.change(2, [["a", 1]]) == 3


async def test_one_of_several_concurrent_pushes_from_one_cid_succeeds(server: Any) -> None:
    results = await asyncio.gather(*(server.change(0, [[f"k{n}", n]]) for n in range(10)), return_exceptions=True)
    assert results.count(1) == 1
    assert sum(isinstance(result, CIDMismatchError) for result in results) == 9
    assert server.cid == await server.count() == 1


async def test_the_pushed_objects_are_neither_changed_nor_kept(server: Any) -> None:
    value = {"x": [1]}
    changes = [["a", value], ["b"]]
    await server.change(0, changes)
    assert changes == [["a", {"x": [1]}], ["b"]]
    value["x"].append(2)
    assert await server.get("a") == {"x": [1]}
    assert await server.get("!1") == ["a", {"x": [1]}]


# -------------------------------------------------------------------------------------- compact_log


async def test_compaction_keeps_the_last_change_of_each_key_and_its_cid(server: Any) -> None:
    for n in range(4):
        await server.batch([Put("a", n), Put("b", n)])
    await server.delete("b")
    await server.put("c", 1)
    data = await server.query()

    assert await server.compact_log() == 7

    page = await server.changes(0)
    assert [(change.cid, change) for change in page.changes] == [(7, ["a", 3]), (9, ["b"]), (10, ["c", 1])]
    assert (page.cid, page.has_more, server.cid) == (10, False, 10)
    assert await server.query() == data
    assert await server.compact_log() == 0


async def test_a_compacted_log_is_read_from_any_cid(server: Any) -> None:
    for n in range(30):
        await server.put(f"k{n % 3}", n)
    await server.compact_log()

    assert (await server.changes(5)).changes == [["k0", 27], ["k1", 28], ["k2", 29]]
    assert await server.changes(0, limit=2) == Changes(29, [Change("k0", 27), Change("k1", 28)], True)
    assert await server.changes(29) == Changes(30, [Change("k2", 29)], False)


async def test_writing_goes_on_after_a_compaction_and_a_reopening(stores: Stores, server: Any) -> None:
    for n in range(15):
        await server.put("a", n)
    await server.compact_log()
    await stores.bytes_of(server)
    await server.put("a", "new")
    assert server.cid == 16
    assert (await server.changes(0)).changes == [["a", 14], ["a", "new"]]


async def test_a_long_log_is_compacted_beside_writers(server: Any) -> None:
    await server.load([(f"k{n % 50}", n) for n in range(5000)])
    await asyncio.gather(server.compact_log(), *(server.put(f"w{n % 5}", n) for n in range(50)))

    await server.compact_log()
    logged = (await server.changes(0, limit=None)).changes
    assert server.cid == 5050
    assert sorted(logged) == sorted([key, value] for key, value in await server.query())


async def test_compacting_an_empty_log_drops_nothing(server: Any) -> None:
    assert await server.compact_log() == 0
    assert await server.compact_log(drop_deletes_before=0) == 0


async def test_old_deletes_are_dropped_only_on_request(server: Any) -> None:
    await server.batch([Put("a", 1), Put("b", 2)])
    await server.delete("a")
    await server.delete("b")
    await server.put("c", 3)

    assert await server.compact_log() == 2
    assert (await server.changes(0)).changes == [["a"], ["b"], ["c", 3]]
    assert await server.compact_log(drop_deletes_before=4) == 1
    assert (await server.changes(0)).changes == [["b"], ["c", 3]]


async def test_the_newest_change_stays_even_if_it_is_a_delete(server: Any) -> None:
    await server.put("a", 1)
    await server.delete("a")
    await server.compact_log(drop_deletes_before=2**53 - 1)
    assert (await server.changes(0)).changes == [["a"]]
    assert server.cid == 2


async def test_changes_from_below_the_floor_are_refused(server: Any) -> None:
    await server.put("a", 1)
    await server.put("b", 1)
    await server.delete("a")
    await server.put("b", 2)
    await server.compact_log(drop_deletes_before=4)

    with pytest.raises(CIDMismatchError):
        await server.changes(2)
    assert (await server.changes(3)).changes == [["b", 2]]
    assert (await server.changes(0)).changes == [["b", 2]]


def compaction_steps(server: Any, step: int, *, twice: bool = False) -> Iterator[None]:
    """Compact the log and drop all deletes; take each step twice, as after a rollback."""
    store = (server._blocking if isinstance(server, Level) else server.blocking)._store
    mode: Any = store.strategy
    compaction = Compaction(mode, drop_deletes_before=server.cid)
    with mock.patch("treehub_level.engine.log.COMPACTION_STEP", step):
        more = True
        while more:
            if twice:
                with store.backend.exclusive() as transaction:
                    compaction.step(transaction, server.cid)
            more = store.step(compaction.step)
            yield


@pytest.mark.parametrize("step", [1, 2, 3, 100])
async def test_reading_the_log_while_deletes_are_dropped_finds_no_value_from_before_them(
    server: Any, step: int
) -> None:
    for number in range(4):
        await server.batch([Put("a", number), Put(f"b{number}", number), Put("c", number)])
    await server.batch([Delete("a"), Delete("b1"), Delete("never there"), Put("d", 1)])

    for _ in compaction_steps(server, step):
        read: dict[str, Any] = {}
        for change in (await server.changes(0, limit=None)).changes:
            if len(change) == 1:
                read.pop(change.key, None)
            else:
                read[change.key] = change.value
        assert read == dict(await server.query())
    assert not [change for change in (await server.changes(0)).changes if len(change) == 1]


async def test_a_compaction_step_repeated_after_a_rollback_keeps_the_newest_change(server: Any) -> None:
    for number in range(4):
        await server.batch([Put("a", number), Put(f"b{number}", number)])
    await server.delete("b1")
    await server.put("a", 9)

    for _ in compaction_steps(server, 2, twice=True):
        pass
    assert sorted((await server.changes(0)).changes) == sorted([key, value] for key, value in await server.query())


@pytest.mark.parametrize(
    ("cid", "error"), [(-1, ValueError), (2**53, ValueError), (True, TypeError), (1.5, TypeError), ("1", TypeError)]
)
async def test_drop_deletes_before_refuses_an_invalid_cid(stores: Stores, server: Any, cid: Any, error: Any) -> None:
    await server.put("a", 1)
    await server.delete("a")
    before = await stores.bytes_of(server)
    with pytest.raises(error):
        await server.compact_log(drop_deletes_before=cid)
    assert await stores.bytes_of(server) == before
