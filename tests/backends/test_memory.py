"""The memory backend, beyond the contract that the conformance suite tests."""

from __future__ import annotations

import gc
from time import perf_counter
from typing import Any

import pytest

from treehub_level import MemoryBackend
from treehub_level.backends import create

pytestmark = pytest.mark.once


@pytest.fixture
def memory() -> MemoryBackend:
    backend = MemoryBackend("label")
    backend.open()
    return backend


def test_two_objects_of_one_name_are_two_stores(memory: MemoryBackend) -> None:
    memory.write([(b"k", b"v")])
    other = MemoryBackend("label")
    other.open()
    assert other.get(b"k") is None


def test_it_takes_no_options() -> None:
    with pytest.raises(TypeError, match=r"backend 'memory' has no option 'write_buffer_size'; it takes none"):
        create("memory", "label", {"write_buffer_size": 1})


def test_it_has_no_size_on_disk(memory: MemoryBackend) -> None:
    assert memory.size_on_disk() is None


def test_opening_it_twice_names_the_store_and_the_remedy(memory: MemoryBackend) -> None:
    with pytest.raises(Exception, match="memory store 'label' is open already: close the level"):
        memory.open()


def test_keys_added_and_removed_between_two_scans_leave_no_trace(memory: MemoryBackend) -> None:
    memory.write([(b"stays", b"1")])
    memory.write([(b"passes", b"1")])
    memory.write([(b"passes", None)])
    assert memory.scan(None, None).fetch(10) == [(b"stays", b"1")]
    memory.write([(b"stays", None), (b"back", b"1")])
    memory.write([(b"back", None), (b"stays", b"2")])
    assert memory.scan(None, None, reverse=True).fetch(10) == [(b"stays", b"2")]


def test_a_garbage_collected_cursor_costs_later_writes_nothing(memory: MemoryBackend) -> None:
    cursor, snapshot = memory.scan(None, None), memory.snapshot()
    memory.write([(b"k", b"v")])
    assert len(memory._data._versions) == 2
    del cursor, snapshot
    gc.collect()
    assert len(memory._data._versions) == 0


def test_an_exhausted_cursor_costs_later_writes_nothing(memory: MemoryBackend) -> None:
    cursor = memory.scan(None, None)
    assert cursor.fetch(1) == []
    assert len(memory._data._versions) == 0


def test_a_closed_snapshot_refuses_to_read(memory: MemoryBackend) -> None:
    snapshot = memory.snapshot()
    snapshot.close()
    with pytest.raises(Exception, match="the snapshot is closed"):
        snapshot.get(b"k")


def test_a_cursor_outlives_the_snapshot_that_it_came_from(memory: MemoryBackend) -> None:
    memory.write([(b"k", b"1")])
    snapshot = memory.snapshot()
    cursor = snapshot.scan(None, None)
    snapshot.close()
    memory.write([(b"k", b"2")])
    assert cursor.fetch(10) == [(b"k", b"1")]


@pytest.mark.parametrize("since", ["overwritten", "renamed"])
def test_a_scan_of_an_old_version_is_not_slowed_down_by_later_changes(memory: MemoryBackend, since: str) -> None:
    keys = [b"%06d" % number for number in range(20_000)]
    memory.write([(key, b"1") for key in keys])
    memory.scan(None, None).fetch(1)  # sorts
    current, old = memory.scan(None, None), memory.scan(None, None)
    seconds = _scan_all(current, keys)
    memory.write([(key, b"2" if since == "overwritten" else None) for key in keys])
    memory.write([(key + b"-new", b"2") for key in keys])
    assert _scan_all(old, keys) < 50 * seconds  # a factor of 1000 if each fetch read everything


def _scan_all(cursor: Any, keys: list[bytes]) -> float:
    start = perf_counter()
    for first in range(0, len(keys), 10):
        assert cursor.fetch_keys(10) == keys[first : first + 10]
    return perf_counter() - start
