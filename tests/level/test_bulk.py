"""Load and clear: many keys in one call."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import InvalidKeyError, InvalidValueError, Level, Mode, Put


@pytest.fixture
async def store(stores: Stores, mode: Mode) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=mode)


PAIRS = [(f"k{n:04}", {"n": n}) for n in range(2500)]


# --------------------------------------------------------------------------------------------- load


async def test_load_writes_every_pair_and_returns_their_number(store: Any) -> None:
    assert await store.load(PAIRS) == 2500
    assert await store.query() == PAIRS


async def test_load_takes_a_generator(store: Any) -> None:
    assert await store.load(pair for pair in PAIRS) == 2500
    assert await store.count() == 2500


async def test_load_of_an_empty_iterable_writes_nothing(store: Any) -> None:
    assert await store.load([]) == 0


async def test_load_reports_progress_after_each_batch(store: Any) -> None:
    seen: list[int] = []
    await store.load(PAIRS[:10], batch_size=4, progress=seen.append)
    assert seen == [4, 8, 10]


async def test_load_reads_no_further_ahead_than_its_batches(store: Any) -> None:
    taken = 0
    written: list[tuple[int, int]] = []

    def items() -> Any:
        nonlocal taken
        for pair in PAIRS[:100]:
            taken += 1
            yield pair

    await store.load(items(), batch_size=10, progress=lambda done: written.append((done, taken)))

    assert all(taken <= done + 20 for done, taken in written)


async def test_the_last_pair_of_a_key_wins_in_load(store: Any) -> None:
    assert await store.load([("a", 1), ("b", 1), ("a", 2)]) == 3
    assert await store.query() == [("a", 2), ("b", 1)]


async def test_each_batch_of_a_load_is_atomic(store: Any) -> None:
    with pytest.raises(InvalidValueError):
        await store.load([("a", 1), ("b", 2), ("c", 3), ("d", {4}), ("e", 5)], batch_size=2)
    assert await store.query() == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("item", ["ab", ("a",), ("a", 1, 2), None, 5, {"key": "a"}], ids=repr)
async def test_an_item_that_is_not_a_pair_is_refused(store: Any, item: Any) -> None:
    with pytest.raises(TypeError):
        await store.load([item])
    assert await store.query() == []


async def test_the_error_names_the_number_of_a_refused_item(store: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^item 1234: "):
        await store.load([(f"k{n}", n if n != 3234 else {n}) for n in range(5000)], batch_size=2000)
    assert await store.count() == 2000
    with pytest.raises(InvalidValueError, match=r"^operation 1234: "):
        await store.batch([Put(f"k{n}", n if n != 1234 else {n}) for n in range(5000)])
    with pytest.raises(InvalidValueError, match=r"^operation 1234: "):
        await store.batch(Put(f"k{n}", n if n != 1234 else {n}) for n in range(5000))
    assert await store.count() == 2000


async def test_a_pair_with_an_invalid_key_is_refused(store: Any) -> None:
    with pytest.raises(InvalidKeyError):
        await store.load([("ok", 1), ("\udfff", 2)])
    assert await store.query() == []


@pytest.mark.parametrize(
    ("batch_size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)]
)
async def test_a_batch_size_that_is_not_a_positive_int_is_refused(store: Any, batch_size: Any, error: Any) -> None:
    with pytest.raises(error, match="batch_size"):
        await store.load(PAIRS, batch_size=batch_size)
    assert await store.query() == []


async def test_items_that_cannot_be_iterated_are_refused(store: Any) -> None:
    with pytest.raises(TypeError):
        await store.load(5)


async def test_an_error_raised_by_progress_propagates_and_written_batches_stay(store: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        await store.load(PAIRS[:10], batch_size=4, progress=lambda done: 1 // (8 - done))
    assert await store.query() == PAIRS[:8]


async def test_load_on_a_server_logs_every_pair(server: Any) -> None:
    await server.load(PAIRS[:250], batch_size=100)
    assert server.cid == 250
    page = await server.changes(0, limit=1000)
    assert page.changes == [[key, value] for key, value in PAIRS[:250]]


async def test_load_on_a_client_makes_every_pair_dirty(client: Any) -> None:
    await client.load(PAIRS[:250])
    assert await client.pending() == 250


async def test_load_takes_an_async_iterable() -> None:
    async def items() -> Any:
        for pair in PAIRS[:10]:
            yield pair

    seen: list[int] = []
    async with Level("store", backend="memory") as level:
        assert await level.load(items(), batch_size=4, progress=seen.append) == 10
        assert await level.query() == PAIRS[:10]
    assert seen == [4, 8, 10]


async def test_an_async_iterable_that_raises_leaves_complete_batches() -> None:
    async def items() -> Any:
        for pair in PAIRS[:5]:
            yield pair
        raise ZeroDivisionError

    async with Level("store", backend="memory") as level:
        with pytest.raises(ZeroDivisionError):
            await level.load(items(), batch_size=2)
        assert await level.query() == PAIRS[:4]


# -------------------------------------------------------------------------------------------- clear


async def test_clear_deletes_every_key_and_returns_their_number(store: Any) -> None:
    await store.load(PAIRS)
    assert await store.clear() == 2500
    assert await store.query() == []
    assert await store.clear() == 0


@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        ({"gt": "b"}, ["a", "b"]),
        ({"gte": "b"}, ["a"]),
        ({"lt": "b"}, ["b", "bb", "c"]),
        ({"lte": "b"}, ["bb", "c"]),
        ({"prefix": "b"}, ["a", "c"]),
        ({"gt": "a", "lt": "c"}, ["a", "c"]),
        ({"gt": "c", "lt": "a"}, ["a", "b", "bb", "c"]),
        ({"gte": ""}, []),
        ({"lt": ""}, ["a", "b", "bb", "c"]),
    ],
    ids=repr,
)
async def test_clear_keeps_to_its_range(store: Any, bounds: Any, left: Any) -> None:
    await store.load([(key, 1) for key in ("a", "b", "bb", "c")])
    assert await store.clear(**bounds) == 4 - len(left)
    assert await store.keys() == left


async def test_clear_on_a_server_logs_one_delete_for_each_key(server: Any) -> None:
    await server.load([("a", 1), ("b", 2), ("c", 3)])
    assert await server.clear(gte="b") == 2
    assert server.cid == 5
    assert (await server.changes(3)).changes == [["b"], ["c"]]
    assert await server.get("!1") == ["a", 1]


async def test_clear_on_a_client_leaves_dirty_deletes(client: Any) -> None:
    await client.load([("a", 1), ("b", 2)])
    assert await client.clear() == 2
    assert await client.dirty() == [["a"], ["b"]]


async def test_clear_deletes_no_key_twice(server: Any) -> None:
    await server.put("a", 1)
    await server.clear()
    await server.clear()
    assert server.cid == 2


async def test_clear_with_contradicting_bounds_is_refused(store: Any) -> None:
    await store.put("a", 1)
    with pytest.raises(ValueError):
        await store.clear(gt="a", gte="a")
    assert await store.count() == 1
