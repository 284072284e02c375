"""Opening, closing, opening again."""

import asyncio
import gc
import re
from collections.abc import Callable, Sized
from typing import Any

import pytest
from stores import ENGINES, SHARED, Stores
from waiting import until

from treehub_level import Level, Mode, NotOpenError, StateError, blocking

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("attribute", ["cid", "CID"])
async def test_the_cid_of_a_level_that_is_not_open_is_refused(stores: Stores, attribute: Any) -> None:
    level = stores.level("server", mode=Level.SERVER)
    with pytest.raises(NotOpenError):
        getattr(level, attribute)

    await level.open()
    assert getattr(level, attribute) == 0
    await level.close()
    with pytest.raises(NotOpenError):
        getattr(level, attribute)


async def test_opening_an_open_level_is_refused(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)

    with pytest.raises(StateError) as caught:
        await level.open()

    assert caught.value.code == "LEVEL_STATE"
    await level.put("still", "open")


async def test_closing_a_closed_level_is_refused(stores: Stores) -> None:
    level = stores.level("store")
    with pytest.raises(StateError):
        await level.close()

    await level.open()
    await level.close()
    with pytest.raises(StateError):
        await level.close()


async def test_a_reopened_level_holds_the_same_data(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", [1, "é", None])
    before = None if mode is Level.NORMAL else level.cid

    for _ in range(3):
        await level.close()
        await level.open()

    assert await level.query() == [("a", [1, "é", None])]
    assert before is None or level.cid == before


async def test_a_context_opens_and_closes(stores: Stores) -> None:
    level = stores.level("store")
    async with level as entered:
        await entered.put("a", 1)
    with pytest.raises(NotOpenError):
        await level.get("a")
    async with level:
        assert await level.get("a") == 1


async def test_a_context_that_raises_closes_too(stores: Stores) -> None:
    level = stores.level("store")
    with pytest.raises(ZeroDivisionError):
        async with level:
            raise ZeroDivisionError
    with pytest.raises(NotOpenError):
        await level.get("a")


async def test_a_level_may_be_closed_within_its_context(stores: Stores) -> None:
    async with stores.level("store") as level:
        await level.close()
    assert not level.is_open


def test_closing_within_a_filter_is_refused_without_a_deadlock() -> None:
    with blocking.Level("store", backend="memory") as level:
        level.put("a", 1)

        with pytest.raises(StateError, match="filter"):
            level.query(filter=lambda key, value: level.close())

        assert level.get("a") == 1


async def test_one_of_several_concurrent_openings_succeeds(stores: Stores) -> None:
    level = stores.level("store")
    ends = await asyncio.gather(*(level.open() for _ in range(5)), return_exceptions=True)
    assert ends.count(None) == 1
    assert sum(isinstance(end, StateError) for end in ends) == 4
    await level.put("a", 1)


async def test_one_of_several_concurrent_closings_succeeds(stores: Stores, level: Any) -> None:
    await level.put("a", 1)
    ends = await asyncio.gather(*(level.close() for _ in range(5)), return_exceptions=True)
    assert ends.count(None) == 1
    assert sum(isinstance(end, StateError) for end in ends) == 4
    await level.open()
    assert await level.get("a") == 1


def test_a_level_may_be_opened_in_a_second_event_loop_after_the_first(stores_of: Callable[[str], Stores]) -> None:
    stores = stores_of("async")
    client = stores.level("client", mode=Level.CLIENT)
    server = stores.level("server", mode=Level.SERVER)

    async def use() -> None:
        async with client, server:
            await client.put("a", client.cid)
            await asyncio.gather(*(client.sync(server) for _ in range(4)))
            assert await server.get("a") == client.cid - 1

    for _ in range(3):
        asyncio.run(use())


def forget(stores: Stores, told: Sized = ()) -> bool:
    """Drop every reference to the levels, and collect the garbage."""
    stores._levels.clear()
    gc.collect()
    return len(told) > 0


@pytest.mark.parametrize("backend", [*ENGINES, *SHARED])
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # of sqlite3, from Python 3.13 on
async def test_a_store_that_is_collected_while_open_warns(stores: Stores) -> None:
    level = await stores.open("store")
    name = re.escape(level.name)
    del level
    with pytest.warns(ResourceWarning, match=f"the level '{name}' was not closed") as told:
        # The thread that opened the level may keep its reference slightly longer than the call.
        await until(lambda: forget(stores, told))


async def test_a_store_that_was_closed_or_could_not_be_opened_does_not_warn(stores: Stores) -> None:
    level = stores.level("store")
    await level.open()
    with pytest.raises(StateError):
        await level.open()
    await level.close()
    del level
    forget(stores)  # a warning would be an error
