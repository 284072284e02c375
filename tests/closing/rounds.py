"""Rounds of closing under load: a thread for each kind of call, or 100 tasks of the asyncio API.

After each round the store is opened again: the CID in memory must be the one on disk, and the log
must have no hole.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from treehub_level import Level, LevelTransaction, NotOpenError, Put, blocking

#: Seconds in which all threads and tasks must end after the level is closed.
PATIENCE: Final = 30.0
KEYS: Final = 2000

#: The name of a backend, or a function that makes one.
Backend = str | Callable[..., Any]


def random_key(rng: random.Random) -> str:
    return f"k{rng.randrange(KEYS):04}"


# ------------------------------------------------------------------------------------------ threads


def with_threads(path: str, backend: Backend, rounds: int, seed: int) -> None:
    """Close a level while a thread for each kind of call uses it, once each round."""
    level = blocking.Level(path, backend=backend, mode=Level.SERVER)
    for number in range(rounds):
        rng = random.Random(f"{seed} {number}")
        level.open()
        level.load((f"k{n:04}", n) for n in range(KEYS))
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=_until_closed, args=(work, level, random.Random(rng.random()), errors))
            for work in _WORK
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.02 + rng.random() * 0.08)
        level.close()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"round {number}: a thread hangs"
        assert not errors, f"round {number}: {errors!r:.500}"
        check(path, backend, number)


def _until_closed(
    work: Callable[[blocking.Level, random.Random], object],
    level: blocking.Level,
    rng: random.Random,
    errors: list[BaseException],
) -> None:
    try:
        while True:
            work(level, rng)
    except NotOpenError:
        pass
    except BaseException as error:
        errors.append(error)


def _get(level: blocking.Level, rng: random.Random) -> None:
    level.get(random_key(rng))


def _get_many(level: blocking.Level, rng: random.Random) -> None:
    level.get_many([random_key(rng) for _ in range(20)])


def _query(level: blocking.Level, rng: random.Random) -> None:
    level.query(gte=random_key(rng), limit=300, reverse=rng.random() < 0.5)


def _put(level: blocking.Level, rng: random.Random) -> None:
    level.put(random_key(rng), [rng.random()] * 20, durable=rng.random() < 0.1)


def _batch(level: blocking.Level, rng: random.Random) -> None:
    level.batch([Put(random_key(rng), n) for n in range(30)])


def _transact(level: blocking.Level, rng: random.Random) -> None:
    keys = [random_key(rng) for _ in range(30)]

    def decide(tx: LevelTransaction) -> None:
        found = len(tx.query(gte=keys[0], limit=50, reverse=rng.random() < 0.5))
        for key in keys:
            tx.put(key, found)

    level.transact(decide)
    level.update(keys[0], lambda value: value)


def _scan(level: blocking.Level, rng: random.Random) -> None:
    for _ in level.scan(gte=random_key(rng)):
        pass


def _snapshot(level: blocking.Level, rng: random.Random) -> None:
    with level.snapshot() as snapshot:
        snapshot.count()
        for _ in snapshot.scan(limit=200):
            pass


def _watch(level: blocking.Level, rng: random.Random) -> None:
    for number, _ in enumerate(level.watch(since=0)):
        if number > 100:
            return
    raise NotOpenError("the watch ended, as it must when the level closes")


def _watch_state(level: blocking.Level, rng: random.Random) -> None:
    for number, _ in enumerate(level.watch(initial=True, gte=random_key(rng))):
        if number > 500:
            return
    raise NotOpenError("the watch ended, as it must when the level closes")


def _watch_prefixes(level: blocking.Level, rng: random.Random) -> None:
    changes = level.watch(prefixes=["k00", random_key(rng)], initial=True, timeout=0.005)
    for _ in range(5):
        for _ in changes:
            pass
        if changes.has_ended:
            raise NotOpenError("the watch ended, as it must when the level closes")


def _call_back(level: blocking.Level, rng: random.Random) -> None:
    unsubscribe = level.on_change(lambda change: level.get(change.key))
    _put(level, rng)
    unsubscribe()


_WORK: Final = (
    *(_get, _get_many, _query, _put, _batch, _transact, _scan, _snapshot),
    *(_watch, _watch_state, _watch_prefixes, _call_back),
)


# -------------------------------------------------------------------------------------------- tasks


def with_tasks(path: str, backend: Backend, rounds: int, seed: int) -> None:
    """Close a level while 100 tasks use it, 10 of which are cancelled then, once each round."""
    asyncio.run(_with_tasks(path, backend, rounds, seed))


async def _with_tasks(path: str, backend: Backend, rounds: int, seed: int) -> None:
    level = Level(path, backend=backend, mode=Level.SERVER)
    for number in range(rounds):
        rng = random.Random(f"{seed} {number}")
        await level.open()
        await level.load((f"k{n:04}", n) for n in range(KEYS))
        works = [_ASYNC_WORK[n % len(_ASYNC_WORK)] for n in range(100)]
        tasks = [asyncio.create_task(_task_until_closed(work, level, random.Random(rng.random()))) for work in works]
        await asyncio.sleep(0.02 + rng.random() * 0.08)
        for task in rng.sample(tasks, 10):
            task.cancel()
        await asyncio.wait_for(level.close(), PATIENCE)
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        faults = [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)]
        assert not faults, f"round {number}: {faults!r:.500}"
        check(path, backend, number)


async def _task_until_closed(work: Callable[[Level, random.Random], Any], level: Level, rng: random.Random) -> None:
    try:
        while True:
            await work(level, rng)
            await asyncio.sleep(0)
    except NotOpenError:
        pass


async def _async_get(level: Level, rng: random.Random) -> None:
    await level.get(random_key(rng))


async def _async_query(level: Level, rng: random.Random) -> None:
    await level.query(gte=random_key(rng), limit=300)


async def _async_put(level: Level, rng: random.Random) -> None:
    await level.put(random_key(rng), [rng.random()] * 20, durable=rng.random() < 0.1)


async def _async_batch(level: Level, rng: random.Random) -> None:
    await level.batch([Put(random_key(rng), n) for n in range(30)])


async def _async_transact(level: Level, rng: random.Random) -> None:
    keys = [random_key(rng) for _ in range(30)]
    await level.transact(lambda tx: [tx.put(key, tx.count(limit=50)) for key in keys])  # type: ignore[func-returns-value]
    await level.update(keys[0], lambda value: value)


async def _async_scan(level: Level, rng: random.Random) -> None:
    async for _ in level.scan(gte=random_key(rng)):
        pass


async def _async_snapshot(level: Level, rng: random.Random) -> None:
    async with level.snapshot() as snapshot:
        await snapshot.count()
        async for _ in snapshot.scan(limit=200):
            pass


async def _async_watch(level: Level, rng: random.Random) -> None:
    number = 0
    async for _ in level.watch(since=0):
        number += 1
        if number > 100:
            return
    raise NotOpenError("the watch ended, as it must when the level closes")


async def _async_watch_state(level: Level, rng: random.Random) -> None:
    number = 0
    async for _ in level.watch(initial=True, gte=random_key(rng)):
        number += 1
        if number > 500:
            return
    raise NotOpenError("the watch ended, as it must when the level closes")


async def _async_watch_prefixes(level: Level, rng: random.Random) -> None:
    changes = level.watch(prefixes=["k00", random_key(rng)], initial=True, timeout=0.005)
    for _ in range(5):
        async for _ in changes:
            pass
        if changes.has_ended:
            raise NotOpenError("the watch ended, as it must when the level closes")


async def _async_call_back(level: Level, rng: random.Random) -> None:
    unsubscribe = level.on_change(lambda change: level.get(change.key))
    await _async_put(level, rng)
    unsubscribe()


_ASYNC_WORK: Final = (
    *(_async_get, _async_query, _async_put, _async_batch, _async_transact, _async_scan, _async_snapshot, _async_watch),
    *(_async_watch_state, _async_watch_prefixes, _async_call_back),
)


def check(path: str, backend: Backend, number: int) -> None:
    """Fail unless a closed store opens with the CID on disk, where its log ends without holes."""
    with blocking.Level(path, backend=backend, mode=Level.SERVER) as level:
        cid = level.cid
        page = level.changes(max(0, cid - 3000), limit=None)
        assert cid == level.get("!") == page.cid, f"round {number}: CID {cid} in memory, {level.get('!')} on disk"
        assert [change.cid for change in page.changes] == [*range(max(0, cid - 3000) + 1, cid + 1)], "a hole in the log"
