"""snapshot(at=): the store as of a CID, compared with a list of all its states."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranges import asked, expected, is_even, options
from stores import Stores

from treehub_level import Delete, HistoryError, Level, MemoryBackend, ModeError, Put, blocking
from treehub_level.engine import as_of, log

KEYS = st.sampled_from(["a", "b", "c", "ä", "\uffff", "😀"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), KEYS, st.integers(0, 9) | st.none()),
        st.tuples(st.just("batch"), st.lists(st.tuples(KEYS, st.integers(0, 9) | st.none()), min_size=1, max_size=4)),
        st.tuples(st.just("compact"), st.integers(0, 30)),
        st.tuples(st.just("reopen")),
    ),
    max_size=20,
)


class States:
    """A server, and the state after each of its CIDs."""

    def __init__(self, level: blocking.Level) -> None:
        self.level = level
        self.states: list[dict[str, Any]] = [{}]
        self.earliest = 0

    def apply(self, operation: tuple[Any, ...]) -> None:
        """Apply an operation to the server, and to the states."""
        match operation:
            case ("write", key, value):
                self._write([(key, value)])
            case ("batch", changes):
                self._write(changes)
            case ("compact", before):
                if self.level.compact_log(drop_deletes_before=min(before, self.level.cid)):
                    self.earliest = self.level.cid
            case _:
                self.level.close()
                self.level.open()

    def _write(self, changes: list[tuple[str, Any]]) -> None:
        self.level.batch([Delete(key) if value is None else Put(key, value) for key, value in changes])
        for key, value in changes:
            state = {**self.states[-1], key: value}
            self.states.append({name: value for name, value in state.items() if value is not None})


@pytest.mark.once
@pytest.mark.parametrize("backend", ["memory", "leveldb", "sqlite"])
def test_the_log_covers_each_cid_since_the_last_compaction(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_of, "_FETCH", 2)
    monkeypatch.setattr(log, "COMPACTION_STEP", 3)
    runs = iter(range(1_000_000))

    @settings(max_examples=60 if backend == "memory" else 12)
    @given(OPERATIONS, options)
    def check(operations: list[tuple[Any, ...]], query: Any) -> None:
        memory = MemoryBackend("server")
        kind: Any = (lambda _: memory) if backend == "memory" else backend
        with blocking.Level(str(tmp_path / str(next(runs))), backend=kind, mode=Level.SERVER) as level:
            made = States(level)
            for operation in operations:
                made.apply(operation)
            _compare(made, query)

    check()


def _compare(made: States, query: Any) -> None:
    level = made.level
    for at, state in enumerate(made.states):
        if at < made.earliest:
            with pytest.raises(HistoryError) as caught:
                level.snapshot(at=at)
            error = caught.value
            assert (error.cid, error.earliest, error.latest) == (at, made.earliest, level.cid)
            continue
        with level.snapshot(at=at) as snapshot:
            keep = (lambda _, value: is_even(value)) if query.get("even") else None
            assert snapshot.query(**asked(query), filter=keep) == expected(state, query)
            assert dict(snapshot.scan()) == state
            assert snapshot.keys(reverse=True) == sorted(state, reverse=True)
            assert snapshot.count() == len(state)
            names = ["a", "b", "c", "ä", "\uffff", "😀", "none"]
            assert snapshot.get_many(names) == [state.get(name) for name in names]
            assert [snapshot.has(name) for name in names] == [name in state for name in names]
            assert snapshot.get("!", 0) == at
            assert snapshot.get(f"!{at + 1}") is None


@pytest.mark.shared
async def test_a_snapshot_as_of_a_cid_has_every_reading_method(stores: Stores) -> None:
    server = await stores.open("server", mode=Level.SERVER)
    await server.batch([Put("a", 1), Put("b", 2), Put("c", 3), Put("z", 26)])
    await server.delete("b")
    await server.put("a", "changed")
    await server.put("d", 4)
    async with server.snapshot(at=4) as snapshot:
        await server.delete("c")
        assert await snapshot.get("a") == 1
        assert await snapshot.has("b")
        assert not await snapshot.has("d")
        assert await snapshot.get_many(["d", "c", "b"]) == [None, 3, 2]
        assert await snapshot.query(gte="b") == [("b", 2), ("c", 3), ("z", 26)]
        assert await snapshot.query(reverse=True, limit=2) == [("z", 26), ("c", 3)]
        assert await snapshot.keys(lt="z") == ["a", "b", "c"]
        assert await snapshot.values(limit=2) == [1, 2]
        assert await snapshot.count() == 4
        assert [pair async for pair in snapshot.scan(prefix="z")] == [("z", 26)]
    async with server.sublevel("s").snapshot(at=7) as snapshot:
        assert await snapshot.query() == []


async def test_a_sublevel_has_its_part_of_an_earlier_state(server: Any) -> None:
    part = server.sublevel("s")
    await part.put("a", 1)
    await part.put("a", 2)
    await server.put("other", 3)
    async with part.snapshot(at=1) as snapshot:
        assert await snapshot.query() == [("a", 1)]
        assert await snapshot.get("a") == 1


async def test_a_cid_outside_the_log_is_refused(server: Any, client: Any) -> None:
    await server.put("a", 1)
    with pytest.raises(HistoryError, match="is at CID 1"):
        server.snapshot(at=2)
    await server.put("a", 2)
    await server.compact_log()
    with pytest.raises(HistoryError, match="compacted up to CID 2"):
        server.snapshot(at=1)
    for cid, error in (("1", TypeError), (True, TypeError), (-1, ValueError)):
        with pytest.raises(error):
            server.snapshot(at=cid)
    with pytest.raises(ModeError, match="SERVER"):
        client.snapshot(at=0)


async def test_the_log_of_an_earlier_state_is_read_in_a_thread(stores: Stores) -> None:
    server = await stores.open("server", mode=Level.SERVER)
    await server.load([(f"k{number}", number) for number in range(100)])
    first, second = server.snapshot(at=0), server.snapshot(at=50)
    calls = [first.count(), second.count(), second.get("k10"), second.get("k60")]
    assert await asyncio.gather(*calls) == [0, 50, 10, None]
    await first.close()
    await second.close()
