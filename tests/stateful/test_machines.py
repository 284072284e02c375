"""Both cores, all backends and both APIs against a model (T3). See ``__main__.py``."""

from __future__ import annotations

from typing import Any

import pytest
from backends import broken
from stores import Stores

from treehub_level import LevelError, Mode, _core
from treehub_level.backends.memory import MemoryBackend

from .machine import VARIANTS, Variant, run, shares

#: Examples for each core. `make soak` runs 100,000.
EXAMPLES = {"c": 100, "python": 50}[_core.CORE]
#: Examples for each control. Most fail within a few dozen.
CONTROL = 500

#: Backends with one fault that the engine cannot notice, and seeds that find the fault early.
FAULTS: dict[type[MemoryBackend], int] = {
    broken.TestUnsorted.Faulty: 1,
    broken.TestReverseIgnored.Faulty: 3,
    broken.TestStopIncluded.Faulty: 1,
    broken.TestLiveCursor.Faulty: 5,
    broken.TestLiveSnapshot.Faulty: 4,
    broken.TestFirstEntryWins.Faulty: 1,
    broken.TestDeletesAfterPuts.Faulty: 4,
    broken.TestGetManySorts.Faulty: 1,
    broken.TestForgetsOnClose.Faulty: 1,
}


@pytest.mark.parametrize(("variant", "examples"), shares(EXAMPLES), ids=map(str, VARIANTS))
def test_a_store_behaves_like_the_model(variant: Variant, examples: int, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if variant.backend == "postgres" else ""
    run(variant, examples, url=url)


@pytest.mark.once
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__qualname__.split(".")[0])
def test_a_backend_with_one_fault_is_found(fault: type[MemoryBackend]) -> None:
    class FaultyStores(Stores):
        def _memory(self, name: str) -> MemoryBackend:
            return self._memories.setdefault(name, fault(name))

    with pytest.raises(BaseException) as raised:
        variant = Variant("blocking", "memory", Mode.CLIENT)
        run(variant, CONTROL, with_seed=FAULTS[fault], stores_of=FaultyStores, shrink=False)
    assert any(isinstance(error, (AssertionError, KeyError, LevelError)) for error in _flat(raised.value)), raised.value


def _flat(error: Any) -> list[Any]:
    return [
        leaf
        for inner in getattr(error, "exceptions", [error])
        for leaf in ([inner] if inner is error else _flat(inner))
    ]
