"""Crashes of clients that settle conflicts: nothing is lost, and nothing counts twice."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulation.faults import REMOVALS

from treehub_level import Conflict, MemoryBackend, Mode, Put, Refused, blocking, merge
from treehub_level.testing import CrashError, CrashingDisk

from .disk import scratch_folder
from .history import ENGINES
from .merging import CountingPair

pytestmark = pytest.mark.once

needs_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows locks the files of a killed process for a while"
)


def refuse_negative(call: Any, changes: Any, read: Any) -> None:
    for change in changes:
        if change.key == "depth" and change.after < 0:
            raise Refused("a depth is not negative")


def settle(conflict: Conflict) -> Any:
    """Repair a refused depth, and merge the others by the kinds of their values."""
    if conflict.kind == "refused":
        return abs(conflict.local.value)
    return merge.by_prefix({"count": merge.counter, "note": merge.fields, "tags": merge.union})(conflict)


#: The data after all have synchronised.
MERGED = {
    "count/a": 1112,
    "count/b": 1,
    "depth": 5,
    "note": {"text": "new", "done": True},
    "tags": ["there", "here"],
}


class CrashingSync:
    """A client whose disk crashes in a sync that merges, and its server."""

    def __init__(self, seed: int) -> None:
        self._disk = CrashingDisk(seed=seed)
        self._server = blocking.Level("server", backend=MemoryBackend, mode=Mode.SERVER, check=refuse_negative)
        self._server.open()
        self._server.batch([Put("count/a", 1), Put("note", {"text": "old"}), Put("tags", ["gone"])])
        with self._client() as client:
            client.sync(self._server)
            client.batch([Put("count/a", 2), Put("count/b", 1)])
            client.put("note", {"text": "old", "done": True})
            client.put("tags", ["gone", "here"])
            client.put("depth", -5)
            client.put("count/a", 12, durable=True)
        self._server.put("count/a", 101)
        self._server.put("note", {"text": "new"})
        self._server.put("tags", ["there"])

    def _client(self) -> blocking.Level:
        return blocking.Level("client", backend=self._disk, mode=Mode.CLIENT, keep_base=True)

    def crash(self, write: int, *, before: bool, power: bool) -> bool:
        """Synchronise with a crash. Return False if there was none."""
        self._disk.crash_at(write, before=before, power=power)
        try:
            with self._client() as client:
                client.sync(self._server, on_conflict=settle)
        except CrashError:
            return True
        finally:
            self._disk.crash_at(0)
        return False

    def check(self) -> None:
        """Let the server count on, synchronise, and check that nothing is lost or counts twice."""
        self._server.put("count/a", self._server.get("count/a") + 1000)
        with self._client() as client:
            client.sync(self._server, on_conflict=settle)
            assert dict(client.query()) == dict(self._server.query()) == MERGED
            assert client.conflicts() == []
            assert client.pending() == 0


def crash_at_every_write(*, power: bool) -> int:
    """Let a sync crash before and after each of its writes. Return the number of crashes."""
    crashes = 0
    for before in (True, False):
        write = 1
        while True:
            sync = CrashingSync(write)
            crashed = sync.crash(write, before=before, power=power)
            sync.check()
            if not crashed:
                break
            crashes += 1
            write += 1
    return crashes


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_at_any_write_of_a_sync_loses_no_merge_and_repeats_none(power: bool) -> None:
    assert crash_at_every_write(power=power) >= 8


@pytest.mark.parametrize("mechanism", ["merge_in_batch", "merge_base"])
def test_a_merge_in_a_batch_of_its_own_or_with_an_old_base_is_found(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target, name, value in REMOVALS[mechanism]:
        monkeypatch.setattr(target, name, value)
    with pytest.raises(AssertionError):
        crash_at_every_write(power=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the stores."""
    logging.disable(logging.WARNING)  # unreadable ends of logs are provoked on purpose
    with scratch_folder() as folder:
        yield folder
    logging.disable(logging.NOTSET)


@needs_signals
@pytest.mark.parametrize("engine", [ENGINES[0], "sqlite"])
def test_every_addition_counts_once_although_processes_are_killed(folder: Path, engine: str) -> None:
    pair = CountingPair(folder / "pair", engine, 1)
    pair.run(1)
    assert pair.counts["kills"] == 2
    assert pair.counts["additions"] > 0
