"""A hub inside another application: what ends when the process is asked to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType

import pytest
from waiting import PATIENCE

from treehub_level import Change, Level, MemoryBackend
from treehub_level.http import Hub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path / "stores", create=["notes"], backend="sqlite") as opened:
        yield opened


async def test_stop_ends_the_watches_of_the_program(hub: Hub) -> None:
    watching = asyncio.Event()

    async def follow() -> list[Change]:
        async with hub.use("notes") as level:
            changes = level.watch(initial=True)
            watching.set()
            return [change async for change in changes]

    task = asyncio.create_task(follow())
    await watching.wait()
    hub.stop()
    assert await asyncio.wait_for(task, PATIENCE) == []


async def test_stop_leaves_the_watches_of_a_level_that_the_program_has_opened() -> None:
    async with (
        Level("notes", backend=MemoryBackend, mode=Level.SERVER) as level,
        Hub(levels={"notes": level}) as hub,
        level.watch() as changes,
    ):
        hub.stop()
        await level.put("a", 1)
        assert await asyncio.wait_for(anext(changes), PATIENCE) == ("a", 1)


async def test_a_signal_stops_the_hub_and_reaches_the_earlier_handler(hub: Hub) -> None:
    received: list[int] = []

    def earlier(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, earlier)
    try:
        with hub.stop_on_signals():
            assert not hub.stopping.is_set()
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(hub.stopping.wait(), PATIENCE)
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_handler_that_was_set_later_stays(hub: Hub) -> None:
    def later(number: int, frame: FrameType | None) -> None: ...

    before = signal.getsignal(signal.SIGTERM)
    try:
        with hub.stop_on_signals():
            signal.signal(signal.SIGTERM, later)
        assert signal.getsignal(signal.SIGTERM) is later
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_loop_in_another_thread_sets_no_handler(hub: Hub) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def use() -> bool:
        with hub.stop_on_signals():
            return signal.getsignal(signal.SIGTERM) is before

    assert await asyncio.to_thread(lambda: asyncio.run(use()))
