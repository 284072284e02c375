"""Closing while everything else goes on. Each run is a process of its own, so that a crash is seen as one."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.shared

BLOCKING = """
import random, sys, threading, time
from treehub_level import Level, NotOpenError, Put, StateError, blocking

backend, path = sys.argv[1:]
level = blocking.Level(path, backend=backend, mode=Level.SERVER)
unexpected = []

def guard(work):
    def run():
        rng = random.Random()
        while True:
            try:
                work(rng)
            except NotOpenError:
                return
            except BaseException as error:
                unexpected.append(error)
                return
    return run

def get(rng): level.get(f"k{rng.randrange(2000):04}")
def many(rng): level.get_many([f"k{rng.randrange(2000):04}" for _ in range(20)])
def query(rng): level.query(gte=f"k{rng.randrange(2000):04}", limit=300, reverse=rng.random() < 0.5)
def put(rng): level.put(f"k{rng.randrange(2000):04}", [rng.random()] * 20)
def batch(rng): level.batch([Put(f"k{rng.randrange(2000):04}", n) for n in range(30)])
def scan(rng):
    for _ in level.scan(gte=f"k{rng.randrange(2000):04}"): pass
def snapshot(rng):
    with level.snapshot() as s:
        s.count()
        for _ in s.scan(limit=200): pass
def watch(rng):
    for n, _ in enumerate(level.watch(since=0)):
        if n > 100: return
    raise NotOpenError("ended, as it should when the level closes")

for round in range(6):
    level.open()
    level.load((f"k{n:04}", n) for n in range(2000))
    threads = [threading.Thread(target=guard(work)) for work in (get, many, query, put, batch, scan, snapshot, watch)]
    for thread in threads: thread.start()
    time.sleep(0.05 + random.random() * 0.05)
    level.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a thread hangs"
    assert not unexpected, unexpected
    level.open()
    assert level.cid == level.get("!") == level.changes(max(0, level.cid - 1)).cid
    level.close()
print("done")
"""

ASYNC = """
import asyncio, random, sys
from treehub_level import Level, NotOpenError, Put

backend, path = sys.argv[1:]

async def guard(work, *args):
    while True:
        try:
            await work(*args)
        except NotOpenError:
            return
        await asyncio.sleep(0)

async def main():
    level = Level(path, backend=backend, mode=Level.SERVER)
    rng = random.Random()
    async def get(): await level.get(f"k{rng.randrange(2000):04}")
    async def query(): await level.query(gte=f"k{rng.randrange(2000):04}", limit=300)
    async def put(): await level.put(f"k{rng.randrange(2000):04}", [rng.random()] * 20)
    async def batch(): await level.batch([Put(f"k{rng.randrange(2000):04}", n) for n in range(30)])
    async def scan():
        async for _ in level.scan(gte=f"k{rng.randrange(2000):04}"): pass
    async def snapshot():
        async with level.snapshot() as s:
            await s.count()
            async for _ in s.scan(limit=200): pass
    async def watch():
        n = 0
        async for _ in level.watch(since=0):
            n += 1
            if n > 100: return
        raise NotOpenError("ended, as it should when the level closes")

    for round in range(5):
        await level.open()
        await level.load((f"k{n:04}", n) for n in range(2000))
        kinds = [get, query, put, batch, scan, snapshot, watch]
        tasks = [asyncio.create_task(guard(kinds[n % len(kinds)])) for n in range(100)]
        await asyncio.sleep(0.05 + rng.random() * 0.05)
        for task in rng.sample(tasks, 10): task.cancel()
        await asyncio.wait_for(level.close(), 20)
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends), ends
        await level.open()
        assert level.cid == await level.get("!") == (await level.changes(max(0, level.cid - 1))).cid
        await level.close()
    print("done")

asyncio.run(main())
"""


@pytest.mark.parametrize("script", [BLOCKING, ASYNC], ids=["8 threads", "100 tasks"])
def test_closing_under_load_neither_crashes_nor_hangs_nor_loses_the_cid(
    script: str, backend: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", script, backend, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
