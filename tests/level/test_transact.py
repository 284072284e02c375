"""`transact` and `update`: a function that decides on present values, alone, all or nothing."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ranges import asked, expected, options
from stores import ENGINES, SHARED, Stores

from treehub_level import (
    MISSING,
    ConditionError,
    InvalidKeyError,
    InvalidValueError,
    Level,
    LevelTransaction,
    Mode,
    NotOpenError,
    Put,
    StateError,
    blocking,
)
from treehub_level.engine import transact as engine

pytestmark = pytest.mark.shared


async def test_a_function_reads_its_own_writes(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.batch([Put("a", 1), Put("b", 2), Put("c", 3)])

    def decide(tx: LevelTransaction) -> str:
        tx.put("b", 20)
        tx.put("d", {"x": None})
        tx.delete("a")
        assert (tx.get("a", MISSING), tx.get("b"), tx.get("c"), tx.has("a"), tx.has("d")) == (
            MISSING,
            20,
            3,
            False,
            True,
        )
        assert tx.get_many(["d", "a", "b"], "none") == [{"x": None}, "none", 20]
        assert tx.query() == [*tx.scan()] == [("b", 20), ("c", 3), ("d", {"x": None})]
        assert tx.query(gt="b", reverse=True, limit=1) == [("d", {"x": None})]
        assert (tx.keys(prefix="b"), tx.values(lte="c"), tx.count()) == (["b"], [20, 3], 3)
        assert tx.query(filter=lambda key, value: value == 3) == [("c", 3)]
        tx.put("d", 4)
        tx.delete("c")
        return "result"

    assert await level.transact(decide) == "result"
    assert await level.query() == [("b", 20), ("d", 4)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    before=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9)),
    writes=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9) | st.none()), max_size=8),
    query=options,
)
def test_reads_in_a_function_are_those_of_a_dict(before: dict[str, int], writes: Any, query: dict[str, Any]) -> None:
    with blocking.Level("x", backend="memory") as level:
        level.load(before.items())
        data = dict(before)

        def decide(tx: LevelTransaction) -> None:
            for key, value in writes:
                if value is None:
                    tx.delete(key)
                    data.pop(key, None)
                else:
                    tx.put(key, value)
                    data[key] = value
            wanted = expected(data, {**query, "even": False})
            assert tx.query(**asked(query)) == [*tx.scan(**asked(query))] == wanted
            assert tx.keys(**asked(query)) == [key for key, _ in wanted]
            assert tx.count(**asked(query)) == len(wanted)

        level.transact(decide)
        assert dict(level.query()) == data


async def test_a_function_that_raises_writes_nothing(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", 1)
    error = KeyError("mine")

    def fail(tx: LevelTransaction) -> None:
        tx.put("a", 2)
        raise error

    with pytest.raises(KeyError) as caught:
        await level.transact(fail)
    assert caught.value is error
    assert await level.query() == [("a", 1)]
    await level.put("b", 1)  # the lock is free
    assert mode is Mode.NORMAL or level.cid == (2 if mode is Mode.SERVER else 0)


async def test_a_function_that_writes_nothing_moves_no_cid(server: Any) -> None:
    await server.put("a", 1)
    assert await server.transact(lambda tx: tx.query()) == [("a", 1)]
    assert server.cid == 1


async def test_a_transaction_is_one_commit_in_the_log_of_a_server(server: Any) -> None:
    def decide(tx: LevelTransaction) -> None:
        for key in "bacb":
            tx.put(key, 1)

    await server.transact(decide)
    changes = (await server.changes(0)).changes
    assert [change.key for change in changes] == ["a", "c", "b"]  # of one key the last write, in its place
    assert len({change.at for change in changes}) == 1
    assert changes[0].at is not None  # only commits have a time


@pytest.mark.parametrize(("together", "is_whole"), [(None, True), (True, True), (False, False)])
async def test_the_writes_of_a_client_stay_together_as_those_of_a_batch(
    server: Any, client: Any, together: bool | None, is_whole: bool
) -> None:
    await client.sync(server)

    def decide(tx: LevelTransaction) -> None:
        tx.put("a", "mine")
        tx.put("b", "mine")

    await client.transact(decide, together=together)
    await server.put("a", "theirs")
    await client.sync(server)
    assert await server.get("b") == (None if is_whole else "mine")


async def test_writes_that_one_push_cannot_hold_are_refused_if_they_must_stay_together(client: Any) -> None:
    def decide(tx: LevelTransaction) -> None:
        for n in range(16_385):
            tx.put(f"k{n}", n)

    with pytest.raises(InvalidValueError, match="16,385 changes"):
        await client.transact(decide, together=True)
    assert await client.count() == 0


async def test_invalid_arguments_raise_inside_the_function(server: Any) -> None:
    def decide(tx: LevelTransaction) -> None:
        for key, value, error in (("a", float("nan"), InvalidValueError), ("!a", 1, InvalidKeyError)):
            with pytest.raises(error):
                tx.put(key, value)
        with pytest.raises(InvalidKeyError):
            tx.delete("")
        tx.put("a", 1)

    await server.transact(decide)
    assert await server.query() == [("a", 1)]


async def test_a_sublevel_has_transactions_too(level: Any) -> None:
    sub = level.sublevel("sub")
    await sub.put("n", 1)

    def decide(tx: LevelTransaction) -> None:
        tx.put("m", tx.get("n"))
        tx.sublevel("deep").put("x", 0)

    await sub.transact(decide)
    assert await sub.update("n", lambda n: n + 1) == 2
    await level.transact(lambda tx: tx.sublevel("sub").put("k", len(tx.keys())))
    assert await level.query() == [("sub/deep/x", 0), ("sub/k", 3), ("sub/m", 1), ("sub/n", 2)]


async def test_stores_of_bytes_have_transactions_too(stores: Stores) -> None:
    level = await stores.open("bytes", key_encoding="bytes", value_encoding="bytes")
    await level.transact(lambda tx: tx.put(b"\x00", b"\xff"))
    assert await level.update(b"\x00", lambda value: value + b"1 ") == b"\xff1 "
    with pytest.raises(ConditionError):
        await level.put(b"\x00", b"", if_value=b"\xff1")


# ------------------------------------------------------------------------------------------- misuse


def ignoring_tx(call: Callable[[], object], tx: LevelTransaction) -> object:
    """Make a call inside a function of `transact`."""
    return call()


def run_in_a_loop(call: Callable[[], Any]) -> object:
    """Run a coroutine in an event loop of its own."""
    return asyncio.run(call())


USES: list[Callable[[Any], object]] = [
    lambda level: level.get("a"),
    lambda level: level.has("a"),
    lambda level: level.query(),
    lambda level: next(level.scan()),
    lambda level: level.put("a", 1),
    lambda level: level.put("a", 1, if_absent=True),
    lambda level: level.batch([Put("a", 1)]),
    lambda level: level.clear(),
    lambda level: level.transact(lambda tx: None),
    lambda level: level.update("a", lambda a: 1),
    lambda level: level.snapshot(),
    lambda level: level.sublevel("sub").get("a"),
    lambda level: level.info(),
    lambda level: level.changes(0),
    lambda level: level.close(),
]


@pytest.mark.parametrize("mode", [Mode.NORMAL, Mode.SERVER])
def test_a_function_must_not_use_its_level(tmp_path: Path, mode: Mode) -> None:
    for backend in ("memory", *ENGINES, *(["sqlite"] if "sqlite" in SHARED else [])):
        with blocking.Level(tmp_path / backend, backend=backend, mode=mode) as level:
            level.put("a", 0)
            for use in USES if mode is Mode.SERVER else USES[:-2]:
                with pytest.raises(StateError, match=r"inside a function of transact|within one of its own calls"):
                    level.transact(partial(ignoring_tx, partial(use, level)))
            assert level.query() == [("a", 0)]
            assert level.get("a") == 0  # afterwards it may


def test_other_threads_use_the_level_meanwhile(tmp_path: Path) -> None:
    with blocking.Level("x", backend="memory") as level, ThreadPoolExecutor() as pool:
        level.put("a", 0)

        def decide(tx: LevelTransaction) -> None:
            tx.put("a", 1)
            assert pool.submit(level.get, "a").result(60) == 0
            assert pool.submit(level.query).result(60) == [("a", 0)]

        level.transact(decide)
        assert level.get("a") == 1


async def test_an_event_loop_inside_a_function_must_not_use_its_level(tmp_path: Path) -> None:
    for backend in ("memory", *(["sqlite"] if "sqlite" in SHARED else [])):
        async with Level(tmp_path / backend, backend=backend, mode=Level.CLIENT) as level:
            calls: list[Callable[[], Any]] = [
                lambda: level.put("a", 1),
                lambda: level.query(),
                lambda: level.sync(level),
                lambda: level.transact(lambda tx: None),
                lambda: level.close(),
            ]
            for call in calls:
                with pytest.raises(StateError, match=r"inside a function of transact|within one of its own calls"):
                    await asyncio.wait_for(level.transact(partial(ignoring_tx, partial(run_in_a_loop, call))), 60)


async def test_a_transaction_ends_with_its_function(level: Any) -> None:
    await level.load((f"k{n:04}", n) for n in range(3000))
    kept: list[Any] = []

    def keep(tx: LevelTransaction) -> None:
        pairs = tx.scan()
        assert next(pairs) == ("k0000", 0)
        kept.extend([tx, pairs])

    await level.transact(keep)
    tx, pairs = kept
    for call in (
        lambda: tx.get("a"),
        lambda: tx.put("a", 1),
        tx.query,
        lambda: [*pairs],
        lambda: tx.sublevel("s").keys(),
    ):
        with pytest.raises(StateError, match="inside its function"):
            await asyncio.to_thread(call)


async def test_another_thread_cannot_use_a_transaction(level: Any) -> None:
    found: list[Any] = []

    def use(tx: LevelTransaction) -> None:
        try:
            tx.put("a", 1)
        except StateError as error:
            found.append(error)

    def decide(tx: LevelTransaction) -> None:
        other = threading.Thread(target=use, args=(tx,))
        other.start()
        other.join()

    await level.transact(decide)
    assert len(found) == 1
    assert await level.count() == 0


async def test_functions_that_must_be_awaited_are_refused(level: Any, recwarn: Any) -> None:
    async def coroutine(tx: LevelTransaction) -> None:
        tx.put("a", 1)

    def generator(tx: LevelTransaction) -> Any:
        tx.put("a", 1)
        yield

    def write_and_return_a_coroutine(tx: LevelTransaction) -> Any:
        tx.put("a", 1)
        return coroutine(tx)

    for function in (coroutine, generator, write_and_return_a_coroutine, "text", None):
        with pytest.raises((TypeError, AttributeError)):
            await level.transact(function)
        with pytest.raises((TypeError, AttributeError)):
            await level.update("a", function)
    assert await level.count() == 0
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


async def test_a_slow_function_is_logged_with_its_name(
    level: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def quick(tx: LevelTransaction) -> None:
        pass

    with caplog.at_level(logging.WARNING, "treehub_level"):
        await level.transact(quick)
        assert caplog.messages == []
        monkeypatch.setattr(engine, "SLOW_SECONDS", -1)
        await level.transact(quick)
        await level.update("a", lambda a: 1)
    first, second = caplog.messages
    assert re.match(r"the function test_a_slow.*quick of transact\(\) took \d+\.\d seconds", first)
    assert "<lambda> of update()" in second


async def test_a_function_sees_the_context_of_its_task(level: Any) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    user.set("alice")
    assert await level.transact(lambda tx: user.get()) == "alice"


async def test_a_closed_level_and_a_read_only_one_refuse(stores: Stores) -> None:
    level = await stores.open("store")
    await level.put("a", 1)
    await level.close()
    with pytest.raises(NotOpenError):
        await level.transact(lambda tx: None)
    if stores.backend != "memory":
        reading = await stores.open("store", read_only=True)
        with pytest.raises(StateError, match="reading only"):
            await reading.update("a", lambda a: 2)


# ------------------------------------------------------------------------------------------- update


async def test_update_replaces_a_value_by_a_function_of_it(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    count = lambda n: (n or 0) + 1  # noqa: E731
    assert [await level.update("n", count) for _ in range(3)] == [1, 2, 3]
    assert await level.update("t", lambda _: (1, 2)) == await level.get("t") == [1, 2]
    assert await level.update("n", lambda n: MISSING) is MISSING
    assert not await level.has("n")
    cid = None if mode is Mode.NORMAL else level.cid
    assert await level.update("n", lambda n: MISSING) is MISSING
    assert cid is None or level.cid == cid  # nothing was written
    assert await level.update("n", lambda n: None) is None
    assert await level.has("n")
    with pytest.raises(InvalidValueError):
        await level.update("n", lambda n: float("nan"))


async def test_concurrent_updates_are_all_counted(stores: Stores) -> None:
    level = await stores.open("store", mode=Level.SERVER)
    found = await asyncio.gather(*(level.update("n", lambda n: (n or 0) + 1) for _ in range(40)))
    assert sorted(found) == [*range(1, 41)]
    assert await level.get("n") == 40


async def test_a_write_that_is_begun_first_is_seen_by_a_later_function(server: Any) -> None:
    large = server.put("a", "x" * 100_000)  # in a thread
    found, _ = await asyncio.gather(server.transact(lambda tx: tx.has("b")), large)
    assert found is False
    await server.put("b", 1)
    assert await server.transact(lambda tx: tx.has("b"))


async def test_a_transaction_updates_several_keys_by_functions(level: Any) -> None:
    await level.batch([Put("ada", 100), Put("gone", 1)])

    def move(tx: Any) -> Any:
        assert tx.update("ada", lambda n: n - 30) == 70
        assert tx.update("alan", lambda n: (n or 0) + 30) == 30
        assert tx.update("alan", lambda n: n + 1) == 31, "it reads its own writes"
        assert tx.update("gone", lambda n: MISSING) is MISSING
        assert tx.update("never", lambda n: MISSING) is MISSING
        with pytest.raises(TypeError, match="plain function"):
            tx.update("ada", asyncio.sleep)
        with pytest.raises(InvalidValueError):
            tx.update("ada", lambda n: {1})
        return tx.sublevel("users").update("x", lambda n: {"n": n})

    assert await level.transact(move) == {"n": None}
    assert await level.query() == [("ada", 70), ("alan", 31), ("users/x", {"n": None})]
