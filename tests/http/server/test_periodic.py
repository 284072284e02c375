"""The periodic tasks of a server, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from treehub_level import CorruptionError, StateError, StorageError
from treehub_level.http import Hub
from treehub_level.http.server import periodic
from treehub_level.http.server.periodic import PeriodicTask, PeriodicTasks, TaskClock
from treehub_level.http.server.refusals import database_not_found

pytestmark = pytest.mark.once

HOUR = 3600.0


class VirtualTime(TaskClock):
    """A clock that the test moves on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return 1_000_000 + self.seconds

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.seconds + seconds, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Wake the sleepers of the next seconds, each at its moment."""
        end = self.seconds + seconds
        await self.settle()
        while self.sleepers and (next_one := min(self.sleepers, key=lambda sleeper: sleeper[0]))[0] <= end:
            self.sleepers.remove(next_one)
            self.seconds = next_one[0]
            if not next_one[1].done():
                next_one[1].set_result(None)
            await self.settle()
        self.seconds = end

    async def settle(self) -> None:
        """Let all work go on that does not wait for this clock. The names come from a thread."""
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    time: VirtualTime, *tasks: PeriodicTask, names: list[str] | None = None
) -> AsyncIterator[PeriodicTasks]:
    """The tasks, started and in the end cancelled."""
    group = PeriodicTasks(lambda: ["a", "b"] if names is None else names, time)
    for task in tasks:
        group.add(task)
    group.start()
    try:
        yield group
    finally:
        await group.wait_closed()


def counting(done: list[str]) -> Callable[[str], Awaitable[None]]:
    async def work(database: str) -> None:
        done.append(database)

    return work


async def test_each_turn_goes_through_all_databases() -> None:
    done: list[str] = []
    clock = VirtualTime()
    task = PeriodicTask("compaction", counting(done), HOUR)
    async with running(clock, task):
        await clock.advance(50)
        assert done == []  # the first turn comes after a minute, 6 seconds earlier or later
        await clock.advance(20)
        assert done == ["a", "b"]
        await clock.advance(HOUR * 1.11)
        assert done == ["a", "b"] * 2
    record = task.records["a"]
    assert (record.runs, record.failures, record.error, record.is_running) == (2, 0, None, False)
    assert record.seconds == 0
    assert record.started_at == record.succeeded_at
    assert record.started_at is not None
    assert 1_000_000 + 0.9 * HOUR < record.started_at < 1_000_000 + 1.2 * HOUR


async def test_turns_have_jitter_and_keep_their_period_on_average() -> None:
    starts: list[float] = []
    clock = VirtualTime()

    async def work(database: str) -> None:
        starts.append(clock.monotonic())

    async with running(clock, PeriodicTask("compaction", work, 100, first_after=0), names=["a"]):
        await clock.advance(100 * 40)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(90 <= gap <= 110 for gap in gaps)
    assert len({*gaps}) > 20
    assert 96 < sum(gaps) / len(gaps) < 104


async def test_two_tasks_take_turns_on_a_database() -> None:
    clock = VirtualTime()
    events: list[str] = []
    go_on = asyncio.Event()

    def work(name: str) -> Callable[[str], Awaitable[None]]:
        async def run(database: str) -> None:
            events.append(f"{name} {database} begins")
            if (name, database) == ("backup", "a"):
                await go_on.wait()
            events.append(f"{name} {database} ends")

        return run

    backup = PeriodicTask("backup", work("backup"), HOUR, first_after=1)
    compaction = PeriodicTask("compaction", work("compaction"), HOUR, first_after=10)
    async with running(clock, backup, compaction) as group:
        await clock.advance(20)
        assert events == ["backup a begins"]
        assert backup.records["a"].is_running
        go_on.set()
        await clock.settle()
        assert [event for event in events if " a " in event] == [
            "backup a begins",
            "backup a ends",
            "compaction a begins",
            "compaction a ends",
        ]
        # A call of an operator waits for its turn in the same way.
        async with group.alone("a"):
            waiting = asyncio.ensure_future(group.run(backup, "a"))
            await clock.settle()
            assert not waiting.done()
        await waiting
        assert backup.records["a"].runs == 2


async def test_a_failure_is_logged_once_with_its_reason_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "treehub_level.http")
    clock = VirtualTime()
    errors: list[Exception | None] = [StorageError("the disk is full")] * 3
    errors += [CorruptionError("the value 'secret' is damaged"), ValueError("secret"), None]
    tried: list[str] = []

    async def work(database: str) -> None:
        tried.append(database)
        if database == "a" and (error := errors.pop(0)) is not None:
            raise error

    task = PeriodicTask("backup", work, HOUR, first_after=1)
    async with running(clock, task):
        await clock.advance(10)
        assert (task.records["a"].error, task.records["a"].succeeded_at) == ("LEVEL_STORAGE: the disk is full", None)
        assert task.records["b"].error is None
        await clock.advance(HOUR * 1.11 * 5)
    assert tried[:12] == ["a", "b"] * 6
    assert (task.records["a"].runs, task.records["a"].failures, task.records["a"].error) == (6, 5, None)
    assert [record.getMessage() for record in caplog.records] == [
        "backup of database a failed, and is tried again at its next turn: LEVEL_STORAGE: the disk is full",
        "backup of database a failed, and is tried again at its next turn: LEVEL_CORRUPTION",
        "backup of database a failed, and is tried again at its next turn: ValueError",
        "backup of database a succeeds again",
    ]


async def test_a_database_that_is_deleted_is_forgotten() -> None:
    clock, names = VirtualTime(), ["a", "b"]

    async def work(database: str) -> None:
        if database == "b" and "b" not in names:
            raise database_not_found()

    task = PeriodicTask("compaction", work, HOUR, first_after=1)
    async with running(clock, task, names=names) as group:
        await clock.advance(10)
        assert {*task.records} == {"a", "b"}
        names.remove("b")
        await group.run(task, "b")  # it is deleted while it waits for its turn
        assert {*task.records} == {"a"}


async def test_names_that_cannot_be_listed_cost_one_turn(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualTime()
    done: list[str] = []
    failures = [StorageError("the root is missing")]

    def names() -> list[str]:
        if failures:
            raise failures.pop()
        return ["a"]

    group = PeriodicTasks(names, clock)
    group.add(PeriodicTask("compaction", counting(done), HOUR, first_after=1))
    group.start()
    await clock.advance(10)
    assert done == []
    assert "the root is missing" in caplog.text
    await clock.advance(HOUR * 1.11)
    assert done == ["a"]
    await group.wait_closed()


async def test_running_work_is_cancelled_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualTime()
    released = asyncio.Event()

    async def stubborn(database: str) -> None:
        while not released.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await released.wait()

    async def willing(database: str) -> None:
        await asyncio.sleep(60)

    task = PeriodicTask("compaction", willing, HOUR, first_after=1)
    async with running(clock, task):
        await clock.advance(10)
        assert task.records["a"].is_running
    assert not task.records["a"].is_running
    assert task.records["a"].runs == 0
    assert caplog.text == ""
    # Control: the end does not wait for work that goes on.
    monkeypatch.setattr(periodic, "_CANCEL_SECONDS", 0.01)
    begin = time.monotonic()
    async with running(clock, PeriodicTask("backup", stubborn, HOUR, first_after=1)):
        await clock.advance(10)
    assert time.monotonic() - begin < 30
    assert "backup goes on although it was cancelled" in caplog.text
    released.set()
    await clock.settle()


async def test_a_hub_runs_its_tasks_while_it_is_open(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create=["notes"])
    sizes: list[int] = []
    begun = asyncio.Event()

    async def work(database: str) -> None:
        async with hub.use(database) as level:
            sizes.append(level.cid)
            begun.set()
            await asyncio.sleep(60)  # the hub waits for no work that was cancelled

    hub.tasks.add(PeriodicTask("compaction", work, 0.001))
    with pytest.raises(StateError, match="has a periodic task 'compaction' already"):
        hub.tasks.add(PeriodicTask("compaction", work, HOUR))
    async with hub:
        await asyncio.wait_for(begun.wait(), 30)
        added: list[str] = []
        hub.tasks.add(PeriodicTask("backup", counting(added), HOUR, first_after=0))
        await asyncio.sleep(0.05)
        assert added == []  # it waits for the other work on this database
        begin = time.monotonic()
    assert time.monotonic() - begin < 30
    assert [task.name for task in hub.tasks] == ["compaction", "backup"]
    assert sizes == [0]


@pytest.mark.parametrize(("every", "first"), [(0, None), (-1, None), (60, -1), (float("nan"), None)])
def test_a_period_is_positive(every: float, first: float | None) -> None:
    with pytest.raises(ValueError, match="positive"):
        PeriodicTask("compaction", counting([]), every, first_after=first)
