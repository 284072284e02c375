"""Retention on the stores of a hub: beside clients, in metrics, and by the command line."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from treehub_level import Level, MemoryBackend, Retention
from treehub_level.aio.level import internals
from treehub_level.cli.application import app
from treehub_level.engine import clock
from treehub_level.http import Hub, create_app

pytestmark = pytest.mark.once

DAY = 24 * 3600


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The wall clock in milliseconds: one item, which the test changes."""
    found = [1_700_000_000_000]
    monkeypatch.setattr(clock, "unix_ms", lambda: found[0])
    return found


async def log_length(hub: Hub, name: str) -> int:
    async with hub.use(name) as level:
        space = internals(level)[0].store.space
        cursor = internals(level)[0].store.backend.scan(space.log_start, space.log_stop, values=False)
        return len(cursor.fetch_keys(100_000))


async def test_a_hub_keeps_the_logs_of_all_its_stores_small(tmp_path: Path, time: list[int]) -> None:
    retention = Retention(superseded_after=60, every=3600)
    program = Level("program", backend=MemoryBackend, mode=Level.SERVER)
    async with program, Hub(tmp_path, create=["a", "b"], levels={"c": program}, retain=retention) as hub:
        assert hub.retention is not None
        for name in ("a", "b", "c"):
            async with hub.use(name) as level:
                for number in range(3000):
                    await level.put(f"k{number % 10}", number)
        for _ in range(2):
            for name in ("a", "b", "c"):
                await hub.tasks.run(hub.retention.task, name)
            time[0] += DAY * 1000
        lengths = [await log_length(hub, name) for name in ("a", "b", "c")]
        assert lengths == [10, 10, 3000]  # the program decides on its own level
        transport = httpx.ASGITransport(app=create_app(hub, hosts=["*"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            text = (await http.get("/metrics")).text
    for line in (
        'treehub_level_task_runs_total{database="a",task="compaction"} 2.0',
        'treehub_level_task_failures_total{database="a",task="compaction"} 0.0',
        'treehub_level_compaction_dropped_changes_total{database="b"} 2990.0',
        'treehub_level_clients{database="a"} 0.0',
    ):
        assert line in text


async def test_clients_are_remembered_when_the_hub_closes_their_store(tmp_path: Path) -> None:
    async with Level("phone", backend=MemoryBackend, mode=Level.CLIENT) as phone:
        async with Hub(tmp_path, create=["a"], retain=Retention()) as hub, hub.use("a") as level:
            await phone.sync(level)
        async with Level(tmp_path / "a", mode=Level.SERVER) as level:
            store = internals(level)[0].store
            start = store.space.own_key("seen/")
            assert len(store.backend.scan(start, start[:-1] + b"0", values=False).fetch_keys(10)) == 1


async def test_a_compaction_ends_when_its_store_is_to_be_closed(tmp_path: Path, time: list[int]) -> None:
    retention = Retention(superseded_after=60, every=3600)
    async with Hub(tmp_path, create=["a", "b"], max_open=1, retain=retention) as hub:
        assert hub.retention is not None
        async with hub.use("a") as level:
            await level.load((f"k{number % 10}", number) for number in range(30_000))
        await hub.tasks.run(hub.retention.task, "a")
        time[0] += DAY * 1000
        running = asyncio.ensure_future(hub.tasks.run(hub.retention.task, "a"))
        await asyncio.sleep(0.01)
        async with hub.use("b") as level:  # there is room for one store
            assert level.cid == 0
        await running
        assert hub.retention.task.records["a"].error is None
        # It goes on, and a store that is deleted does not wait for it.
        running = asyncio.ensure_future(hub.tasks.run(hub.retention.task, "a"))
        await hub.delete("a")
        await running
        assert hub.names() == ["b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-history", "soon"], "'soon' is not a duration: write a number and s, m, h, d or w, as in 90s or 7d"),
        (["--compact-every", "-1h"], "is not a duration"),
        (["--keep-clients", "99999999999d"], "clients_unseen_after"),
    ],
)
def test_a_wrong_retention_is_named(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["serve", str(tmp_path), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            [],
            "superseded changes are kept for 7 days, 1,000,000 at most; clients unseen for 90 days start over",
        ),
        (["--keep-history", "1w", "--keep-changes", "5", "--keep-clients", "36h"], "7 days, 5 at most; clients unseen"),
        (["--compact-every", "0"], "every log is kept whole"),
    ],
)
def test_the_server_says_at_its_start_what_it_keeps(
    tmp_path: Path,
    options: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "treehub_level.http")

    def run(hub: Hub, address: Any, *, on_listening: Any, **_: Any) -> None:
        assert (hub.retention is None) == ("0" in options)
        on_listening("http://127.0.0.1:1")

    monkeypatch.setattr("treehub_level.http.server.run.serve", run)
    result = CliRunner().invoke(app, ["serve", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert expected in caplog.text
