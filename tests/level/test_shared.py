"""Levels that share one open store, like processes of one machine or replicas of a service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from stores import HOLDER, SHARED, Stores
from waiting import until

from treehub_level import Level, LockedError, Mode, ModeMismatchError, StateError, StorageError, blocking
from treehub_level.backends.base import Backend
from treehub_level.engine.log import Compaction
from treehub_level.engine.modes import Server

pytestmark = pytest.mark.once


@pytest.fixture(params=SHARED, ids="backend={}".format)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def opened(stores: Stores) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that opens another level over the same store."""
    async with AsyncExitStack() as stack:

        async def open_(mode: Mode, **options: Any) -> Any:
            return await stack.enter_async_context(stores.level("store", mode=mode, **options))

        yield open_


def inner(level: Any) -> blocking.Level:
    """Return the store of a level."""
    return level._blocking if isinstance(level, Level) else level.blocking


def engine(level: Any) -> Backend:
    return inner(level)._store.backend


def epochs(level: Any) -> list[Any]:
    mode = inner(level)._store.strategy
    assert isinstance(mode, Server)
    return mode.records.epochs(engine(level), level.cid)


# ------------------------------------------------------------------------------------------ servers


async def test_servers_of_one_store_take_their_cids_in_turn(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    for number in range(5):
        await first.put(f"a{number}", number)
        await second.put(f"b{number}", number)
        assert first.cid == second.cid == 2 * (number + 1)
    log = (await first.changes(0)).changes
    assert [change.cid for change in log] == list(range(1, 11))
    assert [change.key for change in log] == [f"{side}{number}" for number in range(5) for side in "ab"]
    assert (await first.info())["cid"] == 10


async def test_a_write_of_one_level_is_read_by_the_other(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    await first.batch([{"type": "put", "key": f"k{n}", "value": n} for n in range(3)])
    assert await second.query() == [("k0", 0), ("k1", 1), ("k2", 2)]
    await second.delete("k1")
    assert await first.get("k1") is None
    assert await first.change(4, [["k3", 3]]) == 5
    assert (await second.changes(4)).changes == [["k3", 3]]


async def test_each_opening_begins_one_epoch_though_writes_alternate(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    for number in range(4):
        await first.put("a", number)
        await second.put("a", number)
    assert [epoch.start for epoch in epochs(first)] == [0, 1]


async def test_a_push_through_either_is_acknowledged_in_the_epoch_that_the_log_has_there(
    opened: Any, stores: Stores
) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    client = await stores.open("client", mode=Level.CLIENT)
    for number, server in enumerate([first, second, first, second, first]):
        await client.put("mine", number)
        report = await client.sync(server)
        assert (report.pushed, report.pulled, report.conflicts) == (1, 0, [])
    assert await client.pending() == 0
    assert await client.sync(second) is not None
    assert client.cid == first.cid == 5


async def test_a_server_that_reconnects_begins_an_epoch(opened: Any) -> None:
    server = await opened(Level.SERVER)
    await server.put("a", 1)
    await server.put("a", 2)
    with reconnected(server):
        await server.put("a", 3)
        await server.put("a", 4)
    assert [epoch.start for epoch in epochs(server)] == [0, 2]


def reconnected(level: Any) -> Any:
    """Within the block, give every transaction another connection epoch."""
    with engine(level).exclusive() as transaction:
        kind = type(transaction)
    return mock.patch.object(kind, "connection_epoch", "another")


async def test_a_store_restored_under_an_open_server_goes_on_in_another_epoch(opened: Any, stores: Stores) -> None:
    """The server recognises the restore only by the record of epochs, which lacks its own."""
    server, client = await opened(Level.SERVER), await stores.open("client", mode=Level.CLIENT)
    backup = contents(engine(server))
    await server.batch([{"type": "put", "key": f"k{n}", "value": n} for n in range(3)])
    await client.sync(server)
    restore(engine(server), backup)

    await server.batch([{"type": "put", "key": f"k{n}", "value": -n} for n in range(1, 5)])

    report = await client.sync(server)
    assert report.reset
    assert await client.query() == await server.query()


def contents(backend: Backend) -> dict[bytes, bytes]:
    with closing(backend.scan(None, None)) as cursor:
        return dict(cursor.fetch(10_000))


def restore(backend: Backend, backup: dict[bytes, bytes]) -> None:
    gone: list[tuple[bytes, bytes | None]] = [(key, None) for key in contents(backend).keys() - backup.keys()]
    with backend.exclusive() as transaction:
        transaction.write([*gone, *backup.items()])


async def test_a_server_whose_store_was_replaced_writes_nothing(opened: Any, stores: Stores) -> None:
    server, other = await opened(Level.SERVER), await stores.open("other", mode=Level.SERVER)
    await server.put("a", 1)
    restore(engine(server), contents(engine(other)))
    with pytest.raises(StorageError, match="is another store now"):
        await server.put("a", 2)
    assert await server.get("a") is None


async def test_a_pull_does_not_wait_for_a_writer(opened: Any, stores: Stores) -> None:
    writer, server = await opened(Level.SERVER), await opened(Level.SERVER)
    client = await stores.open("client", mode=Level.CLIENT)
    await writer.put("a", 1)
    with engine(writer).exclusive():  # a slow commit
        assert (await server.changes(0)).changes == [["a", 1]]
        assert (await client.sync(server)).pulled == 1


async def test_a_pull_beside_writers_reads_one_consistent_state(opened: Any) -> None:
    writer, server = await opened(Level.SERVER), await opened(Level.SERVER)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            inner(writer).batch([{"type": "put", "key": side, "value": number} for side in "ab"])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(100):
                page = await server.changes(0, limit=None)
                assert page.cid == len(page.changes)
                assert page.cid % 2 == 0
        finally:
            stop.set()
        writing.result()


async def test_a_compaction_goes_on_beside_the_writes_of_others(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    for number in range(30):
        await first.put(f"k{number % 3}", number)
    compaction = Compaction(server_mode(first))
    with mock.patch("treehub_level.engine.log.COMPACTION_STEP", 4):
        while inner(first)._store.step(compaction.step):
            await second.put("k0", "other")
    assert await first.get("k0") == "other"
    assert [change.key for change in (await first.changes(0)).changes if change.cid <= 30] == ["k0", "k1", "k2"]


async def test_a_compaction_discards_its_knowledge_of_another_connection_epoch(opened: Any) -> None:
    """After a restore, a superseding change may be gone, and the superseded one is needed."""
    server = await opened(Level.SERVER)
    await server.put("a", 1)
    backup = contents(engine(server))
    await server.put("a", 2)
    compaction = Compaction(server_mode(server))
    with mock.patch("treehub_level.engine.log.COMPACTION_STEP", 1):
        assert inner(server)._store.step(compaction.step)
        restore(engine(server), backup)
        with reconnected(server):
            while inner(server)._store.step(compaction.step):
                pass
    assert (await server.changes(0)).changes == [["a", 1]]


def server_mode(level: Any) -> Server:
    mode = inner(level)._store.strategy
    assert isinstance(mode, Server)
    return mode


async def test_a_failed_write_does_not_fence_a_shared_store(opened: Any) -> None:
    """A shared engine rolls back and is intact. An embedded one has to be reopened."""
    server = await opened(Level.SERVER)
    await server.put("a", 1)
    with engine(server).exclusive() as transaction:
        kind = type(transaction)
    with mock.patch.object(kind, "write", side_effect=StorageError("no space")), pytest.raises(StorageError):
        await server.put("a", 2)
    await server.put("a", 3)
    assert (server.cid, await server.get("a")) == (2, 3)


# ------------------------------------------------------------------------------------------ waiting


async def test_a_waiting_call_is_woken_by_a_commit_of_another_process(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    waiting = asyncio.ensure_future(first.changes(0, wait=20))
    await until(lambda: inner(first)._store.listeners)
    await second.put("a", 1)
    assert (await asyncio.wait_for(waiting, 15)).changes == [["a", 1]]


async def test_a_watch_continues_with_changes_of_another_process(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    seen: list[Any] = []

    async def watch() -> None:
        async for change in first.watch(since=0):
            seen.append(change)

    watching = asyncio.ensure_future(watch())
    for number in range(3):
        await second.put("a", number)
        await until(lambda: len(seen) > number)  # noqa: B023  # awaited within this iteration
    assert seen == [["a", 0], ["a", 1], ["a", 2]]
    await first.close()
    await watching
    await first.open()


async def test_commits_of_others_are_noticed_again_after_a_reopening(opened: Any) -> None:
    first, second = await opened(Level.SERVER), await opened(Level.SERVER)
    for number in range(2):
        waiting = asyncio.ensure_future(first.changes(number, wait=20))
        await until(lambda: inner(first)._store.listeners)
        await second.put("a", number)
        assert (await asyncio.wait_for(waiting, 15)).changes == [["a", number]]
        await first.close()
        await first.open()


async def test_the_backend_listens_once_and_only_for_a_waiting_call(opened: Any) -> None:
    server = await opened(Level.SERVER)
    with mock.patch.object(engine(server), "listen") as listen:
        await server.changes(0)
        assert not listen.called
        await asyncio.gather(server.changes(0, wait=0.01), server.changes(0, wait=0.01))
        await server.changes(0, wait=0.01)
    assert listen.call_count == 1


# ------------------------------------------------------------------------------------------ clients


@pytest.fixture
async def superseded_client(opened: Any) -> Any:
    """A client with a journaled conflict, whose store another opening has since written to."""
    client = await opened(Level.CLIENT)
    await client.put("lost", "mine")
    await client.apply(1, [["lost", "theirs"]])
    await client.put("dirty", 1)
    client.second = await opened(Level.CLIENT)
    await client.second.put("dirty", 1)
    return client


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "put": lambda client, _: client.put("a", 1),
    "delete": lambda client, _: client.delete("a"),
    "load": lambda client, _: client.load([("a", 1)]),
    "clear": lambda client, _: client.clear(),
    "sync": lambda client, server: client.sync(server),
    "apply": lambda client, _: client.apply(2, [["b", 1]]),
    "clean": lambda client, _: client.clean(2, ["dirty"]),
    "rebind": lambda client, server: client.rebind(server),
}


@pytest.mark.parametrize("verb", WRITES)
async def test_the_earlier_of_two_openings_of_a_client_store_gets_an_error_when_it_writes(
    superseded_client: Any, stores: Stores, verb: str
) -> None:
    server = await stores.open("server", mode=Level.SERVER)
    before = contents(engine(superseded_client))
    with pytest.raises(LockedError, match="opened again"):
        await WRITES[verb](superseded_client, server)
    assert contents(engine(superseded_client)) == before


async def test_the_earlier_opening_gets_an_error_when_it_settles_a_conflict(superseded_client: Any) -> None:
    (conflict,) = await superseded_client.conflicts()
    with pytest.raises(LockedError):
        await superseded_client.restore(conflict)
    with pytest.raises(LockedError):
        await superseded_client.dismiss(conflict)
    assert await superseded_client.second.conflicts() == [conflict]


async def test_the_earlier_opening_still_reads_and_the_later_one_holds_the_store(
    superseded_client: Any, stores: Stores
) -> None:
    server = await stores.open("server", mode=Level.SERVER)
    await server.put("other", 1)
    await superseded_client.second.put("a", 1)
    assert await superseded_client.get("a") == 1
    assert await superseded_client.pending() == 2
    assert (await superseded_client.second.sync(server)).pushed == 2


async def test_an_opening_that_only_reads_does_not_take_a_client_store_over(opened: Any, stores: Stores) -> None:
    client, server = await opened(Level.CLIENT), await stores.open("server", mode=Level.SERVER)
    await client.put("a", 1)
    await client.sync(server)
    second = await opened(Level.CLIENT)
    before = contents(engine(client))
    assert await second.query() == [("a", 1)]
    assert (await second.info())["cid"] == 1
    assert (await second.conflicts(), await second.pending()) == ([], 0)
    async with second.snapshot() as snapshot:
        assert await snapshot.get("a") == 1
    assert contents(engine(client)) == before
    await client.put("b", 2)
    assert (await client.sync(server)).pushed == 1
    assert await second.get("b") == 2


async def test_of_two_openings_of_a_client_store_the_second_writer_gets_an_error(
    opened: Any,
) -> None:
    first, second = await opened(Level.CLIENT), await opened(Level.CLIENT)
    await second.put("a", 1)
    with pytest.raises(LockedError, match="opened again"):
        await first.put("b", 2)
    await second.put("a", 3)
    assert await first.query() == [("a", 3)]


async def test_a_new_opening_takes_the_client_store_over(superseded_client: Any) -> None:
    await superseded_client.close()
    await superseded_client.open()
    await superseded_client.put("a", 1)
    with pytest.raises(LockedError):
        await superseded_client.second.put("a", 2)


async def test_a_store_that_is_not_shared_has_no_holder(tmp_path: Path) -> None:
    with blocking.Level(str(tmp_path / "client"), backend="memory", mode=Level.CLIENT) as client:
        client.put("a", 1)
        assert HOLDER not in contents(client._store.backend)


# ------------------------------------------------------------------------ making, adopting, opening


async def test_concurrent_openings_create_one_store(stores: Stores, mode: Mode) -> None:
    for number in range(5):
        levels = [stores.level(f"store{number}", mode=mode) for _ in range(4)]
        await asyncio.gather(*(level.open() for level in levels))
        identities = {(await level.info())["store"] for level in levels}
        assert len(identities) == 1
        await asyncio.gather(*(level.close() for level in levels))


async def test_a_plain_store_that_another_process_made_a_server_refuses_writes_without_a_log(opened: Any) -> None:
    plain = await opened(Level.NORMAL)
    await opened(Level.SERVER)
    with pytest.raises(ModeMismatchError, match="SERVER mode"):
        await plain.put("a", 1)
    assert await plain.get("a") is None


async def test_a_plain_store_that_another_process_adopts_is_not_written(opened: Any, stores: Stores) -> None:
    plain = await opened(Level.NORMAL)
    await plain.load([(f"k{n}", n) for n in range(1500)])
    refused: list[bool] = []

    def write(_: int) -> None:
        with pytest.raises(StateError, match="adopted"):
            inner(plain).put("k", 1)
        refused.append(True)

    await stores.adopt("store", mode=Level.SERVER, progress=write)
    assert len(refused) == 2
    with pytest.raises(ModeMismatchError):
        await plain.put("k", 1)


async def test_a_store_that_two_processes_adopt_is_adopted_once(opened: Any, stores: Stores) -> None:
    plain = await opened(Level.NORMAL)
    await plain.load([(f"k{n}", n) for n in range(3500)])
    await plain.close()

    def adopt_too(done: int) -> None:
        if done == 1000:
            blocking.Level.adopt(stores.path("store"), mode=Level.SERVER, **stores.where("store"))

    with pytest.raises(LockedError, match="another process"):
        await stores.adopt("store", mode=Level.SERVER, progress=adopt_too)
    server = await opened(Level.SERVER)
    assert server.cid == len((await server.changes(0, limit=None)).changes) == 3500
