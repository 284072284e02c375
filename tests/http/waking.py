"""Waiting requests, writers and closings in random order: no wake-up may be lost.

python -m tests.http.waking [--races 20000] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from typing import Any, Final

from treehub_level import Level, MemoryBackend
from treehub_level.http.server.subscriptions import Subscriptions
from treehub_level.replication.waiting import Interest, log_position, unread_after

#: Seconds in which each waiter must know of the last write.
PATIENCE: Final = 30


class Race:
    """Subscriptions, writers and closings in random order, each step at a random moment.

    Each waiter knows of its keys what its last read found. At the end each must know all.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.subscriptions = Subscriptions(self._start_task)
        self.backend = MemoryBackend("race")
        self.level = Level("race", backend=lambda _: self.backend, mode=Level.SERVER)
        self.names = ["a/", "a/b/", "b/", "", "c/"]
        #: What each waiter waits for, and the number of changes of it that its last read found.
        self.known: dict[int, tuple[str, int]] = {}
        self._read_to: dict[int, int] = {}

    def _start_task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pause(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0 if self._rng.random() < 0.8 else 0.0005)

    async def _wait(self, number: int) -> None:
        def read(store: Any, name: str, passed: Interest | None) -> Interest:
            def step(reader: Any, head: int) -> Interest:
                # As a page of the log: the changes so far, and those that were not passed over.
                prefixes = frozenset([name.encode()])
                before, since = self.known.get(number, (name, 0)), self._read_to.get(number, 0)
                if before[0] != name:
                    before, since, passed_here = (name, 0), 0, None
                else:
                    passed_here = passed
                after = unread_after(reader, store.server("read"), head, since, prefixes, passed_here)
                self.known[number] = name, before[1] + self._count(name, head, after)
                self._read_to[number] = head
                return Interest(frozenset([name.encode()]), log_position(reader, store.server("read"), head))

            interest: Interest = store.read_step(step)
            return interest

        name = self.names[number % len(self.names)]
        while True:
            passed: Interest | None = None
            with self.subscriptions.subscribe("race") as subscription:
                for _ in range(self._rng.randrange(1, 6)):
                    await self._pause()
                    if self._rng.random() < 0.1:
                        name = self._rng.choice(self.names)
                    interest = await self.level._worker.read(read, self.level._store, name, passed)
                    await self._pause()
                    subscription.wait_for(interest)
                    if self._rng.random() < 0.8:
                        await subscription.event.wait()
                    await self._pause()  # without an event: the wait was over
                    passed = subscription.take()

    async def run(self, *, patience: float, writes: int = 60) -> bool:
        """Run the race. Return True if each waiter knows of all changes at the end.

        Args:
            patience: Seconds after the last write in which each must learn of it.
            writes: The number of writes.
        """
        self.log: list[str] = []
        async with self.level:
            self.subscriptions.attach("race", self.level)
            waiters = [asyncio.ensure_future(self._wait(number)) for number in range(8)]
            for _ in range(writes):
                await self._pause()
                key = self._rng.choice(["a/1", "a/b/1", "b/1", "c/1", "d"])
                self.log.append(key)
                await self.level.put(key, 1)
                if self._rng.random() < 0.2:
                    self.subscriptions.detach("race")
                    for _ in range(self._rng.randrange(4)):
                        await self._pause()
                    self.subscriptions.attach("race", self.level)
                if self._rng.random() < 0.05:
                    self.subscriptions.wake("race")
            knows = False
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_know(), patience)
                knows = True
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
            self.subscriptions.detach("race")
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return knows

    def _count(self, name: str, head: int, after: int = 0) -> int:
        return sum(key.startswith(name) for key in self.log[after:head])

    async def _all_know(self) -> None:
        head = len(self.log)
        while any(count != self._count(name, head) for name, count in self.known.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # no event reports this


def main() -> None:
    """Run the races of the command line; exit with 1 if a wake-up was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=20_000, help="the number of races")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first race")
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.races):
        if not asyncio.run(Race(seed).run(patience=PATIENCE)):
            sys.exit(f"a wake-up was lost: --seed {seed} --races 1")
    print(f"{options.races} races: no wake-up was lost")


if __name__ == "__main__":
    main()
