"""An interrupted commit (Ctrl-C): the store stays usable and its CID equals that on disk."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from treehub_level import MemoryBackend, StorageError
from treehub_level.blocking import Level

pytestmark = pytest.mark.shared


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
