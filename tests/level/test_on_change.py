"""on_change(): callbacks after commits, which may write and fail, and never hold up a writer."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from stores import Stores
from waiting import PATIENCE, until

from treehub_level import Change, Level, Mode, Put, StateError, blocking
from treehub_level.engine.change_feed import ChangeFeed

MODES = pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)


@MODES
async def test_a_callback_gets_each_change_until_it_is_unsubscribed(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    seen: list[Change] = []
    unsubscribe = level.on_change(seen.append, prefix="n/")
    plain = getattr(unsubscribe, "blocking", unsubscribe)
    await level.batch([Put("n/a", 1), Put("x", 1)])
    await until(lambda: len(seen) == 1)
    await level.delete("n/a")
    await until(lambda: len(seen) == 2)
    assert seen == [["n/a", 1], ["n/a"]]
    assert [change.origin for change in seen] == ["local", "local"]
    plain()
    plain()
    await level.put("n/b", 1)
    await asyncio.sleep(0.02)
    assert len(seen) == 2


@MODES
def test_a_blocking_callback_runs_in_the_thread_of_the_writer_before_the_write_returns(mode: Mode) -> None:
    with blocking.Level("store", backend="memory", mode=mode) as level:
        seen: list[tuple[Any, int]] = []
        level.on_change(lambda change: seen.append((change.value, threading.get_ident())))
        level.put("a", 1)
        assert seen == [(1, threading.get_ident())]
        thread = threading.Thread(target=level.put, args=["a", 2])
        thread.start()
        ident = thread.ident
        thread.join()
        assert seen[1:] == [(2, ident)]


@MODES
def test_a_callback_may_write_read_and_unsubscribe(mode: Mode) -> None:
    with blocking.Level("store", backend="memory", mode=mode) as level:
        seen: list[Any] = []

        def count_down(change: Change) -> None:
            seen.append((change.key, change.value, level.get(change.key)))
            if change.value:
                level.put(change.key, change.value - 1)
            else:
                unsubscribe()

        unsubscribe = level.on_change(count_down)
        level.put("a", 3)
        level.put("a", 9)
    assert seen == [("a", 3, 3), ("a", 2, 2), ("a", 1, 1), ("a", 0, 0)]


def test_a_callback_may_close_its_level() -> None:
    level = blocking.Level("store", backend="memory")
    level.open()
    level.on_change(lambda change: level.close())
    level.put("a", 1)
    assert not level.is_open


@MODES
def test_threads_that_write_at_once_have_each_key_reported_in_order(mode: Mode) -> None:
    with blocking.Level("store", backend="memory", mode=mode) as level:
        seen: dict[str, list[int]] = {f"t{t}": [] for t in range(4)}
        level.on_change(lambda change: seen[change.key].append(change.value))

        def write(name: str) -> None:
            for n in range(200):
                level.put(name, n)

        threads = [threading.Thread(target=write, args=[name]) for name in seen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for values in seen.values():
        assert values == sorted(set(values))
        assert values[-1] == 199


async def test_a_callback_that_raises_is_logged_with_the_key(
    stores: Stores, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    level = await stores.open("store", mode=mode)
    seen: list[Change] = []

    def fail(change: Change) -> None:
        seen.append(change)
        raise RuntimeError("a fault of the application")

    level.on_change(fail)
    with caplog.at_level(logging.ERROR, "treehub_level"):
        await level.put("the key", 1)
        await until(lambda: len(seen) == 1)
        await level.put("the key", 2)
        await until(lambda: len(seen) == 2)
        await until(lambda: len(caplog.records) == 2)
    assert all("'the key'" in record.getMessage() and record.exc_info for record in caplog.records)
    assert await level.get("the key") == 2


@MODES
async def test_coroutine_functions_are_awaited_one_at_a_time_on_the_subscribing_loop(mode: Mode) -> None:
    async with Level("store", backend="memory", mode=mode) as level:
        seen: list[Any] = []
        running = 0

        async def slow(change: Change) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0.001)
            running -= 1
            seen.append(change.value)
            if change.value == 1:
                raise RuntimeError("a fault of the application")

        unsubscribe = level.on_change(slow)
        for n in range(5):
            await level.put(f"k{n}", n)
        await until(lambda: seen == [0, 1, 2, 3, 4])
        await asyncio.to_thread(unsubscribe)


async def test_a_coroutine_callback_may_write() -> None:
    async with Level("store", backend="memory") as level:

        async def double(change: Change) -> None:
            if change.value < 50:
                await level.put("a", change.value * 2)

        level.on_change(double)
        await level.put("a", 1)
        await until(lambda: _is(level, 64))


async def _is(level: Any, value: Any) -> bool:
    return bool(await level.get("a") == value)


def test_an_asyncio_level_calls_back_on_a_running_loop_only() -> None:
    level = Level("store", backend="memory")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(level.open())
    with pytest.raises(StateError, match="event loop"):
        level.on_change(print)
    loop.run_until_complete(level.close())
    loop.close()


def test_a_coroutine_function_is_refused_by_a_blocking_level() -> None:
    async def callback(change: Change) -> None: ...

    with blocking.Level("store", backend="memory") as level, pytest.raises(TypeError, match="coroutine"):
        level.on_change(callback)


async def test_a_callback_is_called_for_what_a_live_session_pulls(stores: Stores, server: Any, client: Any) -> None:
    seen: list[Change] = []
    client.on_change(seen.append)
    async with client.live(server) as session:
        await server.put("a", 1)
        await session.in_sync(within=PATIENCE)
        await until(lambda: seen)
    assert [(*change, change.origin) for change in seen] == [("a", 1, "remote")]


def test_control_a_callback_inside_the_lock_of_the_writer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that delivers under the write lock does not let a callback write."""
    committed = ChangeFeed.committed

    def deliver_under_the_lock(feed: ChangeFeed) -> None:
        committed(feed)
        for deliver in tuple(feed.deliver):
            deliver()

    monkeypatch.setattr(ChangeFeed, "committed", deliver_under_the_lock)
    with pytest.raises(AssertionError):
        test_a_callback_may_write_read_and_unsubscribe(Mode.NORMAL)
