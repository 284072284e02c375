"""Concurrent writers wait for each other, none fails, and the CID in memory equals that on disk."""

import asyncio
import gc
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from stores import Stores
from waiting import until

from treehub_level import Level, MemoryBackend, NotOpenError, Put, StateError, StorageError, blocking
from treehub_level.locks import ErrorCheckingLock

pytestmark = pytest.mark.shared


async def assert_dense(server: Any, changes: Any) -> Any:
    """Assert that the log numbers all changes from 1 without gaps and that every CID agrees."""
    assert server.cid == changes
    assert await server.get("!") == changes
    page = await server.changes(0, limit=10_000)
    assert [change.cid for change in page.changes] == list(range(1, changes + 1))
    return page.changes


async def test_writers_that_run_at_once_queue_and_all_succeed(server: Any) -> None:
    await asyncio.gather(*(server.put(f"k{n}", n) for n in range(300)))

    logged = await assert_dense(server, 300)
    assert sorted(logged) == sorted([f"k{n}", n] for n in range(300))


async def test_a_put_beside_a_pending_put_is_not_refused_as_locked(server: Any) -> None:
    """`@treehub/level` raised "Locked" here."""
    first = asyncio.ensure_future(server.put("a", "1"))
    await server.put("b", "2")
    await first
    await assert_dense(server, 2)


async def test_batches_that_run_at_once_do_not_mix(server: Any) -> None:
    await asyncio.gather(*(server.batch([Put(f"{n}-{i}", i) for i in range(5)]) for n in range(40)))

    logged = await assert_dense(server, 200)
    for start in range(0, 200, 5):
        batch = [change.key.split("-") for change in logged[start : start + 5]]
        assert [i for _, i in batch] == ["0", "1", "2", "3", "4"]
        assert len({n for n, _ in batch}) == 1


async def test_a_batch_larger_than_a_shared_commit_delays_no_other_writer(server: Any) -> None:
    large = [Put(f"l{n:05}", n) for n in range(25_000)]
    first = [server.put(f"a{n}", n) for n in range(20)]
    last = [server.put(f"b{n}", n) for n in range(20)]
    await asyncio.gather(*first, server.batch(large), *last)
    assert server.cid == await server.count() == 25_040


async def test_a_bad_writer_among_many_fails_alone(server: Any) -> None:
    writes = [server.put(f"k{n}", float("nan") if n % 10 == 0 else n) for n in range(100)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, ValueError) for result in results) == 10
    await assert_dense(server, 90)


async def test_a_write_is_visible_once_it_was_awaited(level: Any) -> None:
    async def write_and_read(n: Any) -> None:
        for i in range(10):
            await level.put(f"k{n}", i)
            assert await level.get(f"k{n}") == i
            assert (f"k{n}", i) in await level.query(prefix=f"k{n}")

    await asyncio.gather(*(write_and_read(n) for n in range(10)))


async def test_durable_and_other_writers_share_the_queue(server: Any) -> None:
    await asyncio.gather(*(server.put(f"k{n}", n, durable=n % 7 == 0) for n in range(60)))
    await assert_dense(server, 60)


async def test_a_reader_never_sees_a_part_of_a_batch(level: Any) -> None:
    async def write() -> None:
        for n in range(60):
            await level.batch([Put(f"k{i}", n) for i in range(10)])

    async def read() -> None:
        for _ in range(60):
            assert len(set(await level.values())) <= 1
            assert len(set(await level.get_many([f"k{i}" for i in range(10)]))) == 1

    await asyncio.gather(write(), read(), read())


async def test_load_clear_and_put_side_by_side_keep_the_log_dense(server: Any) -> None:
    await asyncio.gather(
        server.load([(f"a{n}", n) for n in range(300)], batch_size=20),
        server.load([(f"b{n}", n) for n in range(300)], batch_size=30),
        *(server.put(f"c{n}", n) for n in range(50)),
    )
    assert await server.clear(prefix="a") == 300
    await assert_dense(server, 950)


async def test_closing_waits_for_the_writes_that_were_accepted_and_refuses_the_others(server: Any) -> None:
    tasks = [asyncio.ensure_future(server.put(f"k{n:02}", n)) for n in range(60)]
    await asyncio.sleep(0)
    await server.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    await server.open()

    assert all(end is None or isinstance(end, NotOpenError) for end in ends)
    assert await server.keys() == [f"k{n:02}" for n, end in enumerate(ends) if end is None]
    await assert_dense(server, ends.count(None))


async def test_reopening_after_many_writers_finds_the_same_cid(stores: Stores, server: Any) -> None:
    await asyncio.gather(*(server.put(f"k{n}", n) for n in range(100)))
    await stores.bytes_of(server)
    await assert_dense(server, 100)


# ------------------------------------------------------------------------------------- cancellation


@pytest.fixture
async def cancelled(stores_of: Callable[[str], Stores]) -> Any:
    """A server of the asynchronous API: only there a call can be cancelled."""
    async with stores_of("async").level("server", mode=Level.SERVER) as level:
        yield level


async def test_a_cancelled_write_leaves_the_cid_as_on_disk(cancelled: Any) -> None:
    tasks = [asyncio.create_task(cancelled.put(f"k{n}", n)) for n in range(100)]
    for turn, task in enumerate(tasks):
        if turn % 3 == 0:
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await cancelled.put("last", True)

    await assert_dense(cancelled, cancelled.cid)
    logged = (await cancelled.changes(0, limit=1000)).changes
    assert sorted(change.key for change in logged) == await cancelled.keys()


async def test_a_cancelled_write_is_complete_or_absent(cancelled: Any) -> None:
    tasks = [asyncio.create_task(cancelled.batch([Put(f"{n}/{i}", i) for i in range(20)])) for n in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await cancelled.put("last", True)

    for n in range(30):
        assert await cancelled.count(prefix=f"{n}/") in ({0, 20} if n % 2 == 0 else {20})
    await assert_dense(cancelled, await cancelled.count())


async def test_cancelling_reads_and_scans_disturbs_no_other_call(cancelled: Any) -> None:
    await cancelled.load([(f"k{n:05}", n) for n in range(5000)])

    async def scan() -> None:
        async for _ in cancelled.scan():
            pass

    tasks = [asyncio.create_task(work) for _ in range(10) for work in (cancelled.query(), scan(), cancelled.count())]
    await asyncio.sleep(0.002)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert not [r for r in results if isinstance(r, Exception)]
    assert await cancelled.count() == 5000


async def test_a_cancelled_call_that_fails_later_is_not_reported_as_an_unretrieved_error(cancelled: Any) -> None:
    await cancelled.put("a", 1)
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    def fail(key: Any, value: Any) -> None:
        time.sleep(0.05)
        raise ZeroDivisionError

    task = asyncio.create_task(cancelled.query(filter=fail))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.1)
    del task
    gc.collect()
    assert complaints == []


async def opened(level: Any) -> bool:
    """Return True if the level could be opened: a cancelled opening or closing must end first."""
    with suppress(StateError):
        await level.open()
    return bool(level.is_open)


async def test_an_opening_that_was_cancelled_can_be_repeated(stores_of: Callable[[str], Stores]) -> None:
    level = stores_of("async").level("store")
    for patience in (0, 0, 0.0001, 0.001, 0.01):
        task = asyncio.create_task(level.open())
        await asyncio.sleep(patience)
        task.cancel()
        await asyncio.wait([task])
        if level.is_open:
            await level.close()
    await until(lambda: opened(level))
    await level.put("a", 1)
    assert await level.get("a") == 1
    await level.close()


async def test_a_closing_that_was_cancelled_goes_on(stores_of: Callable[[str], Stores]) -> None:
    level = stores_of("async").level("store")
    await level.open()
    await level.put("a", 1)
    task = asyncio.create_task(level.close())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert not level.is_open
    await until(lambda: opened(level))
    assert await level.get("a") == 1
    await level.close()


async def test_a_cancelled_sync_can_be_repeated(stores_of: Callable[[str], Stores]) -> None:
    stores = stores_of("async")
    async with (
        stores.level("server", mode=Level.SERVER) as server,
        stores.level("client", mode=Level.CLIENT) as client,
    ):
        await server.load([(f"s{n}", n) for n in range(1500)])
        await client.load([(f"c{n}", n) for n in range(1500)])
        for patience in range(12):
            task = asyncio.create_task(client.sync(server))
            await asyncio.sleep(0.001 * patience)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await client.sync(server)

        assert await client.query() == await server.query()
        assert client.cid == server.cid
        assert await server.count() == 3000
        assert await client.conflicts() == []


# ----------------------------------------------------------------------------------- failing writes


class Failing(MemoryBackend):
    """A backend whose writes fail while `broken` is set."""

    broken = False

    def write(self, batch: Any, *, durable: Any = False) -> None:
        if self.broken:
            raise StorageError("no space left on device")
        super().write(batch, durable=durable)


def test_after_a_failed_write_the_level_refuses_writes_until_reopened_and_still_reads() -> None:
    backend = Failing("x")
    with blocking.Level("x", backend=lambda name: backend, mode=Level.SERVER) as level:
        level.put("a", 1)
        backend.broken = True
        with pytest.raises(StorageError) as caught:
            level.put("b", 2)
        assert caught.value.code == "LEVEL_STORAGE"
        backend.broken = False
        with pytest.raises(StorageError, match="open it again"):
            level.put("c", 3)
        assert level.query() == [("a", 1)]
        assert level.cid == 1

        level.close()
        level.open()
        level.put("d", 4)
        assert level.query() == [("a", 1), ("d", 4)]
        assert level.cid == 2


def test_every_writer_of_a_failed_commit_gets_its_error() -> None:
    backend = Failing("x")
    failures = []
    with blocking.Level("x", backend=lambda name: backend, mode=Level.SERVER) as level:
        backend.broken = True

        def write(n: Any) -> None:
            try:
                level.put(f"k{n}", n)
            except StorageError as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert level.cid == 0
    assert len(failures) == 8


class BusyLock(ErrorCheckingLock):
    """A lock that another writer seems to hold: it is acquired only by those who wait for it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return False


def test_a_write_refused_by_a_closing_level_is_not_made_after_reopening(monkeypatch: pytest.MonkeyPatch) -> None:
    with blocking.Level("x", backend="memory") as level:
        store, closing = level._store, threading.Thread(target=level.close)

        class ClosingQueue(deque[Any]):
            def append(self, write: Any) -> None:
                super().append(write)
                closing.start()
                closing.join(0.1)

        monkeypatch.setattr(store, "_write_lock", BusyLock("write"))
        monkeypatch.setattr(store.queue, "writes", ClosingQueue())
        try:
            level.put("a", 1)
            refused = False
        except NotOpenError:
            refused = True
        closing.join()
        monkeypatch.undo()

        level.open()
        level.put("b", 2)
        assert level.has("a") is not refused


def test_a_filter_may_read_and_write_the_level_that_calls_it(stores_of: Callable[[str], Stores]) -> None:
    with stores_of("blocking").level("store").blocking as level:
        level.load([("a", 1), ("b", 2)])
        assert level.keys(filter=lambda key: level.get(key) == 2) == ["b"]
        level.query(filter=lambda key, value: level.put(f"{key}{key}", value))
        assert level.query() == [("a", 1), ("aa", 1), ("b", 2), ("bb", 2)]
