"""Both cores, all backends and both APIs against a model (T3). See ``__main__.py``."""

from __future__ import annotations

from typing import Any

import pytest
from backends import broken
from broken_clients import FAULTS
from stores import Stores

from treehub_level import LevelError, Mode, _core
from treehub_level.backends.memory import MemoryBackend
from treehub_level.engine import watch
from treehub_level.engine.watch import StateWatch
from treehub_level.replication.state import ClientState

from .machine import VARIANTS, Variant, run, shares

#: Examples for each core. `make soak` runs 100,000.
EXAMPLES = {"c": 100, "python": 50}[_core.CORE]
#: Examples for each control. Most fail within a few dozen.
CONTROL = 500

#: Backends with one fault that the engine cannot notice, and seeds that find the fault early.
BACKEND_FAULTS: dict[type[MemoryBackend], int] = {
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
    run(variant, examples, with_seed=VARIANTS.index(variant), url=url)


@pytest.mark.once
@pytest.mark.parametrize("fault", BACKEND_FAULTS, ids=lambda fault: fault.__qualname__.split(".")[0])
def test_a_backend_with_one_fault_is_found(fault: type[MemoryBackend]) -> None:
    class FaultyStores(Stores):
        def _memory(self, name: str) -> MemoryBackend:
            return self._memories.setdefault(name, fault(name))

    _assert_found(with_seed=BACKEND_FAULTS[fault], stores_of=FaultyStores)


_on_commit = StateWatch.on_commit


def _without_deletions(self: StateWatch, changes: list[Any], *, is_certain: bool) -> None:
    _on_commit(self, [change for change in changes if change.value is not None], is_certain=is_certain)


#: Faults of the engine, each with a seed that finds it early.
ENGINE_FAULTS: dict[str, tuple[Any, str, Any, int]] = {
    "a batch is pushed in parts": (*FAULTS["torn"], 1),
    "a refused change is lost without a record": (*FAULTS["unjournaled"], 1),
    "a client is consistent at once": (ClientState, "is_at_head", True, 1),
    "a watch misses deletions": (StateWatch, "on_commit", _without_deletions, 1),
    "a pulled change is taken for a local one": (watch, "_origin", lambda is_local: "local", 1),
}


@pytest.mark.once
@pytest.mark.parametrize("fault", ENGINE_FAULTS)
def test_a_fault_of_the_engine_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, value, seed = ENGINE_FAULTS[fault]
    monkeypatch.setattr(target, name, value)
    _assert_found(with_seed=seed)


def _assert_found(**options: Any) -> None:
    with pytest.raises(BaseException) as raised:
        run(Variant("blocking", "memory", Mode.CLIENT), CONTROL, shrink=False, **options)
    assert any(isinstance(error, (AssertionError, KeyError, LevelError)) for error in _flat(raised.value)), raised.value


def _flat(error: Any) -> list[Any]:
    return [
        leaf
        for inner in getattr(error, "exceptions", [error])
        for leaf in ([inner] if inner is error else _flat(inner))
    ]
