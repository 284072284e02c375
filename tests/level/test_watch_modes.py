"""watch() in every mode: the state, then the latest change of each key, by all writers."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from typing import Any

import pytest
from stores import Stores
from waiting import PATIENCE, until

from treehub_level import (
    Change,
    Delete,
    InvalidValueError,
    Level,
    Mode,
    NotOpenError,
    Put,
    StateError,
    StorageError,
    blocking,
)
from treehub_level.backends.sqlite import scratch
from treehub_level.engine import change_queue
from treehub_level.engine.change_feed import ChangeFeed
from treehub_level.engine.change_queue import ChangeQueue
from treehub_level.engine.watch import StateWatch

pytestmark = pytest.mark.shared


class Taker:
    """Takes changes in a task, as a program does, into a list and into a dict."""

    def __init__(self, changes: Any) -> None:
        self.taken: list[Change] = []
        self.data: dict[str, Any] = {}
        self.task = asyncio.create_task(self._take(changes))

    async def _take(self, changes: Any) -> None:
        async for change in changes:
            self.taken.append(change)
            if change.deleted:
                self.data.pop(change.key, None)
            else:
                self.data[change.key] = change.value

    async def until(self, *wanted: tuple[str, Any]) -> None:
        """Wait for the data."""
        await until(lambda: self.data == dict(wanted))

    async def ends(self) -> None:
        """Wait for the end of the changes."""
        await asyncio.wait_for(self.task, PATIENCE)


@pytest.fixture(params=list(Mode), ids=lambda mode: mode.value)
async def level(request: pytest.FixtureRequest, stores: Stores) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=request.param)


async def test_a_watch_yields_the_state_and_then_each_change(level: Any) -> None:
    await level.batch([Put("n/a", 1), Put("n/b", None), Put("x", 1)])
    taker = Taker(level.watch(prefix="n/", initial=True))
    await taker.until(("n/a", 1), ("n/b", None))
    await level.put("x", 2)
    await level.delete("n/a")
    await level.load([("n/c", [3]), ("n0", 4)])

    await taker.until(("n/b", None), ("n/c", [3]))
    assert [(*change, change.origin) for change in taker.taken] == [
        ("n/a", 1, "initial"),
        ("n/b", None, "initial"),
        ("n/a", "local"),
        ("n/c", [3], "local"),
    ]
    with_cid = [change.cid is not None for change in taker.taken]
    assert with_cid == [False, False, *[level.mode is Level.SERVER] * 2]
    await level.close()
    await taker.ends()


async def test_a_watch_begins_with_the_call(level: Any) -> None:
    await level.put("old", 1)
    changes = level.watch()
    await level.put("new", 2)
    taker = Taker(changes)
    await taker.until(("new", 2))
    assert taker.taken == [["new", 2]]


async def test_bounds_and_sublevels_restrict_a_watch(level: Any) -> None:
    sub = level.sublevel("s")
    inner, ranged = Taker(sub.watch(initial=True)), Taker(level.watch(gte="b", lt="d"))
    nothing = Taker(level.watch(gte="d", lt="d"))
    await asyncio.sleep(0.01)
    await level.batch([Put("a", 1), Put("b", 2), Put("d", 3), Put("s/b", 4), Put("s", 5)])
    await sub.put("c", 6)
    await sub.delete("b")
    await inner.until(("c", 6))
    await ranged.until(("b", 2))
    assert nothing.taken == []


async def test_a_large_value_and_a_batch_that_writes_a_key_twice_arrive(level: Any) -> None:
    taker = Taker(level.watch())
    await asyncio.sleep(0.01)
    await level.batch([Put("a", 1), Delete("a"), Put("b", "y" * 200_000), Put("c", 1), Put("c", 2)])
    await taker.until(("b", "y" * 200_000), ("c", 2))


async def test_clear_yields_a_deletion_of_each_key(level: Any) -> None:
    await level.load((f"k{n}", n) for n in range(50))
    taker = Taker(level.watch(initial=True))
    await until(lambda: len(taker.data) == 50)
    assert await level.clear(gte="k1", lt="k2") == 11
    await until(lambda: len(taker.data) == 39)
    assert all(change.deleted for change in taker.taken[50:])


async def test_what_a_client_pulls_is_remote_and_its_own_changes_are_local(
    stores: Stores, server: Any, client: Any
) -> None:
    other = await stores.open("other", mode=Level.CLIENT)
    await server.load((f"old{n}", n) for n in range(5))
    await client.put("mine", 1)
    on_server, on_client = Taker(server.watch()), Taker(client.watch(initial=True))
    await on_client.until(("mine", 1))
    await client.sync(server)  # a fill
    await other.sync(server)
    await other.put("theirs", 2)
    await other.sync(server)
    await client.sync(server)  # a pull
    await client.apply(client.cid, [])
    await until(lambda: len(on_client.data) == 7)
    await client.delete("mine")
    await until(lambda: len(on_client.data) == 6)

    origins = {change.key: change.origin for change in on_client.taken[1:-1]}
    assert origins == {**{f"old{n}": "remote" for n in range(5)}, "theirs": "remote"}
    assert (on_client.taken[0].origin, on_client.taken[-1].origin) == ("initial", "local")
    await until(lambda: len(on_server.taken) == 2)
    assert [(*change, change.origin) for change in on_server.taken] == [
        ("mine", 1, "remote"),
        ("theirs", 2, "remote"),
    ]


async def test_a_lost_change_is_remote_and_a_restored_one_local(stores: Stores, server: Any, client: Any) -> None:
    await client.put("a", "mine")
    await server.put("a", "theirs")
    taker = Taker(client.watch())
    await asyncio.sleep(0.01)
    await client.sync(server)
    await taker.until(("a", "theirs"))
    (conflict,) = await client.conflicts()
    await client.restore(conflict)
    await taker.until(("a", "mine"))
    assert [change.origin for change in taker.taken] == ["remote", "local"]


# ----------------------------------------------------------------------------------- life and death


async def test_a_watch_ends_with_its_level_and_not_before_its_next_opening(stores: Stores, level: Any) -> None:
    takers = [Taker(level.watch()), Taker(level.watch(initial=True)), Taker(level.sublevel("s").watch())]
    await asyncio.sleep(0.02)
    await level.close()
    for taker in takers:
        await taker.ends()
    await level.open()
    fresh = Taker(level.watch())
    await asyncio.sleep(0.01)
    await level.put("a", 1)
    await fresh.until(("a", 1))
    assert [taker.data for taker in takers] == [{}, {}, {}]


async def test_a_watch_of_a_closed_level_is_refused(level: Any) -> None:
    await level.close()
    for call in (level.watch, lambda: level.watch(initial=True), lambda: level.on_change(print)):
        with pytest.raises(NotOpenError):
            call()


async def test_wrong_arguments_are_refused(level: Any) -> None:
    for options in ({"initial": 1}, {"prefix": 1}, {"limit": 1}):
        with pytest.raises(TypeError):
            level.watch(**options)
    with pytest.raises(ValueError, match="gt or gte"):
        level.watch(gt="a", gte="a")
    if level.mode is Mode.SERVER:
        with pytest.raises(ValueError, match="not both"):
            level.watch(since=0, initial=True)
    else:
        with pytest.raises(StateError, match="change log"):
            level.watch(since=0)
    with pytest.raises(TypeError):
        level.on_change(None)


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_leaving_the_loop_frees_a_watch(mode: Mode) -> None:
    async with Level("store", backend="memory", mode=mode) as level:
        await level.put("a", 1)
        changes = level.watch(initial=True)
        async for _ in changes:
            break
        inner = weakref.ref(changes._watch)
        del changes
        await until(lambda: inner() is None)  # the thread that has read for it lets go of it
    with blocking.Level("store", backend="memory", mode=mode) as plain:
        plain.put("a", 1)
        iterator = plain.watch(initial=True)
        for _ in iterator:
            break
        inner = weakref.ref(iterator._watch)
        del iterator
        assert inner() is None


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_a_watch_does_not_keep_a_level_alive(mode: Mode, backend: str, tmp_path: Any) -> None:
    level: Any = blocking.Level(tmp_path / "store", backend=backend, mode=mode)
    level.open()
    changes, store = level.watch(), weakref.ref(level._store)
    level.on_change(print)
    waiting = asyncio.create_task(asyncio.to_thread(next, changes, "ended"))
    await asyncio.sleep(0.05)
    with pytest.warns(ResourceWarning) if backend == "sqlite" else _no_warning():
        del level
        await until(lambda: gc.collect() is not None and store() is None)
    assert await asyncio.wait_for(waiting, PATIENCE) == "ended"


def _no_warning() -> Any:
    from contextlib import nullcontext

    return nullcontext()


async def test_a_cancelled_consumer_goes_on_without_a_gap(level: Any) -> None:
    inner = getattr(level, "blocking", None)
    if inner is not None:
        pytest.skip("a thread cannot be cancelled")
    changes = level.watch()
    written = 0
    taken: list[Any] = []
    while written < 30 or len(taken) < 30:
        if written < 30:
            await level.put(f"k{written:02}", "y" * (100_000 if written % 3 else 1))
            written += 1
        try:
            taken.append((await asyncio.wait_for(anext(changes), 0.001)).key)
        except asyncio.TimeoutError:
            continue
    assert taken == [f"k{n:02}" for n in range(30)]


# ------------------------------------------------------------------------------- slow consumers


@pytest.mark.parametrize("mode", [Mode.NORMAL, Mode.CLIENT], ids=lambda mode: mode.value)
def test_a_slow_consumer_loses_nothing(mode: Mode) -> None:
    with blocking.Level("store", backend="memory", mode=mode) as level:
        level.load((f"gone{n}", n) for n in range(1000))
        changes = level.watch()
        sizes: set[int] = set()
        for turn in range(10):
            level.load(((f"k{n:05}", turn) for n in range(10_000)), progress=lambda _: sizes.add(_queued(changes)))
        assert level.clear(prefix="gone") == 1000
        level.put("big", "y" * 4_000_000)
        assert max(sizes) <= change_queue.MAX_BYTES

        data: dict[str, Any] = {}
        count = 0
        for change in changes:
            count += 1
            assert change.origin == "local"
            data[change.key] = None if change.deleted else change.value
            if change.key == "big":
                break
        assert count == len(data) == 11_001
        assert set(data.values()) == {None, 9, "y" * 4_000_000}


def _queued(changes: Any) -> int:
    return int(changes._watch._queue._bytes)


def test_the_memory_of_a_queue_is_bounded() -> None:
    queue = ChangeQueue()
    tracemalloc.start()
    for n in range(20_000):
        queue.put(b"k%d" % n, b"y" * 40, True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * change_queue.MAX_BYTES  # while the keys are written to the file, there are two copies
    queue.close()


def test_a_queue_keeps_the_latest_change_of_each_key_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_queue, "MAX_BYTES", 3000)
    queue = ChangeQueue()
    expected: dict[bytes, bool] = {}
    for n in range(400):
        key = b"%d" % (n * n % 97)
        queue.put(key, b"y" * (n % 50), n % 3 == 0)
        expected.pop(key, None)
        expected[key] = n % 3 == 0
    assert {key: queue.origin(key) for key in expected} == expected
    found: list[tuple[bytes, bool]] = []
    while taken := queue.take(7):
        found += [(key, is_local) for key, _, is_local in taken]
    assert found == [*expected.items()]
    assert not queue


# -------------------------------------------------------------------------------------- controls


def test_control_a_feed_that_forgets_a_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChangeFeed, "committed", lambda self: None)
    with blocking.Level("store", backend="memory") as level:
        seen: list[Change] = []
        level.on_change(seen.append)
        level.put("a", 1)
        assert seen == []


def test_control_a_queue_that_drops_its_keys_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def drop(self: ChangeQueue) -> None:
        self._recent, self._bytes = {}, 0

    monkeypatch.setattr(ChangeQueue, "_relieve", drop)
    with pytest.raises(AssertionError):
        test_a_queue_keeps_the_latest_change_of_each_key_in_order(monkeypatch)


def test_a_full_disk_ends_the_watch_and_not_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space")

    monkeypatch.setattr(change_queue, "MAX_BYTES", 3000)
    monkeypatch.setattr(scratch.ScratchQueue, "add", full)
    with blocking.Level("store", backend="memory") as level:
        changes = level.watch()
        level.load((f"k{n}", n) for n in range(100))
        with pytest.raises(StorageError, match="no space"):
            next(changes)
        assert level.count() == 100


def test_a_failed_write_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    with blocking.Level("store", backend="memory") as level:
        seen: list[Change] = []
        level.on_change(seen.append)
        with pytest.raises(InvalidValueError):
            level.batch([Put("a", 1), Put("b", object())])
        level.put("c", 1)
    assert seen == [["c", 1]]


def test_an_interrupted_commit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch reads the store: an interrupted commit may have written, or not."""
    with blocking.Level("store", backend="memory") as level:
        changes = level.watch()
        committed = ChangeFeed.committed

        def interrupted(self: ChangeFeed) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(ChangeFeed, "committed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            level.put("a", 1)
        monkeypatch.setattr(ChangeFeed, "committed", committed)
        assert next(changes) == ["a", 1]
        assert isinstance(changes._watch, StateWatch)


# ------------------------------------------------------------------------------ timeouts, prefixes


async def some(changes: Any) -> list[Any]:
    """Return the changes up to the timeout."""
    return [(*change,) async for change in changes]


async def test_a_timeout_ends_the_loop_and_not_the_watch(level: Any) -> None:
    await level.put("a", 1)
    changes = level.watch(initial=True, timeout=0)
    assert await some(changes) == [("a", 1)]
    assert await some(changes) == []
    await level.batch([Put("b", 2), Put("c", 3)])
    assert (await some(changes), changes.has_ended) == ([("b", 2), ("c", 3)], False)
    await level.delete("a")
    await level.close()
    assert (await some(changes), changes.has_ended) == ([], True)


async def test_a_change_within_the_timeout_is_yielded(level: Any) -> None:
    changes = level.watch(timeout=PATIENCE)
    task = asyncio.create_task(changes.__anext__())
    await asyncio.sleep(0.02)
    await level.put("a", 1)
    assert (*(await asyncio.wait_for(task, PATIENCE)),) == ("a", 1)


async def test_a_watch_with_a_timeout_tells_where_to_go_on(stores: Stores) -> None:
    server = await stores.open("store", mode=Level.SERVER)
    await server.batch([Put("a", 1), Put("b", 2), Put("c", 3)])
    changes = server.watch(initial=True, timeout=0)
    seen = []
    async for change in changes:
        seen.append((change.key, changes.cid))
    assert seen == [("a", None), ("b", None), ("c", None)]
    assert changes.cid == 3
    await server.batch([Put("d", 4), Put("e", 5)])
    assert (*(await changes.__anext__()),) == ("d", 4)
    assert changes.cid == 4, "e is read, and not yielded"
    await (changes.aclose if isinstance(server, Level) else changes.close)()
    assert changes.cid == 4
    assert await some(server.watch(since=changes.cid, timeout=0)) == [("e", 5)]


async def test_a_watch_of_several_prefixes_yields_each_change_once(level: Any) -> None:
    await level.batch([Put("a/1", 1), Put("b/1", 1), Put("n/1", 1), Put("z", 1)])
    wanted = ["n/", "a/", "n/1", "none/"]
    changes = level.watch(prefixes=iter(wanted), initial=True, timeout=0)
    assert await some(changes) == [("a/1", 1), ("n/1", 1)]
    await level.batch([Put("a/2", 2), Put("b/2", 2), Delete("n/1"), Put("none", 2)])
    assert await some(changes) == [("a/2", 2), ("n/1",)]
    inner = level.sublevel("a").watch(prefixes=["1", "2"], initial=True, timeout=0)
    assert await some(inner) == [("1", 1), ("2", 2)]
    assert await some(level.watch(prefixes=[], initial=True, timeout=0)) == []


async def test_a_callback_has_several_prefixes(level: Any) -> None:
    seen: list[Any] = []
    level.on_change(seen.append, prefixes=["a/", "b/"])
    await asyncio.sleep(0)
    await level.batch([Put("a/1", 1), Put("c/1", 1), Put("b/1", 1)])
    await until(lambda: seen == [["a/1", 1], ["b/1", 1]])


async def test_wrong_prefixes_and_timeouts_are_refused(level: Any) -> None:
    for error, text, options in (
        (TypeError, "give prefix= for one", {"prefixes": "a/"}),
        (TypeError, "prefixes is several", {"prefixes": 1}),
        (ValueError, "not both", {"prefixes": ["a/"], "prefix": "a/"}),
        (ValueError, "not both", {"prefixes": ["a/"], "gt": "a/"}),
        (ValueError, "at most 256", {"prefixes": map(str, range(257))}),
        (TypeError, "timeout", {"timeout": "1"}),
        (ValueError, "timeout", {"timeout": -1}),
        (ValueError, "timeout", {"timeout": float("nan")}),
    ):
        with pytest.raises(error, match=text):
            level.watch(**options)


def test_a_watch_of_prefixes_sees_what_another_opening_writes(tmp_path: Any) -> None:
    where: dict[str, Any] = {"backend": "sqlite", "mode": Level.CLIENT}
    with blocking.Level(tmp_path / "store", **where) as level, blocking.Level(tmp_path / "store", **where) as other:
        level.put("a/0", 0)
        changes = level.watch(prefixes=["a/", "c/"], timeout=PATIENCE)
        other.batch([Put("a/1", 1), Put("b/1", 1), Put("c/1", 1), Delete("a/0")])
        assert [(*next(changes),) for _ in range(3)] == [("a/0",), ("a/1", 1), ("c/1", 1)]
