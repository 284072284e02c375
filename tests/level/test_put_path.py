"""The number of this package's functions that a put passes. `docs/architecture.md` lists them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import treehub_level
from treehub_level import Level, blocking

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(find_spec("treehub_level._store_c") is None, reason="the native LevelDB engine was not built"),
]

PACKAGE = str(Path(treehub_level.__file__).parent)
#: The compiled functions of the path, which a profiler does not see: `Encoder.put`,
#: `server_batch`, `DB.write`.
COMPILED = 3
MOST = 14


class Counter:
    """Counts the calls of this package's Python functions in a ``with`` block."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __enter__(self) -> Counter:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.calls.append(frame.f_code.co_name)


def test_a_blocking_put_passes_few_functions(tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "store", mode=Level.SERVER) as level:
        level.put("a", 1)  # the first write starts an epoch
        with Counter() as counter:
            level.put("b", 2)
        assert len(counter.calls) + COMPILED <= MOST, counter.calls


async def test_an_awaited_put_passes_few_functions(tmp_path: Path) -> None:
    async with Level(tmp_path / "store", mode=Level.SERVER) as level:
        await level.put("a", 1)
        with Counter() as counter:
            await level.put("b", 2)
        assert len(counter.calls) + COMPILED <= MOST, counter.calls


def test_the_counter_counts(tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "store", mode=Level.SERVER) as level, Counter() as counter:
        level.load((f"k{n}", n) for n in range(5000))
    assert len(counter.calls) > MOST
