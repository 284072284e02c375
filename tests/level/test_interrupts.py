"""Interrupts (Ctrl-C) and signal handlers: the store stays usable, and no call waits for itself.

``tests/interrupts`` interrupts every bytecode.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from treehub_level import Level as AsyncLevel
from treehub_level import MemoryBackend, Put, StateError, StorageError
from treehub_level.blocking import Level

pytestmark = pytest.mark.shared

MAIN = threading.main_thread().ident


class Interrupted(MemoryBackend):
    """A backend whose next write raises KeyboardInterrupt, before or after writing."""

    when = "never"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def write(self, batch: Any, *, durable: bool = False) -> None:
        when, self.when = self.when, "never"
        if when == "never":
            super().write(batch, durable=durable)
            return
        self.reached.set()
        assert self.go_on.wait(10)
        if when == "after":
            super().write(batch, durable=durable)
        raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_commit_leaves_the_cid_that_is_on_disk(when: str) -> None:
    backend = Interrupted("s")
    with Level("s", backend=lambda name: backend, mode=Level.SERVER) as level:
        level.put("a", 1)
        backend.when = when
        backend.go_on.set()
        with pytest.raises(KeyboardInterrupt):
            level.put("b", 2)
        assert level.cid == level.get("!") == (2 if when == "after" else 1)
        level.put("c", 3)
        assert level.changes(0).cid == level.cid == level.get("!")


def test_every_writer_of_an_interrupted_commit_gets_an_error_and_later_writers_succeed() -> None:
    backend = Interrupted("s")
    outcomes: list[str] = []

    def put(key: str) -> None:
        try:
            level.put(key, 1)
            outcomes.append("written")
        except (KeyboardInterrupt, StorageError) as error:
            outcomes.append(type(error).__name__)

    with Level("s", backend=lambda name: backend, mode=Level.SERVER) as level:
        backend.when = "before"
        threads = [threading.Thread(target=put, args=(f"k{number}",)) for number in range(5)]
        threads[0].start()
        assert backend.reached.wait(10)
        for thread in threads[1:]:
            thread.start()
        backend.go_on.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert len(outcomes) == 5
        assert outcomes.count("KeyboardInterrupt") == 1
        assert level.count() == outcomes.count("written") == level.cid


# ------------------------------------------------------------------------------------- re-entrance


class Signalling(MemoryBackend):
    """A backend that receives a signal in the middle of each write that is marked by its key."""

    def write(self, batch: Any, *, durable: bool = False) -> None:
        if any(key.endswith(b"signal") for key, _ in batch):
            signal.raise_signal(signal.SIGINT)
        super().write(batch, durable=durable)


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], list[object]]]:
    """Install a handler that makes a call, and return a list that collects the outcomes."""
    before = signal.getsignal(signal.SIGINT)

    def install(call: Callable[[], object]) -> list[object]:
        outcomes: list[object] = []

        def handle(number: int, frame: object) -> None:
            try:
                outcomes.append(call())
            except StateError as error:
                outcomes.append(str(error))

        signal.signal(signal.SIGINT, handle)
        return outcomes

    yield install
    signal.signal(signal.SIGINT, before)


@pytest.mark.once
@pytest.mark.parametrize("verb", ["put", "batch", "clear", "close", "open"])
def test_a_call_from_a_signal_handler_that_would_wait_for_its_own_thread_is_refused(verb: str, on_signal: Any) -> None:
    with Level("s", backend=Signalling, mode=Level.SERVER) as level:
        level.put("a", 1)
        calls = {
            "put": lambda: level.put("b", 2),
            "batch": lambda: level.batch([Put("b", 2)]),
            "clear": level.clear,
            "close": level.close,
            "open": level.open,
        }
        outcomes = on_signal(calls[verb])
        level.put("signal", 1)
        (refusal,) = outcomes
        assert re.search("would wait for itself|from within one of its own calls", str(refusal)), refusal
        assert level.query() == [("a", 1), ("signal", 1)]
        level.put("b", 3)


@pytest.mark.once
def test_a_signal_handler_may_write_while_its_thread_waits_for_a_change(on_signal: Any) -> None:
    with Level("s", backend="memory", mode=Level.SERVER) as level:
        outcomes = on_signal(lambda: level.put("a", 1))
        threading.Timer(0.05, signal.pthread_kill, [MAIN, signal.SIGINT]).start()
        page = level.changes(0, wait=30)
        assert [change.key for change in page.changes] == ["a"]
        assert outcomes == [None]


@pytest.mark.once
def test_a_sync_from_the_progress_of_a_sync_is_refused_and_the_outer_one_completes() -> None:
    with (
        Level("s", backend="memory", mode=Level.SERVER) as server,
        Level("c", backend="memory", mode=Level.CLIENT) as client,
    ):
        server.put("a", 1)
        refusals = []

        def progress(report: object) -> None:
            with pytest.raises(StateError, match="cannot synchronise this level here") as refused:
                client.sync(server)
            refusals.append(refused)

        client.sync(server, progress=progress)
        assert refusals
        assert client.get("a") == 1
        client.sync(server)


@pytest.mark.once
async def test_a_sync_from_within_the_exchange_of_a_sync_is_refused() -> None:
    server = AsyncLevel("s", backend="memory", mode=Level.SERVER)
    client = AsyncLevel("c", backend="memory", mode=Level.CLIENT)

    class Nested:
        async def exchange(self, request: Any) -> Any:
            with pytest.raises(StateError, match="this task is doing that already"):
                await client.sync(server)
            return await server.exchange(request)

    async with server, client:
        await server.put("a", 1)
        await client.sync(Nested())
        assert await client.get("a") == 1


@pytest.mark.once
def test_an_interrupted_close_can_be_repeated(on_signal: Any) -> None:
    level = Level("s", backend="memory")
    level.open()
    level.load((f"k{n}", n) for n in range(100))
    inside, go_on = threading.Event(), threading.Event()

    def slow(key: str, value: object) -> bool:
        inside.set()
        return go_on.wait(30)

    reader = threading.Thread(target=level.query, kwargs={"filter": slow})
    reader.start()
    assert inside.wait(10)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    threading.Timer(0.1, signal.pthread_kill, [MAIN, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        level.close()
    assert not level.is_open
    go_on.set()
    reader.join(10)
    level.close()
    with level:
        assert level.count() == 100
