"""CrashingDisk: the data that survives a crash of the process, and a power cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from treehub_level import Level, LockedError, StorageError, blocking
from treehub_level.testing import BackendConformance, CrashError, CrashingDisk
from treehub_level.testing.conformance import BackendFactory

pytestmark = pytest.mark.once


class TestConformance(BackendConformance):
    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        disk = CrashingDisk()
        return lambda: disk("store")


#: Opens the level "notes" of a disk, which the end of the test closes.
OpenNotes = Callable[[CrashingDisk], blocking.Level]


@pytest.fixture
def notes() -> Iterator[OpenNotes]:
    with ExitStack() as stack:
        yield lambda disk: stack.enter_context(blocking.Level("notes", backend=disk))


@pytest.fixture
def disk() -> CrashingDisk:
    return CrashingDisk(seed=1)


def keys_after(seed: int, act: Callable[[blocking.Level, CrashingDisk], object]) -> list[str]:
    """Return the keys that survive a power cut after ``act``."""
    disk = CrashingDisk(seed=seed)
    with blocking.Level("notes", backend=disk) as level:
        act(level, disk)
        disk.crash(power=True)
    with blocking.Level("notes", backend=disk) as level:
        return level.keys()


def test_written_data_survives_a_crash_of_the_process(disk: CrashingDisk, notes: OpenNotes) -> None:
    notes(disk).put("a", 1)
    disk.crash()
    assert notes(disk).query() == [("a", 1)]


def test_durable_batches_and_some_first_later_ones_survive_a_power_cut() -> None:
    def write(level: blocking.Level, _: CrashingDisk) -> None:
        level.put("a", 1)
        level.put("b", 2, durable=True)
        level.put("c", 3)
        level.batch([{"type": "put", "key": "d", "value": 4}, {"type": "del", "key": "a"}])

    found = {"".join(keys_after(seed, write)) for seed in range(40)}
    assert found == {"ab", "abc", "bcd"}


def test_the_same_seed_gives_the_same_losses() -> None:
    def write(level: blocking.Level, _: CrashingDisk) -> None:
        for number in range(100):
            level.put(f"{number:03}", number)

    assert len({tuple(keys_after(7, write)) for _ in range(3)}) == 1
    assert len({tuple(keys_after(seed, write)) for seed in range(5)}) > 1


def test_a_dishonest_disk_loses_durable_batches() -> None:
    def write(level: blocking.Level, disk: CrashingDisk) -> None:
        disk.honest = False
        level.put("a", 1, durable=True)

    assert [] in [keys_after(seed, write) for seed in range(10)]


def test_flushed_batches_survive_a_power_cut(disk: CrashingDisk, notes: OpenNotes) -> None:
    level = notes(disk)
    level.put("a", 1)
    assert disk.at_risk("notes") == 1
    disk.flush()
    assert disk.at_risk("notes") == 0
    disk.crash(power=True)
    assert notes(disk).keys() == ["a"]


@pytest.mark.parametrize(("before", "survivors"), [(True, ["a"]), (False, ["a", "b"])])
def test_it_crashes_at_the_given_write(
    disk: CrashingDisk, notes: OpenNotes, before: bool, survivors: list[str]
) -> None:
    level = notes(disk)
    disk.crash_at(2, before=before)
    level.put("a", 1)
    with pytest.raises(CrashError):
        level.put("b", 2)
    assert notes(disk).keys() == survivors


def test_a_scheduled_crash_can_be_cancelled(disk: CrashingDisk, notes: OpenNotes) -> None:
    level = notes(disk)
    disk.crash_at(1)
    disk.crash_at(0)
    level.put("a", 1)
    with pytest.raises(ValueError, match="not -1"):
        disk.crash_at(-1)


@pytest.mark.parametrize(
    "act",
    [
        lambda level: level.put("b", 2),
        lambda level: level.get("a"),
        lambda level: level.query(),
        lambda level: level.snapshot(),
    ],
)
def test_a_crashed_level_neither_reads_nor_writes(
    disk: CrashingDisk, notes: OpenNotes, act: Callable[[Any], object]
) -> None:
    crashed = notes(disk)
    crashed.put("a", 1)
    disk.crash()
    reopened = notes(disk)
    with pytest.raises(CrashError):
        act(crashed)
    crashed.close()
    with pytest.raises(CrashError):
        crashed.open()
    assert reopened.query() == [("a", 1)]


def test_a_store_that_is_open_cannot_be_opened_again(disk: CrashingDisk, notes: OpenNotes) -> None:
    first = notes(disk)
    with pytest.raises(LockedError, match="'notes'"):
        notes(disk)
    first.close()
    notes(disk)


def test_the_stores_of_a_disk_crash_together(disk: CrashingDisk) -> None:
    with (
        blocking.Level("one", backend=disk) as one,
        blocking.Level("other", backend=disk) as other,
    ):
        for level in (one, other):
            level.put("name", level.name)
        disk.crash()
        for level in (one, other):
            with pytest.raises(CrashError):
                level.get("name")
            with blocking.Level(level.name, backend=disk) as reopened:
                assert reopened.get("name") == level.name


def test_a_backup_can_be_restored(disk: CrashingDisk, notes: OpenNotes) -> None:
    level = notes(disk)
    level.put("a", 1)
    backup = disk.backup("notes")
    level.put("b", 2)
    disk.restore("notes", backup)
    with pytest.raises(CrashError):
        level.keys()
    disk.crash(power=True)
    assert notes(disk).keys() == ["a"]


async def test_it_works_with_asyncio(disk: CrashingDisk) -> None:
    async with Level("notes", backend=disk) as level:
        await level.put("a", 1, durable=True)
        disk.crash_at(1)
        with pytest.raises((CrashError, StorageError)):
            await level.put("b", 2)
        with pytest.raises(CrashError):
            await level.get("a")
    async with Level("notes", backend=disk) as level:
        assert await level.keys() == ["a", "b"]
